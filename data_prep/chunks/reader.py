"""Read the encoded chunks of a text source as batches of documents."""

import shutil
from collections.abc import Iterator
from dataclasses import asdict
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.chunks.ledger import Ledger
from data_prep.chunks.plan import Plan
from data_prep.chunks.segment import Segment
from data_prep.chunks.settlement import Settlement
from data_prep.data_spec import DataSpec
from data_prep.document_batch import COUNTS, BatchReader, CountedBatch
from data_prep.empty_split import MORE_DOCUMENTS
from data_prep.sources.document import NAMED_ROWS
from data_prep.token_store import TOKENIZER
from data_prep.tokenizer_audit import TextLoss


class ChunkReader(BatchReader):
    """Yields the documents of the encoded chunks in order, without copies of earlier documents."""

    stage = "writing the store"
    more_documents = MORE_DOCUMENTS

    def __init__(self, spec: DataSpec, data_dir: Path, plan: Plan, folder: Path) -> None:
        """folder: the store's folder. The tokenizer is copied into it."""
        super().__init__()
        self.vocabulary, self.end_of_text = plan.vocabulary, plan.end_of_text
        self._plan, self._ledger = plan, Ledger(spec, data_dir, plan)
        shutil.copyfile(self._ledger.folder / TOKENIZER, folder / TOKENIZER)
        self._settlement = Settlement.load(self._ledger.settlement)
        self._bad_named: list[str] = []
        self._loss = TextLoss()

    @property
    def kept(self) -> int:
        """Number of distinct documents that were encoded."""
        return int(self._settlement.is_first.sum())

    def finish(self) -> dict[str, Any]:
        """Check how much text the tokenizer lost in the corpus, and return it for the manifest."""
        self._loss.require_small(last=True)
        return {"text_loss": asdict(self._loss)} if self._plan.audited else {}

    def corpus_entries(self) -> dict[str, Any]:
        """The first malformed rows."""
        return {"bad_named": self._bad_named[: self.counts["bad"]]}

    def notes(self) -> list[str]:
        """Lines that name malformed rows and state how much text was lost."""
        rows = [f"malformed: {row}" for row in self.corpus_entries()["bad_named"]]
        return rows + [str(self._loss)] * self._plan.audited

    def _passed(self, batch: CountedBatch) -> None:
        if batch.losses is not None:
            self._loss = self._loss.add(batch.losses, batch.names)

    def _all_batches(self) -> Iterator[CountedBatch]:
        start = kept = rows = 0  # rows: in all chunks before this one
        chunk = 0
        empty = bad = 0
        for index, (number, segment_number) in enumerate(self._settlement.segments):
            rows += sum(self._ledger.record(earlier).rows for earlier in range(chunk, number))
            chunk = number
            path = self._ledger.segment(chunk, segment_number)
            segment = Segment.load(path).numbered(self._ledger.row_base(chunk))
            self._settlement.check(index, segment, path)
            chosen = self._settlement.is_first[start : start + len(segment.lengths)]
            start += len(segment.lengths)
            self._bad_named += map(str, segment.bad[: NAMED_ROWS - len(self._bad_named)])
            if chosen.any():
                counts = np.empty((int(chosen.sum()), len(COUNTS)), np.int64)
                row_of = segment.rows[chosen]
                counts[:, 0] = rows + row_of
                counts[:, 2] = empty + np.searchsorted(segment.empty_rows, row_of)
                counts[:, 3] = bad + np.searchsorted(segment.bad_rows, row_of)
                counts[:, 1] = counts[:, 0] - counts[:, 2] - counts[:, 3] - np.arange(kept + 1, kept + 1 + len(counts))
                kept += len(counts)
                yield CountedBatch(
                    tokens=segment.tokens,
                    starts=(np.cumsum(segment.lengths) - segment.lengths)[chosen],
                    lengths=segment.lengths[chosen],
                    is_test=segment.is_test[chosen],
                    digests=segment.digests[chosen].tobytes(),
                    names=list(compress(segment.names, chosen.tolist())),
                    text_bytes=segment.text_bytes[chosen],
                    counts=counts,
                    losses=segment.losses[chosen] if self._plan.audited else None,
                )
            empty, bad = empty + len(segment.empty_rows), bad + len(segment.bad_rows)
        read = rows + sum(self._ledger.record(later).rows for later in range(chunk, len(self._plan.chunks)))
        self._totals |= {"read": read, "duplicates": read - kept - empty - bad, "empty": empty, "bad": bad}
