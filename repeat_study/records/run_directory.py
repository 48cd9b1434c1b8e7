"""The run directory: what a run writes and how it is read back. It is the only contract between training and analysis.

spec.json       the run's science, written first; a directory made by another spec is refused
metrics.jsonl   one line per evaluation, a function of the spec and of how its machine rounds: resumed there, a run writes the
                same bytes
heads.parquet   a row per evaluation and head: the scores of `probes.head_table`
paragraph.parquet  a row per evaluation and token of the first copied paragraph: copy, token as text, loss in nats
timing.jsonl    seconds, tokens per second, utilisation and memory beside each evaluation; machines differ, so it is kept apart. Of runs
                that were trained together (`lanes`) the tokens are the run's; seconds, utilisation and memory are what all shared
sessions.jsonl  one line per start: machine, device, precision, number of processes and of lanes, version of torch
checkpoints/    last.ckpt, replaced atomically; step-*.pt, weights alone, where they are asked for
events.out...   TensorBoard events, a view of metrics.jsonl
failed.json     why and where the run stopped, until it is resumed
done.json       written last: the run is complete
"""

import hashlib
import io
import json
import os
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from data_prep.errors import InputError
from data_prep.files import is_locked, read_record, write_atomically, write_json
from data_prep.token_store import TokenStore
from repeat_study.config.run import RESULT_FORMAT, Run

Row = dict[str, Any]
Columns = dict[str, list[Any]]


class Status(StrEnum):
    """Where a run stands, as its directory tells."""

    PENDING = "pending"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    DONE = "done"


