"""What `status` prints: a row per run, error logs of failed jobs, and the number of runs in each state."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from rich.text import Text

from repeat_study_cli.status import Overview, evaluation_share_of
from repeat_study_cli.tables import Cell, WrappedTable
from slurm.status import RunState, State

SPEED_HEADINGS = ("left", "tokens/s", "of peak", "memory", "eval")


def tables_of(found: Overview, most_rows: int | None = None) -> Iterator[WrappedTable | Text]:
    """The table of runs and what to know about it. With more than `most_rows` runs, done and pending ones get no row."""
    if found.missing_stores:
        yield Text(_not_prepared(found) + "\n")
    quiet = {State.DONE, State.PENDING} if most_rows is not None and len(found.runs) > most_rows else set()
    shown = [run for run in found.runs if run.state not in quiet]
    job_heading = ("job",) if found.submitted else ()
    table = WrappedTable("run", "state", "step", "test loss", *job_heading, *SPEED_HEADINGS, left=2,
                         optional=SPEED_HEADINGS)  # fmt: skip
    labels = Counter(run.run.label for run in found.runs)
    for run in shown:
        table.add_row(
            _name_cell(run, found, labels[run.run.label] == 1),
            run.state.value,
            f"{run.step}/{run.run.steps}",
            "" if run.test_loss is None else f"{run.test_loss:.3f}",
            *([run.job_id] if found.submitted else []),
            *_speed_cells(run.timing),
            note=run.note,
        )
    yield table
    for run in shown:
        if run.log:
            yield Text(f"\n{run.run.name}, end of its error log:\n  " + "\n  ".join(run.log))
    yield Text(", ".join(f"{count} {state}" for state, count in found.counts.items()))
    if found.queue_error:
        yield Text(found.queue_error)
    if found.waiting:
        yield Text(f"{len(found.waiting)} more runs are not known yet: {found.waiting[0]}")
    if found.undeclared:
        more = ", ..." * (len(found.undeclared) > 3)
        yield Text(
            f"{len(found.undeclared)} more runs are in the queue, but the study no longer declares them (`cancel --all`"
            f" takes them out too): {', '.join(found.undeclared[:3])}{more}"
        )


def _not_prepared(found: Overview) -> str:
    stores = ", ".join(map(str, found.missing_stores))
    if found.names_are_final:
        return f"token store not found: {stores}; runs are read from {found.folder}"
    return (
        f"not prepared yet: {stores} {'is' if len(found.missing_stores) == 1 else 'are'} missing. Runs are shown by label;"
        f" their names are final after `repeat-study prepare {found.study}`."
    )


def _name_cell(run: RunState, found: Overview, label_is_unique: bool) -> Cell:
    """The run's name, or its label where space is short or the name is not final."""
    if not found.names_are_final:
        return run.run.label
    return (run.run.name, run.run.label) if label_is_unique else run.run.name


def _speed_cells(timing: dict[str, Any] | None) -> tuple[str, ...]:
    """Time left, speed, share of the peak, memory, and evaluation's share of the time; empty before the first step."""
    if not timing or timing["tokens_per_second"] is None:
        return ("",) * len(SPEED_HEADINGS)
    return (
        f"{timing['seconds_left'] / 60:.1f} min" if timing["seconds_left"] else "",
        f"{timing['tokens_per_second']:,.0f}",
        f"{timing['utilisation']:.0%}",
        f"{timing['memory_bytes'] / 1e9:.2f} GB",
        f"{evaluation_share_of(timing):.1%}",
    )
