"""The state of a build's chunks: a folder that processes on any number of machines share.

NNNNNN.json       the record of a chunk, numbered by its id: what has been encoded so far; rewritten after every segment
NNNNNN-KKK.npz    its segments
NNNNNN.error      why a chunk cannot be encoded
claims            locked at byte N by the process that encodes chunk N; the operating system releases the lock of a killed process
target.json       how many tokens to encode, if duplicates make more than `max_tokens` necessary
settlement.npz    written when the encoded chunks suffice
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from data_prep.chunks.changes import CLAIMS, SETTLEMENT, chunk_file
from data_prep.chunks.plan import Plan
from data_prep.data_spec import DataSpec
from data_prep.errors import CannotResume, InputError
from data_prep.files import read_record, write_json
from data_prep.tokenizer_audit import TextLoss


@dataclass(frozen=True)
class Record:
    """How far a chunk is encoded."""

    segments: int = 0
    rows: int = 0  # read from the source
    row_numbers: int = 0  # that the chunk uses; see Source.rows_in
    documents: int = 0
    tokens: int = 0
    text_bytes: int = 0
    bad: int = 0
    characters: int = 0  # visible ones, if the tokenizer is audited
    lost: int = 0  # of them
    seconds: float = 0.0  # spent by the process
    ended: bool = False  # whether the chunk is complete


NO_RECORD = Record()
SETTLING = 2**40  # the byte of the file `claims` that is locked by the process that settles the chunks


class Ledger:
    """Reads and writes the state of a build's chunks.

    next: the first chunk that is not complete; tokens, text_bytes, bad: totals of the chunks before it; target: tokens to encode.
    """

    def __init__(self, spec: DataSpec, data_dir: Path, plan: Plan) -> None:
        self.spec, self.plan, self.folder = spec, plan, spec.chunks_folder(data_dir)
        self.next = self.tokens = self.text_bytes = self.bad = 0
        self.target = spec.max_tokens
        self.loss = TextLoss()  # of the chunks before `next`; duplicates count
        self._row_bases: dict[int, int] = {}
        self._complete: dict[int, Record] = {}
        self._claims: IO[bytes] | None = None

    def close(self) -> None:
        """Release all claims."""
        if self._claims:
            self._claims.close()
            self._claims = None

    def record(self, chunk: int) -> Record:
        """The record of a chunk. Raises InputError if it is damaged."""
        if chunk in self._complete:
            return self._complete[chunk]
        path = self._path(chunk, ".json")
        if not path.is_file():
            return NO_RECORD
        try:
            record = Record(**read_record(path))
        except TypeError as error:
            raise InputError(f"{path}: malformed; delete the folder {self.folder} to start again") from error
        if record.ended:
            self._complete[chunk] = record
        return record

    def write(self, chunk: int, record: Record) -> None:
        """Write the record of a chunk that this process has claimed."""
        write_json(self._path(chunk, ".json"), asdict(record))

    def segment(self, chunk: int, number: int) -> Path:
        """The file of a segment."""
        return self._path(chunk, f"-{number:03d}.npz")

    @property
    def is_settled(self) -> bool:
        """Whether enough chunks are encoded."""
        return self.settlement.is_file()

    @property
    def settlement(self) -> Path:
        """The file that `settle` writes."""
        return self.folder / SETTLEMENT

    def advance(self) -> None:
        """Move `next` past all complete chunks, and read the target."""
        with suppress(InputError):
            self.target = int(read_record(self.folder / "target.json", "tokens")["tokens"])
        while self.next < len(self.plan.chunks) and (record := self.record(self.next)).ended:
            self._add(record)
            self.next += 1

    def _add(self, record: Record) -> None:
        self.tokens += record.tokens
        self.text_bytes += record.text_bytes
        self.bad += record.bad
        self.loss = TextLoss(self.loss.characters + record.characters, self.loss.lost + record.lost)

    def raise_target(self, tokens: int) -> None:
        """Encode this many tokens."""
        write_json(self.folder / "target.json", {"tokens": tokens})

    @property
    def is_finished(self) -> bool:
        """Whether no more work can be claimed until the encoded chunks are settled: see `advance`, which has to be called first."""
        if self.next == len(self.plan.chunks) or self.error(self.next):
            return True
        record = self.record(self.next)
        enough = self.tokens + record.tokens >= self.target
        return enough or self._exceeds_limit(record) or self.lost_text(record.characters, record.lost)

    def _exceeds_limit(self, record: Record) -> bool:
        limit = self.spec.source.bad_row_limit
        return limit is not None and self.bad + record.bad > limit

    def lost_text(self, characters: int, lost: int) -> bool:
        """Whether the tokenizer loses too much text. characters, lost: counts for the chunk `next`."""
        loss = TextLoss(self.loss.characters + characters, self.loss.lost + lost)
        return loss.is_large(last=False)

    def claim(self) -> int | None:
        """Claim the first chunk that no process has claimed, until it is released. Returns None if there is none.

        Chunks after one that cannot be encoded are not claimed, and neither are chunks after enough tokens.
        """
        self.advance()
        if self.is_finished:
            return None
        tokens, limit = self.tokens, self.spec.source.bad_row_limit
        for chunk in range(self.next, len(self.plan.chunks)):
            record = self.record(chunk)
            tokens += record.tokens
            if self.error(chunk) or (limit is not None and record.bad > limit):
                return None
            if not record.ended and self._lock(self.plan.ids[chunk]):
                if not self.record(chunk).ended:
                    return chunk
                self.release(chunk)
            if tokens >= self.target:
                return None
        return None

    def release(self, chunk: int) -> None:
        """Release a claim."""
        self._unlock(self.plan.ids[chunk])

    def _unlock(self, byte: int) -> None:
        assert self._claims
        fcntl.lockf(self._claims, fcntl.LOCK_UN, 1, byte)

    def _lock(self, byte: int, wait: bool = False) -> bool:
        if self._claims is None:
            self._claims = (self.folder / CLAIMS).open("ab")
        try:
            fcntl.lockf(self._claims, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, byte)
        except (BlockingIOError, PermissionError):  # the second one on some file systems
            return False
        return True

    @contextmanager
    def settling(self) -> Iterator[None]:
        """Wait until no other process is settling the chunks."""
        self._lock(SETTLING, wait=True)
        try:
            yield
        finally:
            self._unlock(SETTLING)

    def error(self, chunk: int) -> InputError | None:
        """Why a chunk cannot be encoded; None if it can."""
        path = self._path(chunk, ".error")
        if not path.is_file():
            return None
        record = read_record(path, "message", "can_resume")
        return (InputError if record["can_resume"] else CannotResume)(record["message"])

    def write_error(self, chunk: int, error: InputError) -> None:
        """Record why a chunk cannot be encoded."""
        record = {"message": str(error), "can_resume": not isinstance(error, CannotResume)}
        write_json(self._path(chunk, ".error"), record)

    def segments(self) -> Iterator[tuple[int, int]]:
        """The chunk and number of each segment of the complete chunks and the one after them, in order."""
        for chunk in range(min(self.next + 1, len(self.plan.chunks))):
            for number in range(self.record(chunk).segments):
                yield chunk, number

    def row_base(self, chunk: int) -> int:
        """Number to add to the row numbers in a chunk's names, because `read_chunk` numbers rows from 1 if `rows_before` is unknown."""
        first = chunk
        while self.plan.chunks[first].rows_before is None and first not in self._row_bases:
            first -= 1
        base = self._row_bases.get(first, 0)
        base += sum(self.record(number).row_numbers for number in range(first, chunk))
        self._row_bases[chunk] = base
        return base

    def _path(self, chunk: int, suffix: str) -> Path:
        return chunk_file(self.folder, self.plan.ids[chunk], suffix)


def clear_errors(folder: Path) -> None:
    """Forget all errors of a build, because their cause may have been corrected."""
    for path in folder.glob("*.error"):
        path.unlink(missing_ok=True)


def read_records(folder: Path, plan: Plan) -> list[tuple[Record, float]]:
    """The records of all chunks that are at least partly encoded, and when they were written (seconds since the epoch)."""
    records = []
    for path in (chunk_file(folder, chunk_id, ".json") for chunk_id in plan.ids):
        with suppress(InputError, OSError, TypeError):  # the folder is deleted when the store is complete
            records.append((Record(**read_record(path)), path.stat().st_mtime))
    return records
