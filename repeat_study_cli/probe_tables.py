"""What `probe` prints: the measured numbers beside their nulls, and a row per head."""

from collections.abc import Iterator

from rich.table import Table

from repeat_study.probes.checkpoint_probe import Probed
from repeat_study.probes.copying import COPIES
from repeat_study.probes.heads import COPIES as HEAD_COPIES
from repeat_study.records.metrics import METRICS
from repeat_study_cli.plan_tables import plain_table


def tables_of(probed: Probed) -> Iterator[Table | str]:
    """What people read: what was measured, a table of numbers, a table of heads."""
    run, copying = probed.run, probed.evaluator.copying
    assert probed.evaluator.heads
    yield f"{run.name}, step {probed.step} of {run.steps}, {probed.step * run.tokens_per_step:,} tokens"
    said = f"copying: {copying.copies} copies of {len(copying.copied)} paragraphs, {copying.length} tokens each"
    fewer = f"; the {COPIES} of the paper do not fit a context of {run.context}" if copying.copies < COPIES else ""
    yield f"{said}{fewer}"
    yield f"heads: {HEAD_COPIES} copies of {probed.evaluator.heads.length} random tokens\n"
    numbers = plain_table("nats, or 0 to 1", "value", "± 95%", "null", "untrained")
    row, untrained = probed.found.row, probed.untrained.row
    for name, value in row.items():
        if isinstance(value, float) and not name.endswith(("_ci", "_null")):
            beside = (row.get(f"{name}_ci"), row.get(f"{name}_null"), untrained.get(name))
            numbers.add_row(name.replace("_", " "), *map(_cell, (value, *beside)))
    yield numbers
    yield "\neach head ± 95% over sequences, its null in brackets"
    names = [metric.column for metric in METRICS if metric.column]
    heads = probed.found.heads
    table = plain_table("head", *(name.replace("_", " ") for name in names))
    for place, (layer, head) in enumerate(zip(heads["layer"], heads["head"], strict=True)):
        cells = []
        for name in names:
            half, null = (heads.get(f"{name}_{kind}") for kind in ("ci", "null"))
            cells.append(
                _cell(heads[name][place])
                + (f"±{_cell(half[place])}" if half else "")
                + (f" ({_cell(null[place])})" if null else "")
            )
        table.add_row(f"L{layer}H{head}", *cells)
    yield table


def _cell(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:.3f}"
