"""Decide whether the encoded chunks suffice: drop duplicates in all of them, and count what remains."""

import io
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from zlib import crc32

import numpy as np
import numpy.typing as npt

from data_prep.chunks.duplicates import first_copies
from data_prep.chunks.ledger import Ledger
from data_prep.chunks.segment import Segment, load_arrays, load_digests
from data_prep.document_batch import documents_within
from data_prep.errors import InputError
from data_prep.files import write_atomically
from data_prep.sources.document import too_many_bad_rows
from data_prep.tokenizer_audit import TextLoss

MARGIN = 1.02  # encode this many times the tokens that seem to be missing, so that another round is rarely necessary


def settle(ledger: Ledger) -> None:
    """Record which documents are first copies if the encoded chunks have `max_tokens` tokens without duplicates, or are all chunks.

    Otherwise, raise the ledger's target, so that more chunks are encoded. Raises InputError if the corpus cannot be used: a chunk
    that is needed cannot be read, or there are too many bad rows, or the tokenizer loses too much text.
    """
    ledger.advance()
    segments = list(ledger.segments())
    paths = [ledger.segment(*segment) for segment in segments]
    checksums = [_checksum(digests) for digests in map(load_digests, paths)]
    counts = [documents for documents, _ in checksums]
    is_first = first_copies(counts, lambda number: load_digests(paths[number]), ledger.folder)
    limit = ledger.spec.source.bad_row_limit
    tokens = bad = start = 0
    for (chunk, _), path, count in zip(segments, paths, counts, strict=True):
        lengths, rows, bad_rows = load_arrays(path, "lengths", "rows", "bad_rows")
        chosen = is_first[start : start + count]
        start += count
        needed = documents_within(lengths[chosen], ledger.spec.max_tokens - tokens) if chosen.any() else 0
        tokens += int(lengths[chosen][:needed].sum())
        reached = tokens >= ledger.spec.max_tokens
        bad_before = bad
        bad += int((bad_rows <= rows[chosen][needed - 1]).sum()) if reached else len(bad_rows)
        if limit is not None and bad > limit:
            row = Segment.load(path).numbered(ledger.row_base(chunk)).bad[limit - bad_before]
            raise too_many_bad_rows(row, limit + 1, limit)
        if reached:
            break
    if tokens < ledger.spec.max_tokens and ledger.next < len(ledger.plan.chunks):
        if unreadable := ledger.error(ledger.next):
            raise unreadable
        record = ledger.record(ledger.next)
        if ledger.lost_text(record.characters, record.lost):
            _loss_of(paths, is_first).require_small(last=True)
        encoded = ledger.tokens + record.tokens
        missing = ledger.spec.max_tokens - tokens
        ledger.raise_target(encoded + max(1, int(missing * encoded / max(1, tokens) * MARGIN)))
        return
    content = io.BytesIO()
    np.savez(
        content,
        is_first=is_first,
        segments=np.array(segments, np.int64).reshape(-1, 2),
        checksums=np.array(checksums, np.uint64).reshape(-1, 2),
    )
    write_atomically(ledger.settlement, content.getvalue())


def _loss_of(paths: list[Path], is_first: npt.NDArray[np.bool_]) -> TextLoss:
    """How much text the tokenizer loses in all encoded documents."""
    loss, start = TextLoss(), 0
    for segment in map(Segment.load, paths):
        chosen = is_first[start : start + len(segment.lengths)]
        start += len(chosen)
        loss = loss.add(segment.losses[chosen], list(compress(segment.names, chosen.tolist())))
    return loss


def _checksum(digests: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """The number of documents in a segment, and a checksum of their digests."""
    return len(digests), crc32(digests.tobytes())


@dataclass(frozen=True)
class Settlement:
    """What `settle` recorded."""

    is_first: npt.NDArray[np.bool_]  # whether each encoded document is a first copy
    segments: list[tuple[int, int]]  # chunk and number of each segment with encoded documents
    checksums: list[tuple[int, int]]  # of each segment

    @classmethod
    def load(cls, path: Path) -> "Settlement":
        """Read the file that `settle` wrote."""
        with np.load(path) as file:
            pairs = [[(int(a), int(b)) for a, b in file[name]] for name in ("segments", "checksums")]
            return cls(file["is_first"], *pairs)

    def check(self, index: int, segment: Segment, path: Path) -> None:
        """Raise InputError if a segment has changed since then: another process without a working lock has encoded it again."""
        if _checksum(segment.digests) != self.checksums[index]:
            raise InputError(
                f"{path}: has been written again after the build chose its documents (do the locks of this file system work on all"
                f" nodes?); delete the folder {path.parent} to start again"
            )