class RunDirectory:
    """Paths and records of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec = path / "spec.json"
        self.metrics = path / "metrics.jsonl"
        self.heads = path / "heads.parquet"
        self.paragraph = path / "paragraph.parquet"
        self.timing = path / "timing.jsonl"
        self.checkpoint = path / "checkpoints" / "last.ckpt"
        self.sessions = path / "sessions.jsonl"
        self.failed = path / "failed.json"
        self.done = path / "done.json"
        self.lock = path / ".lock"

    def weights_at(self, step: int) -> Path:
        """Where the weights of a step are kept: a dict of `step`, `run` (its identity) and `model`, the
        decoder's state_dict."""
        return self.checkpoint.with_name(f"step-{step:09d}.pt")

    def status(self) -> Status:
        """Read from the directory alone; the lock falls with its process, so a killed run is never called running."""
        if self.done.is_file():
            return Status.DONE
        if is_locked(self.lock):
            return Status.RUNNING
        if self.failed.is_file():
            return Status.FAILED
        return Status.INTERRUPTED if self.spec.is_file() else Status.PENDING

    def make(self) -> None:
        """Create the folder; raises InputError when it cannot be."""
        try:
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.path}: cannot hold a run: {error.strerror}") from error

    def check(self, run: Run, store: TokenStore) -> bool:
        """Whether this directory is the run's already; touches nothing.

        Raises InputError when another spec made it.
        """
        if self.spec.is_file():
            found, wanted = read_record(self.spec), spec_record(run, store)
            if found != wanted:
                raise InputError(
                    f"{self.spec}: made by another spec ({_difference(found, wanted)}); move the folder away"
                )
            return True
        if self.metrics.exists() or self.checkpoint.exists():
            raise InputError(f"{self.path}: holds a run without its spec.json; move the folder away")
        return False

    def claim(self, run: Run, store: TokenStore) -> None:
        """Make the directory the run's, or check that it is; raises InputError as `check` does."""
        if not self.check(run, store):
            write_json(self.spec, spec_record(run, store))

    def rows(self) -> list[Row]:
        """All evaluations in order; a last line cut short by a crash is left out."""
        return _read_lines(self.metrics)

    def last(self, path: Path) -> Row | None:
        """The last whole line of one of the .jsonl files, whose others are not read; None where it has none."""
        try:
            with path.open("rb") as file:
                size = reach = file.seek(0, os.SEEK_END)
                lines: list[bytes] = []
                for reach in (2**14, size):  # a line of metrics.jsonl has one to a few kilobytes
                    file.seek(max(size - reach, 0))
                    if len(lines := file.read().split(b"\n")) > 2 or reach >= size:
                        break
        except FileNotFoundError:
            return None
        return _parsed(path, lines[-2:-1])[0] if len(lines) > 1 else None

    def check_records(self) -> None:
        """Raises InputError when a finished run's records are not the ones it finished with."""
        if self.done.is_file():
            for name, wanted in read_record(self.done, "sha256")["sha256"].items():
                path = self.path / name
                found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
                if found != wanted:
                    raise InputError(
                        f"{path}: altered after the run was done; delete the run's folder to train it again"
                    )

    def checked_rows(self) -> list[Row]:
        """All evaluations; raises InputError as `check_records` does."""
        self.check_records()
        return self.rows()

    def timings(self) -> list[Row]:
        """Seconds trained and evaluated at each evaluation; same form as rows."""
        return _read_lines(self.timing)

    def table(self, path: Path) -> pa.Table | None:
        """heads.parquet or paragraph.parquet; None where no evaluation has written it. Raises InputError where it is
        damaged."""
        if not path.is_file():
            return None
        try:
            with parquet.ParquetFile(path) as file:  # read_table sets up a dataset first, at twice the time
                return file.read(use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path}: damaged ({error}); delete the run's folder to train it again") from error

    def heads_of(self, rows: list[Row]) -> list[Columns]:
        """The columns of heads.parquet at each of these evaluations, empty where it has none."""
        table = self.table(self.heads)
        if table is None:
            return [{} for _ in rows]
        return [table.filter(pc.field("step") == row["step"]).to_pydict() for row in rows]

    def append(self, row: Row, timing: Row, heads: Columns, paragraph: Columns) -> None:
        """Add one evaluation; on the disk before this returns. The row of metrics comes after what it stands for."""
        for path, columns in ((self.heads, heads), (self.paragraph, paragraph)):
            if columns:
                entries = len(next(iter(columns.values())))
                when = {key: [row[key]] * entries for key in ("step", "tokens")}
                standing = self.table(path)
                added = pa.table(when | columns, schema=standing.schema if standing else None)
                _write_table(path, pa.concat_tables([standing, added]) if standing else added)
        _append(self.metrics, row)
        _append(self.timing, timing)

    def keep_precision(self, precision: str) -> None:
        """Raises InputError where the run was begun in another precision: one curve is of one precision."""
        begun = self.precision() if self.checkpoint.is_file() else None
        if begun and begun != precision:
            raise InputError(
                f"{self.sessions}: the run was begun in {begun}, here it would go on in {precision}; set"
                f" resources.precision={begun}, or delete {self.checkpoint} to train it from its start"
            )

    def precision(self) -> str | None:
        """What the run's products were computed in, by its last session; None before the first."""
        sessions = self.session_rows()
        return str(sessions[-1]["precision"]) if sessions else None

    def session_rows(self) -> list[Row]:
        """All starts of the run in order."""
        return _read_lines(self.sessions)

    def begin(self, session: Row) -> None:
        """Add what is known of the machine that trains the run from here on."""
        _append(self.sessions, session)

    def rewind(self, step: int, expected: list[int]) -> list[Row]:
        """Forget evaluations after `step`: the run goes on from a checkpoint there. Returns the rows that stay.

        `expected`: the steps that have to be there. Raises InputError, and forgets nothing, when they are not.
        """
        kept = [row for row in self.rows() if row["step"] <= step]
        timings = [row for row in self.timings() if row["step"] <= step]
        tables = {path: self.table(path) for path in (self.heads, self.paragraph)}
        steps = {path: [row["step"] for row in found] for path, found in ((self.metrics, kept), (self.timing, timings))}
        for path, table in tables.items():
            found = sorted(set(table["step"].to_pylist())) if table else []
            # A context that is too short for the probe of heads has no table of them.
            if path == self.paragraph or any("prefix_matching" in row for row in kept):
                steps[path] = [at for at in found if at <= step]
        for path, standing in steps.items():
            if standing != expected:
                raise InputError(
                    f"{path}: does not hold every evaluation up to step {step}, where the checkpoint stands;"
                    f" delete {self.checkpoint} to train the run from its start"
                )
        for scratch in self.path.glob(".*.tmp"):  # of writes that a kill cut short
            scratch.unlink(missing_ok=True)
        for path, table in tables.items():
            if table:
                _write_table(path, table.filter(pc.field("step") <= step))
        write_atomically(self.metrics, _lines(kept))
        write_atomically(self.timing, _lines(timings))
        return kept

    def finish(self, expected: list[int]) -> None:
        """Mark the run complete; asserts that it was evaluated at every one of the `expected` steps."""
        rows = self.rows()
        assert [row["step"] for row in rows] == expected, f"{self.path}: evaluations are missing"
        last = rows[-1]
        timing = self.timings()[-1]
        record = {
            "steps": last["step"],
            "tokens": last["tokens"],
            "test_loss": last["test_loss"],
            "train_seconds": timing["train_seconds"],
            "evaluation_seconds": timing["evaluation_seconds"],
            "evaluation_share": evaluation_share(timing),
            "sha256": {
                path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                for path in (self.metrics, self.heads, self.paragraph)
                if path.is_file()
            },
        }
        write_json(self.done, record)
        self.failed.unlink(missing_ok=True)

    def fail(self, reason: str, step: int | None = None) -> None:
        """Record why the run stopped, and at which step, the last evaluated one unless given; its checkpoint stays, and
        resuming clears the mark."""
        rows = self.rows()
        last = rows[-1]["step"] if rows else 0
        write_json(self.failed, {"reason": reason, "step": last if step is None else step})

    def failure(self) -> str:
        """Why and at which step the run failed."""
        record = read_record(self.failed, "reason", "step")
        return f"{record['reason']} (step {record['step']})"


