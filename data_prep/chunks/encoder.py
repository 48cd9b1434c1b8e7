"""Encode a chunk: read its documents, drop empty ones and copies, and write their tokens in segments."""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from data_prep.chunks.ledger import Ledger, Record
from data_prep.chunks.segment import Segment, load_digests
from data_prep.document_batch import DIGEST_BYTES
from data_prep.encoding import EncodedBatch, encode
from data_prep.errors import InputError
from data_prep.permutation import Ints
from data_prep.sources import EMPTY, BadRow, Chunk, Document, Source, sorted_rows
from data_prep.store_writer import token_dtype
from data_prep.token_store import TOKENIZER
from data_prep.tokenizer import load_tokenizer
from data_prep.tokenizer_audit import TokenizerAudit

SEGMENT_SECONDS = 5.0  # a segment is written at least this often; a process that is killed loses about this much work
FEWEST_DOCUMENTS = 2  # to encode, even if the first one has enough tokens: is the corpus a single document?

Report = Callable[[int, int], None]  # called with the tokens and bytes of text in the chunk that are encoded so far


class ChunkEncoder:
    """Encodes the chunks of one build, one after another."""

    def __init__(self, ledger: Ledger, all_cores: bool) -> None:
        """all_cores: whether to encode with a thread per core; see `encode`."""
        self.ledger, self.spec, self.plan = ledger, ledger.spec, ledger.plan
        assert isinstance(self.spec.source, Source)
        self.source: Source = self.spec.source
        self._all_cores = all_cores
        self._tokenizer = load_tokenizer(ledger.folder / TOKENIZER)
        self._dtype = token_dtype(self.plan.vocabulary)
        self._audit = TokenizerAudit(self._tokenizer, self.plan.end_of_text) if self.plan.audited else None

    def encode(self, chunk: int, stop: Callable[[], bool], report: Report) -> None:
        """Encode a claimed chunk until it ends, has enough tokens or too many bad rows, or `stop` returns true.

        An error in the chunk is recorded, because only the chunks before it may be needed. An InputError is raised if the disk is full or
        if the chunk has changed since it was partly encoded.
        """
        try:
            self._encode(chunk, self.plan.chunks[chunk], stop, report)
        except _StopBuild as error:
            raise InputError(str(error)) from error
        except InputError as error:
            self.ledger.write_error(chunk, self._with_row_number(self.plan.chunks[chunk], error))

    def _encode(self, number: int, chunk: Chunk, stop: Callable[[], bool], report: Report) -> None:
        start = time.monotonic()
        record = self.ledger.record(number)
        rows = _ChunkRows(self.source, chunk, record.rows)
        documents = rows.documents()
        self._skip(number, record, rows, documents)
        batches: list[tuple[EncodedBatch, Ints]] = []
        tokens, text_bytes, count = record.tokens, record.text_bytes, record.documents
        characters, lost = record.characters, record.lost
        for batch in encode(self._tokenizer, documents, self._all_cores):
            losses = self._audit.check(batch) if self._audit else np.empty((0, 3), np.int64)
            batches.append((batch, losses))
            characters, lost = characters + int(losses[:, 0].sum()), lost + int(losses[:, 1].sum())
            tokens, count = tokens + int(batch.lengths.sum()) + len(batch.lengths), count + len(batch.lengths)
            text_bytes += sum(len(document.text) for document in batch.documents)
            report(tokens, text_bytes)
            enough = count >= FEWEST_DOCUMENTS and tokens >= self._tokens_needed(number)
            loses_text = self.ledger.next == number and self.ledger.lost_text(characters, lost)
            leave = stop() or enough or loses_text
            if leave or time.monotonic() - start >= SEGMENT_SECONDS:
                record = self._save(number, record, rows, batches, time.monotonic() - start, ended=False)
                start, batches = time.monotonic(), []
            if leave:
                return
        self._save(number, record, rows, batches, time.monotonic() - start, ended=not rows.exceeds_limit)

    def _tokens_needed(self, chunk: int) -> int:
        """Tokens that suffice in this chunk. If other processes are still encoding chunks before it, their tokens are not counted."""
        return self.ledger.target - (self.ledger.tokens if self.ledger.next == chunk else 0)

    def _skip(self, chunk: int, record: Record, rows: "_ChunkRows", documents: Iterator[Document]) -> None:
        """Skip the documents that are already encoded. Raises InputError if they have changed."""
        digests = hashlib.sha256()
        for number in range(record.segments):
            digests.update(load_digests(self.ledger.segment(chunk, number)).tobytes())
        again = hashlib.sha256()
        for _ in range(record.documents):
            if document := next(documents, None):
                again.update(document.digest)
        if digests.digest() != again.digest():
            files = self.plan.chunks[chunk].files
            raise _StopBuild(
                f"{self.ledger.folder}: {files[0][1] if len(files) == 1 else 'the corpus'} has changed since this build was"
                " interrupted; delete the folder to start again"
            )
        rows.take(record.documents, everything=False)

    def _save(
        self,
        chunk: int,
        record: Record,
        rows: "_ChunkRows",
        batches: list[tuple[EncodedBatch, Ints]],
        seconds: float,
        ended: bool,
    ) -> Record:
        """Write a segment, if there is anything to write, and then the record."""
        documents = [document for batch, _ in batches for document in batch.documents]
        at_end = ended or rows.exceeds_limit
        row_of, empty_rows, bad = rows.take(len(documents), everything=at_end)
        text_bytes = np.array([len(document.text.encode()) for document in documents], np.int64)
        losses = np.concatenate([losses for _, losses in batches]) if batches else np.empty((0, 3), np.int64)
        lengths = np.concatenate([np.empty(0, np.int64), *(batch.lengths for batch, _ in batches)])
        ids = np.concatenate([np.empty(0, np.uint32), *(batch.tokens for batch, _ in batches)])
        if documents or len(empty_rows) or bad:
            segment = Segment(
                tokens=np.insert(ids, np.cumsum(lengths), self.plan.end_of_text).astype(self._dtype),
                lengths=lengths + 1,
                digests=np.frombuffer(b"".join(document.digest for document in documents), np.uint8).reshape(
                    -1, DIGEST_BYTES
                ),
                is_test=np.array([self.spec.split_of(document) == "test" for document in documents], bool),
                rows=row_of,
                text_bytes=text_bytes,
                losses=losses,
                empty_rows=empty_rows,
                bad_rows=np.array([row for row, _ in bad], np.int64),
                names=[document.name for document in documents],
                bad=[bad_row for _, bad_row in bad],
            )
            with _write_errors():
                segment.save(self.ledger.segment(chunk, record.segments))
            record = replace(record, segments=record.segments + 1)
        all_rows = rows.count if at_end else int(row_of[-1])
        record = replace(
            record,
            rows=all_rows,
            row_numbers=self.source.rows_in(self.plan.chunks[chunk], all_rows) if ended else 0,
            documents=record.documents + len(documents),
            tokens=record.tokens + int(lengths.sum()) + len(lengths),
            text_bytes=record.text_bytes + int(text_bytes.sum()),
            bad=record.bad + len(bad),
            characters=record.characters + int(losses[:, 0].sum()),
            lost=record.lost + int(losses[:, 1].sum()),
            seconds=record.seconds + seconds,
            ended=ended,
        )
        with _write_errors():
            self.ledger.write(chunk, record)
        return record

    def _with_row_number(self, chunk: Chunk, error: InputError) -> InputError:
        """The same error with the row's number in its file. If this number is unknown, the chunk is read again to raise the error again."""
        numbered = self.source.numbered(chunk)
        if numbered == chunk:
            return error
        try:
            for batch in encode(self._tokenizer, _ChunkRows(self.source, numbered, 0).documents(), self._all_cores):
                if self._audit:
                    self._audit.check(batch)
        except InputError as again:
            return again
        return error


