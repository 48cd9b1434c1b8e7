"""TensorBoard: a view of metrics.jsonl, rebuilt from it on resume, so that no point is doubled or lost."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

TAGS = {
    "test_loss": "loss/test",
    "pool_loss": "loss/pool",
    "seen_unique_loss": "loss/seen_unique",
    "train_loss": "loss/train",
    "copying_loss": "copying/later_copies",
    "copying_gain": "copying/gain",
    "copying_gain_null": "copying/gain_null",
    "learning_rate": "training/learning_rate",
    "tokens_per_second": "training/tokens_per_second",
}


class Monitor:
    """Writes one run's events; the horizontal axis is trained tokens."""

    def __init__(self, folder: Path, rows: Iterable[dict[str, Any]]) -> None:
        """Start `folder` anew from the evaluations that stand."""
        shutil.rmtree(folder, ignore_errors=True)
        self._writer = SummaryWriter(str(folder))
        for row in rows:
            self.add(row)

    def add(self, row: dict[str, Any]) -> None:
        """One evaluation; losses in nats per token."""
        for key, tag in TAGS.items():
            if row.get(key) is not None:
                self._writer.add_scalar(tag, row[key], row["tokens"], walltime=row.get("time"))
        for copy, loss in enumerate(row["copying_loss_per_copy"], start=1):
            self._writer.add_scalar(f"copying/copy_{copy:02d}", loss, row["tokens"], walltime=row.get("time"))
        self._writer.flush()

    def close(self) -> None:
        """Flush and release the file."""
        self._writer.close()
