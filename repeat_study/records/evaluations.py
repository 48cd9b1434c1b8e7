"""Append evaluations to a run directory, and, when a run resumes, remove all evaluations after its checkpoint."""

from collections.abc import Mapping
from typing import Any

from data_prep.errors import InputError
from repeat_study.records.digests import check_records
from repeat_study.records.json_lines import Row, append_row, write_rows
from repeat_study.records.run_directory import RunDirectory
from repeat_study.records.tables import Columns, append_columns, columns_at, read_table, steps_in, up_to, write_table


def append_evaluation(directory: RunDirectory, row: Row, timing: Row, tables: Mapping[str, Columns]) -> None:
    """Append one evaluation; it is on disk when this function returns.

    tables: the columns of every Parquet table, by table name. The tables are written before the line in metrics.jsonl, so they
    are complete for every evaluation in that file. Runs started by an earlier version may lack some of the newer tables. When
    such a run resumes, the missing tables are not created, because they would lack the first evaluations.
    """
    first = not directory.rows()
    for path in directory.tables:
        if first or path.is_file() or path not in directory.newer_tables:
            append_columns(path, row["step"], row["tokens"], tables.get(path.stem, {}))
    append_row(directory.metrics, row)
    append_row(directory.timing, timing)


def heads_of(directory: RunDirectory, rows: list[Row]) -> list[Columns]:
    """The columns of heads.parquet for each of these evaluations; empty dicts if the run has no such table."""
    table = read_table(directory.heads)
    return [columns_at(table, row["step"]) if table else {} for row in rows]


def rewind(directory: RunDirectory, step: int, expected: list[int], digests: Any = None) -> list[Row]:
    """Remove all evaluations after the checkpoint at `step`, and return the remaining lines of metrics.jsonl.

    expected: steps of the evaluations that must remain. digests: the record checksums in the checkpoint, if it has any.
    Raises InputError, without removing anything, if an evaluation is missing or was altered.
    """
    rows = [row for row in directory.rows() if row["step"] <= step]
    timings = [row for row in directory.timings() if row["step"] <= step]
    tables = {path: read_table(path) for path in directory.tables}
    steps = {directory.metrics: [row["step"] for row in rows], directory.timing: [row["step"] for row in timings]}
    for path, table in tables.items():
        # A run has no heads.parquet if the context is too short for the head probe. Runs started by earlier versions lack the
        # newer tables.
        if (
            path == directory.paragraph
            or (path == directory.heads and any("prefix_matching" in row for row in rows))
            or (path in directory.newer_tables and table)
        ):
            steps[path] = [recorded for recorded in steps_in(table) if recorded <= step]
    for path, recorded_steps in steps.items():
        if recorded_steps != expected:
            raise InputError(
                f"{path}: evaluations up to the checkpoint at step {step} are missing; delete {directory.checkpoint} to train"
                " the run from the beginning"
            )
    check_records(directory, step, digests)
    for scratch in (
        *directory.path.glob(".*.tmp"),
        *directory.checkpoint.parent.glob("*.tmp"),
    ):  # left by a process that was killed while writing
        scratch.unlink(missing_ok=True)
    for path, table in tables.items():
        if table:
            write_table(path, up_to(table, step))
    write_rows(directory.metrics, rows)
    write_rows(directory.timing, timings)
    return rows