def final_test_losses(study_dir: Path, runs: Iterable[Run]) -> dict[str, float]:
    """Of those of `runs` that are done in a study's folder, by name, in nats per token."""
    done = {run.name: RunDirectory(study_dir / run.name).done for run in runs}
    return {name: float(read_record(path, "test_loss")["test_loss"]) for name, path in done.items() if path.is_file()}


def spec_record(run: Run, store: TokenStore) -> dict[str, Any]:
    """Content of spec.json: the run's fields and what follows from them."""
    shape, mixture = run.shape, run.mixture()
    vocabulary = run.model_vocabulary(store.vocabulary)
    record = {
        "name": run.name,
        "label": run.label,
        "identity": run.identity,
        "format": RESULT_FORMAT,
        **run.model_dump(),
        "vocabulary": vocabulary,
        "parameters_non_embedding": shape.parameters_non_embedding,
        "parameters_total": shape.parameters_total(vocabulary),
        "steps": run.steps,
        "trained_tokens": run.positions * run.context,
        "pool_sequences": mixture.pool,
        "pool_tokens": mixture.pool * run.context,
        "unique_tokens": mixture.unique_positions * run.context,
        "exact_repeated_fraction": float(mixture.exact_fraction),
        "training_flops_per_token": shape.training_flops_per_token(vocabulary, run.context),
    }
    return dict(json.loads(json.dumps(record)))


def evaluation_share(timing: Row) -> float:
    """Evaluation's share of all seconds up to a line of timing.jsonl."""
    spent = sum(timing[f"{account}_seconds"] for account in ("train", "evaluation", "saving"))
    return float(timing["evaluation_seconds"] / spent)


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    key = next(key for key in (*wanted, *found) if found.get(key) != wanted.get(key))
    return f"{key}: found {found.get(key)!r}, wanted {wanted.get(key)!r}"


def _write_table(path: Path, table: pa.Table) -> None:
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    write_atomically(path, buffer.getvalue())


def _append(path: Path, record: Row) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _lines(rows: Iterable[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _read_lines(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    *whole, _ = path.read_bytes().split(b"\n")
    return _parsed(path, whole)


def _parsed(path: Path, lines: list[bytes]) -> list[Row]:
    try:
        rows = [json.loads(line) for line in lines]
        assert all(isinstance(row["step"], int) for row in rows), "a line without its step"
        return rows
    except (ValueError, TypeError, KeyError, AssertionError) as error:
        raise InputError(f"{path}: malformed line ({error}); delete the run's folder to train it again") from error
