"""Read a source of text as batches of tokens: train or load the tokenizer, then encode the documents."""

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from data_prep.data_spec import DataSpec
from data_prep.document_batch import COUNTS, BatchReader, DocumentBatch, Progress, documents_within
from data_prep.empty_split import empty_split
from data_prep.encoding import EncodedBatch, encode
from data_prep.errors import InputError
from data_prep.sources import Document, Source, SourceReport, documents
from data_prep.token_store import TOKENIZER
from data_prep.tokenizer import load_tokenizer, special_token, train_tokenizer, vocabulary_of, word_tokenizer
from data_prep.tokenizer_audit import TextLoss, TokenizerAudit

# The tokenizer is trained on this much text. More text does not change the merges of a small vocabulary.
TOKENIZER_CHARACTERS = 20_000_000
_counts = attrgetter(*COUNTS)


class TextReader(BatchReader):
    """Encodes the documents from a text source."""

    stage = "tokenizing"
    more_documents = "provide several files, or a .jsonl file with one document per line"

    def __init__(self, spec: DataSpec, source: Source, folder: Path, progress: Progress, fresh: bool) -> None:
        """folder: the store's folder; fresh: whether to write a tokenizer into it instead of loading the existing one."""
        self.spec, self.source, self.progress = spec, source, progress
        if not spec.has_tokenizer:
            raise InputError(
                "data.source: the training data has no tokenizer, so this text cannot be encoded; set data.tokenizer, or use a source"
                ' of kind "tokens"'
            )
        self.report = SourceReport()
        self.tokenizer = self._make_tokenizer(folder) if fresh else load_tokenizer(folder / TOKENIZER)
        self.vocabulary = vocabulary_of(self.tokenizer)
        self.end_of_text = special_token(self.tokenizer, spec.end_of_text)
        self.loss = TextLoss()
        # Only a tokenizer that comes from the user or another store can lose text.
        is_existing = spec.tokenizer_file(folder.parent) is not None
        self._audit = TokenizerAudit(self.tokenizer, self.end_of_text) if is_existing else None
        # Documents are read ahead, so the queue stores the counts at the time each document was read.
        self.counts = dict.fromkeys(COUNTS, 0)
        self._waiting_counts: deque[tuple[int, ...]] = deque()
        self._unread = self._documents()

    @property
    def kept(self) -> int:
        """Number of distinct documents read so far, including documents that were read ahead."""
        return self.report.kept

    def skip(self, documents: int) -> Iterator[bytes]:
        """Read the next documents, and yield their digests."""
        for _, document in zip(range(documents), self._unread, strict=False):
            self._advance(1)
            yield document.digest

    def batches(self, tokens: int) -> Iterator[DocumentBatch]:
        """Encode the next documents. Raises CannotResume if the tokenizer is unsuitable for the text."""
        for encoded in encode(self.tokenizer, self._unread):
            count = documents_within(encoded.lengths + 1, tokens)
            batch = self._batch(encoded.first(count))
            tokens -= int(batch.lengths.sum())
            self._advance(count)
            yield batch
            if tokens <= 0:
                return
        self.counts = dict(zip(COUNTS, _counts(self.report), strict=True))

    def journal_entries(self) -> dict[str, Any]:
        """How much text the tokenizer has lost so far."""
        return {"text_loss": asdict(self.loss)}

    def restore(self, journal: dict[str, Any]) -> None:
        """Restore what `journal_entries` returned."""
        self.loss = TextLoss(**journal.get("text_loss", {}))

    def finish(self) -> dict[str, Any]:
        """Check how much text the tokenizer lost in the whole corpus, and return it for the manifest."""
        self.loss.require_small(last=True)
        return {"text_loss": asdict(self.loss)} if self._audit else {}

    def corpus_entries(self) -> dict[str, Any]:
        """The first malformed rows."""
        return {"bad_named": self.report.bad_named[: self.counts["bad"]]}

    def notes(self) -> list[str]:
        """Lines that name malformed rows and state how much text was lost."""
        rows = [f"malformed: {row}" for row in self.corpus_entries()["bad_named"]]
        return rows + [str(self.loss)] * (self._audit is not None)

    def _batch(self, encoded: EncodedBatch) -> DocumentBatch:
        if self._audit:
            self.loss += self._audit.check(encoded)
            self.loss.require_small(last=False)
        batch, lengths = encoded.documents, encoded.lengths + 1
        return DocumentBatch(
            tokens=np.insert(encoded.tokens, np.cumsum(encoded.lengths), self.end_of_text),
            starts=np.cumsum(lengths) - lengths,
            lengths=lengths,
            is_test=np.array([self.spec.split_of(document) == "test" for document in batch], bool),
            digests=b"".join(document.digest for document in batch),
            names=[document.name for document in batch],
            text_bytes=np.array([len(document.text.encode()) for document in batch], np.int64),
        )

    def _advance(self, documents: int) -> None:
        """Advance `counts` past the next `documents` documents."""
        for _ in range(documents):
            counts = self._waiting_counts.popleft()
        self.counts = dict(zip(COUNTS, counts, strict=True))

    def _documents(self) -> Iterator[Document]:
        for document in documents(self.source, self.report):
            self._waiting_counts.append(_counts(self.report))
            yield document

    def _make_tokenizer(self, folder: Path) -> Tokenizer:
        if (path := self.spec.tokenizer_file(folder.parent)) is not None:
            tokenizer = load_tokenizer(path)
        elif (words := self.source.fixed_vocabulary()) is not None:
            tokenizer = word_tokenizer(words)
        else:
            self.progress(f"training a byte-level BPE of {self.spec.vocabulary} tokens", 0.0)
            tokenizer = train_tokenizer(self._tokenizer_text(), self.spec.vocabulary)
        # Tokenizer.save would raise a plain Exception instead of an OSError if the disk is full.
        (folder / TOKENIZER).write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
        return tokenizer

    def _tokenizer_text(self) -> Iterator[str]:
        """Yield the text of training documents until the total reaches TOKENIZER_CHARACTERS characters."""
        characters = 0
        report = SourceReport()
        for document in documents(self.source, report):
            if self.spec.split_of(document) == "train":
                yield document.text
                characters += len(document.text)
                if characters >= TOKENIZER_CHARACTERS:
                    return
        if characters:
            return
        if report.kept:
            raise InputError(empty_split(self.spec, "train", report.kept, report.kept, self.more_documents))
        counts = f"documents read: {report.read}; empty: {report.empty}; malformed: {report.bad}"
        raise InputError(f"data.source: no text for the training split ({counts}); provide more text")
