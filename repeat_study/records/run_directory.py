"""Read and write the files in a run directory, and derive the run's status from them.

spec.json       the run's spec, written first. A directory that contains another run's spec is rejected
metrics.jsonl   one line per evaluation. Its content depends only on the spec and on the machine's rounding, so a resumed run
                writes the same bytes as an uninterrupted one
heads.parquet   one row per evaluation and head, with the metrics that have a `column` in `records.metrics`
paragraph.parquet  one row per evaluation and token of the first copied paragraph: copy index, token text, and loss in nats
test_sequences.parquet  one row per evaluation and test sequence: sequence index and loss in nats per token. Runs with
                the same context length share the study's test sequences, so they can be compared sequence by sequence
pool_sequences.parquet  the same for the pool sequences that the run is evaluated on. `sequence` is the slot in the pool, so the
                mixture determines when each sequence is trained on. A clean run never trains on its pool sequences
timing.jsonl    one line per evaluation: seconds, tokens per second, utilization and memory. These depend on the machine, so
                they are not in metrics.jsonl. If one process trains several runs (lanes), tokens per second covers only this
                run, and the other numbers cover all lanes together
sessions.jsonl  one line per session: machine, device, precision, number of processes and lanes, and torch version
checkpoints/    last.ckpt, which is replaced atomically, and step-*.pt with weights only, if the run keeps them
events.out...   TensorBoard events with the same numbers
failed.json     the reason for a failure and the step at which it occurred; removed when the run resumes
done.json       written last, when the run is complete. It contains the checksums of the records; see `records.completion`
"""

from enum import StrEnum
from pathlib import Path

from data_prep.errors import InputError
from data_prep.files import is_locked, read_record, write_json
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run
from repeat_study.records.completion import ALTERED, AlteredRecord, altered_file, checksums, done_record
from repeat_study.records.json_lines import Row, append_row, read_rows
from repeat_study.records.spec_record import first_difference, spec_record


class Status(StrEnum):
    """The status of a run, according to its directory."""

    PENDING = "pending"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    DONE = "done"


