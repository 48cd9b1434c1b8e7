"""Give up on jobs that are repeatedly killed without making progress, for example because they run out of memory."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from data_prep.errors import InputError
from repeat_study.records.json_lines import last_row
from repeat_study.records.run_directory import RunDirectory, Status

# Give up on a job that was killed this many times in a row without making progress.
MAX_STARTS = 5


def record_progress(path: Path, progress: Sequence[int]) -> int:
    """Append the progress at a job's start to a file. Returns how many starts in a row before this one had the same progress."""
    previous = path.read_text().splitlines() if path.is_file() else []
    now = json.dumps(list(progress))
    with path.open("a") as file:
        file.write(now + "\n")
    return len(list(takewhile(lambda line: line == now, reversed(previous))))


@dataclass(frozen=True)
class StartLog:
    """A file next to a job's logs that records the job's progress at each start. It is deleted when a signal stops the job."""

    path: Path
    directories: Sequence[RunDirectory]

    def record_start(self) -> None:
        """Append a line with the current progress.

        After MAX_STARTS starts without progress, marks all unfinished runs as failed and raises InputError.
        """
        without_progress = record_progress(self.path, self._progress())
        unfinished = [directory for directory in self.directories if directory.status() is not Status.DONE]
        if without_progress >= MAX_STARTS and unfinished:
            reason = f"killed {without_progress} times in a row without progress (out of memory?); see the job's log"
            for directory in unfinished:
                directory.make()
                directory.fail(reason)
            raise InputError(f"{unfinished[0].path}: {reason}")

    def clear(self) -> None:
        """Delete the file, because the job was stopped by a signal and saved its state."""
        self.path.unlink(missing_ok=True)

    def _progress(self) -> list[int]:
        """Numbers that change with every evaluation and every checkpoint."""
        progress = []
        for directory in self.directories:
            row, checkpoint = last_row(directory.metrics), directory.checkpoint
            progress += [row["step"] if row else 0, checkpoint.stat().st_mtime_ns if checkpoint.is_file() else 0]
        return progress
