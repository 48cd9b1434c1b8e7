"""Gives up on jobs that are killed again and again without making progress, for example because memory runs out."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from data_prep.errors import InputError
from repeat_study.records.json_lines import last_row
from repeat_study.records.run_directory import RunDirectory, Status

# A job is given up after this many starts in a row that saved nothing and did not leave in order.
MAX_STARTS = 5


@dataclass(frozen=True)
class StartLog:
    """A file beside a job's logs with one line per start: how far its runs were. Cleared when the job leaves in order."""

    path: Path
    directories: Sequence[RunDirectory]

    def record_start(self) -> None:
        """Add a line for this start.

        Raises InputError, and marks the unfinished runs as failed, after MAX_STARTS starts without progress.
        """
        previous = self.path.read_text().splitlines() if self.path.is_file() else []
        now = json.dumps(self._progress())
        in_vain = len(list(takewhile(lambda line: line == now, reversed(previous))))
        unfinished = [directory for directory in self.directories if directory.status() is not Status.DONE]
        if in_vain >= MAX_STARTS and unfinished:
            reason = f"killed {in_vain} times in a row without progress (out of memory?); see the job's log"
            for directory in unfinished:
                directory.make()
                directory.fail(reason)
            raise InputError(f"{unfinished[0].path}: {reason}")
        with self.path.open("a") as file:
            file.write(now + "\n")

    def clear(self) -> None:
        """Forget all starts, because the job leaves in order."""
        self.path.unlink(missing_ok=True)

    def _progress(self) -> list[int]:
        """Numbers that change with every evaluation and every checkpoint."""
        progress = []
        for directory in self.directories:
            row, checkpoint = last_row(directory.metrics), directory.checkpoint
            progress += [row["step"] if row else 0, checkpoint.stat().st_mtime_ns if checkpoint.is_file() else 0]
        return progress