class RunDirectory:
    """The paths and records of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec = path / "spec.json"
        self.metrics = path / "metrics.jsonl"
        self.heads = path / "heads.parquet"
        self.paragraph = path / "paragraph.parquet"
        self.test_sequences = path / "test_sequences.parquet"
        self.pool_sequences = path / "pool_sequences.parquet"
        self.timing = path / "timing.jsonl"
        self.checkpoint = path / "checkpoints" / "last.ckpt"
        self.sessions = path / "sessions.jsonl"
        self.failed = path / "failed.json"
        self.done = path / "done.json"
        self.lock = path / ".lock"

    @property
    def tables(self) -> tuple[Path, ...]:
        """The Parquet files that evaluations append to."""
        return *self.newer_tables, self.heads, self.paragraph

    @property
    def newer_tables(self) -> tuple[Path, ...]:
        """The tables that runs started by earlier versions may lack."""
        return self.test_sequences, self.pool_sequences

    @property
    def records(self) -> tuple[Path, ...]:
        """The files that every evaluation appends to."""
        return self.metrics, self.timing, *self.tables

    def weights_at(self, step: int) -> Path:
        """The file with the weights after `step` steps.

        It contains a dict with `step`, `run` (the identity of the run) and `model` (the decoder's state_dict).
        """
        return self.checkpoint.with_name(f"step-{step:09d}.pt")

    def status(self) -> Status:
        """The run's status, determined only from its files.

        A killed process releases its lock, so its run does not count as running. A run is done if its records match
        done.json, and failed if they were altered afterwards.
        """
        if record := done_record(self.done):
            return Status.FAILED if altered_file(self.done, record) else Status.DONE
        if is_locked(self.lock):
            return Status.RUNNING
        if self.failed.is_file():
            return Status.FAILED
        return Status.INTERRUPTED if self.spec.is_file() else Status.PENDING

    def make(self) -> None:
        """Create the folder. Raises InputError if it cannot be created."""
        try:
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            taken = "; move or delete it" if isinstance(error, FileExistsError) else ""
            raise InputError(f"{error.filename}: cannot be created as a folder: {error.strerror}{taken}") from error

    def check(self, run: Run, store: TokenStore) -> bool:
        """Whether this directory already belongs to the run. Changes nothing.

        Raises InputError if it belongs to a run with another spec, or if one of its files is not a regular file.
        """
        files = (self.spec, self.sessions, self.failed, self.done, self.checkpoint, *self.records)
        for path in (*files, *self.path.glob("events.out.tfevents*"), *self.checkpoint.parent.glob("*.*")):
            if path.exists() and not path.is_file():
                raise InputError(f"{path}: not a regular file; move or delete it")
        if self.spec.is_file():
            recorded, expected = read_record(self.spec), spec_record(run, store)
            if recorded != expected:
                difference = first_difference(recorded, expected)
                raise InputError(f"{self.spec}: contains another spec ({difference}); move the folder elsewhere")
            return True
        if self.metrics.exists() or self.checkpoint.exists():
            raise InputError(f"{self.path}: has results but no spec.json; move the folder elsewhere")
        return False

    def claim(self, run: Run, store: TokenStore) -> None:
        """Write the spec of the run if the directory has none. Raises InputError for the same reasons as `check`."""
        if not self.check(run, store):
            write_json(self.spec, spec_record(run, store))

    def rows(self) -> list[Row]:
        """The lines of metrics.jsonl, one per evaluation, except for a last line that was truncated by a crash."""
        return read_rows(self.metrics)

    def timings(self) -> list[Row]:
        """The lines of timing.jsonl, one per evaluation."""
        return read_rows(self.timing)

    def session_rows(self) -> list[Row]:
        """The lines of sessions.jsonl, one per session."""
        return read_rows(self.sessions)

    def add_session(self, session: Row) -> None:
        """Record a new session of the run: the step that it starts from and the machine that it runs on."""
        append_row(self.sessions, session)

    def precision(self) -> str | None:
        """The precision of matrix products in the most recent session; None before the first session."""
        sessions = self.session_rows()
        return str(sessions[-1].get("precision", "")) or None if sessions else None

    def check_precision(self, precision: str) -> None:
        """Raise InputError if the checkpoint was trained in a different precision, because a run must not mix precisions."""
        started_in = self.precision() if self.checkpoint.is_file() else None
        if started_in and started_in != precision:
            raise InputError(
                f"{self.sessions}: the run started in {started_in} and would continue in {precision}; set"
                f" resources.precision={started_in}, or delete {self.checkpoint} to train it from the beginning"
            )

    def finish(self, expected: list[int]) -> None:
        """Mark the run as complete. Raises AlteredRecord if a record lacks an evaluation at one of the `expected` steps."""
        from repeat_study.records.tables import read_table, steps_in  # takes 0.1 s, and `status` does not need it

        rows, timings = self.rows(), self.timings()
        steps = {self.metrics: [row["step"] for row in rows], self.timing: [row["step"] for row in timings]}
        for path in self.tables:
            if path.is_file() or (path == self.heads and any("prefix_matching" in row for row in rows)):
                steps[path] = steps_in(read_table(path))
        for path, recorded in steps.items():
            if recorded != expected:
                raise AlteredRecord(f"{path}: evaluations that the run wrote are missing")
        last, timing = rows[-1], timings[-1]
        record = {
            "steps": last["step"],
            "tokens": last["tokens"],
            "test_loss": last["test_loss"],
            "train_seconds": timing["train_seconds"],
            "evaluation_seconds": timing["evaluation_seconds"],
            "evaluation_share": evaluation_share(timing),
            **checksums(self.records),
        }
        write_json(self.done, record)
        self.failed.unlink(missing_ok=True)

    def check_unaltered(self) -> None:
        """Raise InputError if a record of a finished run was altered afterwards. Hashes all records."""
        if (record := done_record(self.done)) and (path := altered_file(self.done, record, hash_all=True)):
            raise InputError(f"{path}: {ALTERED}")

    def fail(self, reason: str, step: int | None = None) -> None:
        """Record why and at which step the run failed. The step defaults to that of the last evaluation.

        Creates the folder, because the process may have died before creating it.
        """
        self.make()
        if step is None:
            rows = self.rows()
            step = rows[-1]["step"] if rows else 0
        write_json(self.failed, {"reason": reason, "step": step})

    def failure(self) -> str:
        """Why the run failed, and at which step."""
        if (done := done_record(self.done)) and (path := altered_file(self.done, done)):
            return f"{path}: {ALTERED}"
        record = read_record(self.failed, "reason", "step")
        return f"{record['reason']} (step {record['step']})"


def evaluation_share(timing: Row) -> float:
    """Share of a run's time that was spent on evaluations, computed from a line of timing.jsonl."""
    total = sum(timing[f"{account}_seconds"] for account in ("train", "evaluation", "saving"))
    return float(timing["evaluation_seconds"] / total) if total else 0.0