class _StopBuild(InputError):
    """Raised for errors that stop the build, whichever chunk they occur in."""


@contextmanager
def _write_errors() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise _StopBuild(str(error)) from error


class _ChunkRows:
    """The rows of a chunk, and the positions of those that are not encoded."""

    def __init__(self, source: Source, chunk: Chunk, done: int) -> None:
        """done: number of rows that earlier segments cover; the dropped rows among them are not listed again."""
        self._source, self._chunk, self._done = source, chunk, done
        self.count = 0  # rows read
        self.exceeds_limit = False  # whether reading stopped because the chunk has too many bad rows
        self._rows: deque[int] = deque()  # row of each document that was yielded but not taken
        self._empty: deque[int] = deque()
        self._bad: deque[tuple[int, BadRow]] = deque()

    def documents(self) -> Iterator[Document]:
        """Yield the documents that are neither empty nor copies."""
        bad, limit = 0, self._source.bad_row_limit
        for row in sorted_rows(self._source.read_chunk(self._chunk)):
            self.count += 1
            if isinstance(row, Document):
                self._rows.append(self.count)
                yield row
            elif isinstance(row, BadRow):
                bad += 1
                if self.count > self._done:
                    self._bad.append((self.count, row))
                if limit is not None and bad > limit:
                    self.exceeds_limit = True
                    return
            elif row == EMPTY and self.count > self._done:
                self._empty.append(self.count)

    def take(self, documents: int, everything: bool) -> tuple[Ints, Ints, list[tuple[int, BadRow]]]:
        """Return the rows of the next documents, and the empty and bad rows before the last of them, or all that were read."""
        rows = [self._rows.popleft() for _ in range(documents)]
        last = self.count if everything else rows[-1] if rows else 0
        empty = [self._empty.popleft() for _ in range(sum(row <= last for row in self._empty))]
        bad = [self._bad.popleft() for _ in range(sum(row <= last for row, _ in self._bad))]
        return np.array(rows, np.int64), np.array(empty, np.int64), bad
