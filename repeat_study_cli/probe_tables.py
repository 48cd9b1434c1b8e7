"""Tables that `probe` prints: all measurements with their nulls, and one row per attention head."""

from collections.abc import Iterator

from repeat_study.formatting import plural
from repeat_study.probes.copying import COPIES
from repeat_study.probes.heads import COPIES as HEAD_COPIES
from repeat_study.probes.probed_model import ProbedModel
from repeat_study.records.metrics import BY_KEY, METRICS
from repeat_study_cli.tables import WrappedTable


def tables_of(probed: ProbedModel) -> Iterator[WrappedTable | str]:
    """Yield a description of the measurement, a table of numbers, and a table of attention heads."""
    copying = probed.copying
    yield probed.title
    if copying:
        sizes = f"copying: {copying.copies} copies of {plural(len(copying.copied), 'paragraph')}, {copying.length} tokens each"
        too_short = (
            f"; the paper's {COPIES} copies do not fit a context of {probed.context}" if copying.copies < COPIES else ""
        )
        yield f"{sizes}{too_short}"
    yield f"heads: {HEAD_COPIES} copies of {probed.heads.length} random tokens"
    yield from probed.notes
    yield ""
    yield _numbers(probed)
    yield "\nAttention heads: value ± half of its 95% interval over sequences, with the null in parentheses."
    yield _heads(probed)


def _numbers(probed: ProbedModel) -> WrappedTable:
    table = WrappedTable("metric", "unit", "value", "± 95%", "null", "untrained", left=2, optional=("unit",))
    row, untrained = probed.trained.row, probed.untrained.row
    for name, value in row.items():
        if isinstance(value, float) and not name.endswith(("_ci", "_null")):
            numbers = (value, row.get(f"{name}_ci"), row.get(f"{name}_null"), untrained.get(name))
            metric = BY_KEY.get(name)
            name_and_unit = (metric.name, metric.unit) if metric else (name.replace("_", " "), "")
            table.add_row(*name_and_unit, *map(_cell, numbers))
    return table


def _heads(probed: ProbedModel) -> WrappedTable:
    heads = probed.trained.tables["heads"]
    names = [metric.column for metric in METRICS if metric.column in heads]
    table = WrappedTable("head", *(name.replace("_", " ") for name in names))
    for index, (layer, head) in enumerate(zip(heads["layer"], heads["head"], strict=True)):
        cells = []
        for name in names:
            half_width, null = (heads.get(f"{name}_{kind}") for kind in ("ci", "null"))
            cells.append(
                _cell(heads[name][index])
                + (f"±{interval}" if half_width and (interval := _cell(half_width[index])) else "")
                + (f" ({cell})" if null and (cell := _cell(null[index])) else "")
            )
        table.add_row(f"L{layer}H{head}", *cells)
    return table


def _cell(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:.3f}"
