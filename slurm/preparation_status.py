"""Determine how far the preparation of token stores has come: from the encoded chunks, and from the queue."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_prep.chunks.ledger import read_records
from data_prep.chunks.plan import PLAN, Plan
from data_prep.files import is_locked
from slurm.client import Queue
from slurm.status import end_of_logs, saved_state
from slurm.submissions import Submission

RATE_SECONDS = 120.0  # the rate is measured over this period


@dataclass(frozen=True)
class StoreProgress:
    """How much of a store's text is encoded, by all processes together."""

    store: Path
    chunks: int
    encoded: int  # chunks
    tokens: int
    text_bytes: int
    total_text_bytes: int | None  # estimated
    tokens_per_second: float | None
    seconds_left: (
        float | None
    )  # estimated from the size of the text; with a smaller `max_tokens`, the build ends earlier
    is_settled: bool  # whether the encoded text suffices

    def record(self) -> dict[str, Any]:
        """The record for `status --json`."""
        return asdict(self) | {"store": str(self.store)}


@dataclass(frozen=True)
class PreparationJobs:
    """The jobs of the last submitted preparation."""

    counts: dict[str, int] = field(default_factory=dict)  # jobs in each state
    queued: int = 0
    failed: dict[str, tuple[str, ...]] = field(default_factory=dict)  # job id: the end of its error log

    def record(self) -> dict[str, Any]:
        """The record for `status --json`."""
        return {"counts": self.counts, "failed": {job_id: list(log) for job_id, log in self.failed.items()}}


def store_progress(store: Path, queued: bool) -> StoreProgress | None:
    """The progress of a store that is not built; None if its preparation has not begun.

    queued: whether jobs that prepare it are in the queue. The rate is unknown if they are not, and no local process is building it.
    """
    folder = store.with_name(f".{store.name}.chunks")
    if not (folder / PLAN).is_file():
        return None
    plan = Plan.load(folder)
    records = read_records(folder, plan)
    tokens = sum(record.tokens for record, _ in records)
    text_bytes = sum(record.text_bytes for record, _ in records)
    now = time.time()
    active = queued or is_locked(store.with_name(f".{store.name}.lock"))
    recent = [(record, written) for record, written in records if active and written > now - RATE_SECONDS]
    rate = bytes_rate = None
    if recent:
        # A chunk's work began `seconds` before its record was written.
        start = min(written - record.seconds for record, written in recent)
        rate = sum(record.tokens for record, _ in recent) / max(1e-3, now - start)
        bytes_rate = sum(record.text_bytes for record, _ in recent) / max(1e-3, now - start)
    left = None
    if plan.text_bytes and bytes_rate:
        left = max(0.0, plan.text_bytes - text_bytes) / bytes_rate
    return StoreProgress(
        store,
        len(plan.chunks),
        sum(record.ended for record, _ in records),
        tokens,
        text_bytes,
        plan.text_bytes,
        rate,
        left,
        (folder / "settlement.npz").is_file(),
    )


def preparation_states(submissions: Sequence[Submission], queue: Queue | None, prepared: bool) -> PreparationJobs:
    """The states of the jobs of the last preparation. prepared: whether all stores are built. `queue` is None if it is unknown."""
    last = next((submission for submission in reversed(submissions) if submission.preparation), None)
    if last is None or queue is None:
        return PreparationJobs()
    states: Counter[str] = Counter()
    failed: dict[str, tuple[str, ...]] = {}
    queued = 0
    for array in last.preparation:
        in_queue = {index: job for (name, index), job in queue.items() if name == array.name}
        for index, (task,) in enumerate(array.bundles):
            if job := in_queue.get(index):
                states["running" if job.has_nodes else "pending"] += 1
                queued += 1
                continue
            logs = last.error_logs_of_job(array.job_id_of(task))
            log = end_of_logs(logs)
            if (
                log
                and not prepared
                and not saved_state(logs)
                and "Traceback" in "".join(path.read_text(errors="replace") for path in logs)
            ):
                states["failed"] += 1
                failed.setdefault(str(array.job_id_of(task)), log)
            else:
                states["finished"] += 1
    # Jobs that stopped because of the same file report the same error.
    by_log = {log: job_id for job_id, log in reversed(failed.items())}
    return PreparationJobs(dict(states), queued, {job_id: log for log, job_id in by_log.items()})
