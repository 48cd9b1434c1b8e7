"""Format the output of `status`: one row per run, error logs of failed jobs, and the number of runs in each state."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from rich.text import Text

from repeat_study.formatting import byte_size, duration, plural
from repeat_study_cli.overview import Overview, evaluation_share_of
from repeat_study_cli.tables import Cell, WrappedTable
from slurm.preparation_status import StoreProgress
from slurm.status import RunState, State

SPEED_HEADINGS = ("left", "tokens/s", "of peak", "memory", "eval")


def tables_of(overview: Overview, max_rows: int | None = None) -> Iterator[WrappedTable | Text]:
    """Yield the table of runs, error logs, counts and warnings. Omits done and pending runs if there are more than `max_rows`."""
    if overview.missing_stores:
        yield Text(_not_prepared(overview) + "\n")
        for progress in overview.preparation:
            yield Text(_encoding(progress))
    jobs = overview.preparation_jobs
    if jobs.queued or (jobs.failed and overview.missing_stores):
        yield Text(f"preparation: {', '.join(f'{count} {state}' for state, count in jobs.counts.items())}\n")
    for job_id, log in jobs.failed.items() if overview.missing_stores else ():
        yield Text(f"job {job_id}, end of its error log:\n  " + "\n  ".join(log) + "\n")
    omitted = {State.DONE, State.PENDING} if max_rows is not None and len(overview.states) > max_rows else set()
    listed = [state for state in overview.states if state.state not in omitted]
    job_heading = ("job",) if overview.submitted else ()
    table = WrappedTable("run", "state", "step", "test loss", *job_heading, *SPEED_HEADINGS, left=2,
                         optional=SPEED_HEADINGS)  # fmt: skip
    labels = Counter(state.run.label for state in overview.states)
    for state in listed:
        table.add_row(
            _name_cell(state, overview, labels[state.run.label] == 1),
            state.state.value,
            f"{state.step}/{state.run.steps}",
            "" if state.test_loss is None else f"{state.test_loss:.3f}",
            *([state.job_id] if overview.submitted else []),
            *_speed_cells(state.timing),
            note=state.note,
        )
    yield table
    for state in listed:
        if state.log:
            yield Text(f"\n{state.run.name}, end of its error log:\n  " + "\n  ".join(state.log))
    yield Text(", ".join(f"{count} {state}" for state, count in overview.counts.items()))
    if overview.queue_error:
        yield Text(overview.queue_error)
    if overview.waiting:
        yield Text(f"{plural(len(overview.waiting), 'more run')} not known yet: {overview.waiting[0]}")
    if overview.undeclared:
        more = ", ..." * (len(overview.undeclared) > 3)
        yield Text(
            f"{plural(len(overview.undeclared), 'run')} in the queue that the study no longer declares (`cancel --all` removes"
            f" them too): {', '.join(overview.undeclared[:3])}{more}"
        )


def _not_prepared(overview: Overview) -> str:
    stores = ", ".join(map(str, overview.missing_stores))
    if overview.names_are_final:
        return f"token store not found: {stores}; runs are read from {overview.folder}"
    return (
        f"not prepared yet: {stores} {'is' if len(overview.missing_stores) == 1 else 'are'} missing. Runs are listed by"
        " label. They get their final names when the data is prepared."
    )


def _encoding(progress: StoreProgress) -> str:
    """One line about the encoding of a store's text."""
    text = f"{progress.store.name}: {progress.encoded} of {progress.chunks} chunks encoded, {progress.tokens:,} tokens"
    if progress.is_settled:
        return f"{text}; encoding is complete; the store is not written yet"
    if progress.tokens_per_second:
        text += f", {progress.tokens_per_second:,.0f} tokens/s"
    return text + (f", about {duration(progress.seconds_left)} left" if progress.seconds_left else "")


def _name_cell(state: RunState, overview: Overview, label_is_unique: bool) -> Cell:
    """The run's name, or its label if the terminal is narrow or the name is not final."""
    if not overview.names_are_final:
        return state.run.label
    return (state.run.name, state.run.label) if label_is_unique else state.run.name


def _speed_cells(timing: dict[str, Any] | None) -> tuple[str, ...]:
    """One cell for each of SPEED_HEADINGS. All are empty before the first step."""
    if not timing or not timing.get("tokens_per_second"):
        return ("",) * len(SPEED_HEADINGS)
    return (
        duration(timing["seconds_left"]) if timing.get("seconds_left") else "",
        f"{timing['tokens_per_second']:,.0f}",
        f"{timing['utilisation']:.0%}" if timing.get("utilisation") else "",
        byte_size(timing["memory_bytes"]) if timing.get("memory_bytes") else "",
        f"{evaluation_share_of(timing):.1%}",
    )
