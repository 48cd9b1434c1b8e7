"""Tables that `probe` prints: all measurements with their nulls, and one row per attention head."""

from collections.abc import Iterator

from repeat_study.probes.checkpoint_probe import ProbedCheckpoint
from repeat_study.probes.copying import COPIES
from repeat_study.probes.heads import COPIES as HEAD_COPIES
from repeat_study.records.metrics import BY_KEY, METRICS
from repeat_study_cli.tables import WrappedTable


def tables_of(probed: ProbedCheckpoint) -> Iterator[WrappedTable | str]:
    """Yield a description of the measurement, a table of numbers, and a table of attention heads."""
    run, copying = probed.run, probed.evaluator.copying
    assert probed.evaluator.heads
    yield f"{run.name}, step {probed.step} of {run.steps}, {probed.step * run.tokens_per_step:,} tokens"
    sizes = f"copying: {copying.copies} copies of {len(copying.copied)} paragraphs, {copying.length} tokens each"
    too_short = (
        f"; the paper's {COPIES} copies do not fit a context of {run.context}" if copying.copies < COPIES else ""
    )
    yield f"{sizes}{too_short}"
    yield f"heads: {HEAD_COPIES} copies of {probed.evaluator.heads.length} random tokens\n"
    yield _numbers(probed)
    yield "\nAttention heads: value ± half of its 95% interval over sequences, with the null in parentheses."
    yield _heads(probed)


def _numbers(probed: ProbedCheckpoint) -> WrappedTable:
    table = WrappedTable("metric", "unit", "value", "± 95%", "null", "untrained", left=2, optional=("unit",))
    row, untrained = probed.trained.row, probed.untrained.row
    for name, value in row.items():
        if isinstance(value, float) and not name.endswith(("_ci", "_null")):
            numbers = (value, row.get(f"{name}_ci"), row.get(f"{name}_null"), untrained.get(name))
            metric = BY_KEY.get(name)
            name_and_unit = (metric.name, metric.unit) if metric else (name.replace("_", " "), "")
            table.add_row(*name_and_unit, *map(_cell, numbers))
    return table


def _heads(probed: ProbedCheckpoint) -> WrappedTable:
    names = [metric.column for metric in METRICS if metric.column]
    heads = probed.trained.tables["heads"]
    table = WrappedTable("head", *(name.replace("_", " ") for name in names))
    for index, (layer, head) in enumerate(zip(heads["layer"], heads["head"], strict=True)):
        cells = []
        for name in names:
            half_width, null = (heads.get(f"{name}_{kind}") for kind in ("ci", "null"))
            cells.append(
                _cell(heads[name][index])
                + (f"±{interval}" if half_width and (interval := _cell(half_width[index])) else "")
                + (f" ({_cell(null[index])})" if null else "")
            )
        table.add_row(f"L{layer}H{head}", *cells)
    return table


def _cell(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:.3f}"
