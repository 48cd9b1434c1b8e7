"""Build a token store: read the documents, assign each to a split, tokenize them and write the files."""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from data_prep.data_spec import DataSpec
from data_prep.encoding import EncodedBatch, encode
from data_prep.errors import InputError
from data_prep.files import read_record, write_json
from data_prep.sources import Document, SourceReport, documents
from data_prep.store_writer import SplitWriter, token_dtype, write_manifest
from data_prep.token_store import SPLITS, TOKENIZER, Split
from data_prep.tokenizer import load_tokenizer, special_token, train_tokenizer, vocabulary_of, word_tokenizer
from data_prep.tokenizer_audit import TextLoss, TokenizerAudit

# The tokenizer is trained on this much text. More text does not change the merges of a small vocabulary.
TOKENIZER_CHARACTERS = 20_000_000
JOURNAL_SECONDS = 10.0  # time between journal writes; a killed build loses about this much work
JOURNAL = "journal.json"
COUNTS = ("read", "duplicates", "empty", "bad")
_counts = attrgetter(*COUNTS)

Progress = Callable[[str, float], None]  # called with the stage and the fraction of it that is done (0 to 1)


class StoreBuilder:
    """Builds one store in a scratch folder. A journal records its progress, so an interrupted build can resume."""

    def __init__(self, spec: DataSpec, folder: Path, progress: Progress) -> None:
        self.spec, self.folder, self.progress = spec, folder, progress
        self.data_dir = folder.parent
        self.inputs = spec.inputs(self.data_dir)
        self.report = SourceReport()
        self.written = 0  # documents
        self.audit: TokenizerAudit | None = None  # only if the tokenizer comes from the user or another store
        self.loss = TextLoss()
        self.digest_of_written = hashlib.sha256()  # hash of all document digests, used to detect a changed source
        # Documents are read ahead, but the manifest's counts stop at the last document written. The queue therefore
        # keeps the counts as they were when each document was read.
        self.counts = dict.fromkeys(COUNTS, 0)
        self._waiting_counts: deque[tuple[int, ...]] = deque()

    def build(self) -> None:
        """Write the files of the store into the scratch folder. The manifest is written last."""
        journal = self._journal()
        tokenizer = self._tokenizer(fresh=not journal)
        end_of_text = special_token(tokenizer, self.spec.end_of_text)
        if self.spec.tokenizer_file(self.data_dir) is not None:
            self.audit = TokenizerAudit(tokenizer, end_of_text)
        vocabulary = vocabulary_of(tokenizer)
        dtype = token_dtype(vocabulary)
        writers: dict[Split, SplitWriter] = {
            split: SplitWriter(self.folder, split, dtype, end_of_text) for split in SPLITS
        }
        unread = self._documents()
        if journal:
            self._resume(journal, unread, writers)
        self._write(tokenizer, unread, writers)
        splits = self._close(writers)
        with self._no_resume():
            self.loss.require_small(last=True)
        self.progress("computing checksums", 0.0)
        bad_named = self.report.bad_named[: self.counts["bad"]]
        skipped = self.spec.source.skipped_input()
        record = {
            "built_from": self.spec.model_dump(),
            "inputs": self.inputs,
            "vocabulary": vocabulary,
            "end_of_text": end_of_text,
            "dtype": dtype.name,
            "splits": splits,
            "corpus": {**self.counts, "bad_named": bad_named, "skipped": skipped},
        }
        if self.audit:
            record["text_loss"] = asdict(self.loss)
        write_manifest(self.folder, record)
        dropped = "{duplicates} exact duplicates, {empty} empty, {bad} malformed".format(**self.counts)
        self.progress(f"documents read: {self.counts['read']}; dropped: {dropped}", 1.0)
        for row in bad_named:
            self.progress(f"malformed: {row}", 1.0)
        if skipped:
            self.progress(skipped, 1.0)
        if self.audit:
            self.progress(str(self.loss), 1.0)

    def _journal(self) -> dict[str, Any] | None:
        path = self.folder / JOURNAL
        if path.is_file():
            return read_record(path, "taken", "seen", "splits", "inputs")
        for leftover in self.folder.iterdir():  # left by a build that was killed before it wrote a journal
            leftover.unlink()
        return None

    def _tokenizer(self, fresh: bool) -> Tokenizer:
        path = self.folder / TOKENIZER
        if not fresh:
            return load_tokenizer(path)
        if (given := self.spec.tokenizer_file(self.data_dir)) is not None:
            tokenizer = load_tokenizer(given)
        elif (words := self.spec.source.fixed_vocabulary()) is not None:
            tokenizer = word_tokenizer(words)
        else:
            self.progress(f"training a byte-level BPE of {self.spec.vocabulary} tokens", 0.0)
            tokenizer = train_tokenizer(self._tokenizer_text(), self.spec.vocabulary)
        # Tokenizer.save would raise a plain Exception instead of an OSError if the disk is full.
        path.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
        return tokenizer

    def _tokenizer_text(self) -> Iterator[str]:
        """Yield the text of training documents until the total reaches TOKENIZER_CHARACTERS characters."""
        characters = 0
        report = SourceReport()
        for document in documents(self.spec.source, report):
            if self.spec.split_of(document) == "train":
                yield document.text
                characters += len(document.text)
                if characters >= TOKENIZER_CHARACTERS:
                    return
        if characters:
            return
        if report.kept:
            raise InputError(self._empty_split("train", report.kept, report.kept))
        counts = f"{report.read} documents read, of which {report.empty} are empty and {report.bad} malformed"
        raise InputError(f"data.source: no text for the training split ({counts}); provide more text")

    def _documents(self) -> Iterator[Document]:
        for document in documents(self.spec.source, self.report):
            self._waiting_counts.append(_counts(self.report))
            yield document

    def _resume(self, journal: dict[str, Any], unread: Iterator[Document], writers: dict[Split, SplitWriter]) -> None:
        """Restore the state recorded in the journal: truncate the files and skip the documents already written.

        Raises InputError if the journal is damaged or the source has changed since the interruption.
        """
        self.progress("resuming an interrupted build", 0.0)
        try:
            for split, writer in writers.items():
                writer.rewind(journal["splits"][split])
            self.loss = TextLoss(**journal.get("text_loss", {}))
            while self.written < journal["taken"] and (document := next(unread, None)):
                self._count_written(document)
        except (KeyError, TypeError) as error:
            raise InputError(f"{self.folder / JOURNAL}: malformed; delete the folder to start again") from error
        if self.digest_of_written.hexdigest() != journal["seen"] or self.inputs != journal["inputs"]:
            raise InputError(
                f"{self.folder}: the corpus has changed since this build was interrupted; delete the folder to start"
                " again"
            )

    def _write(self, tokenizer: Tokenizer, unread: Iterator[Document], writers: dict[Split, SplitWriter]) -> None:
        """Encode and write documents until `max_tokens` is reached or the source ends."""
        tokens = sum(writer.tokens for writer in writers.values())
        last_journal = time.monotonic()
        if tokens >= self.spec.max_tokens:
            return
        for batch in encode(tokenizer, unread):
            needed = int(np.searchsorted(tokens + np.cumsum(batch.lengths + 1), self.spec.max_tokens)) + 1
            self._append(batch, min(needed, len(batch.documents)), writers)
            tokens = sum(writer.tokens for writer in writers.values())
            self.progress("tokenizing", min(1.0, tokens / self.spec.max_tokens))
            if tokens >= self.spec.max_tokens:
                return
            if time.monotonic() - last_journal > JOURNAL_SECONDS:
                self._write_journal(writers)
                last_journal = time.monotonic()
        # The source has ended, so the counts now include the documents dropped after the last one written.
        self.counts = dict(zip(COUNTS, _counts(self.report), strict=True))

    def _write_journal(self, writers: dict[Split, SplitWriter]) -> None:
        splits = {split: writer.sync() for split, writer in writers.items()}
        seen = self.digest_of_written.hexdigest()
        record = {"taken": self.written, "seen": seen, "inputs": self.inputs, "splits": splits}
        record["text_loss"] = asdict(self.loss)
        write_json(self.folder / JOURNAL, record)

    def _append(self, batch: EncodedBatch, count: int, writers: dict[Split, SplitWriter]) -> None:
        """Write the first `count` documents in a batch, each to its own split."""
        batch_documents, lengths = batch.documents[:count], batch.lengths[:count]
        tokens = batch.tokens[: lengths.sum()]
        if self.audit:
            with self._no_resume():
                self.loss += self.audit.check(EncodedBatch(batch_documents, tokens, lengths))
                self.loss.require_small(last=False)
        for document in batch_documents:
            self._count_written(document)
        split_of = np.array([self.spec.split_of(document) for document in batch_documents])
        for split, writer in writers.items():
            chosen = split_of == split
            texts = [batch_documents[number] for number in np.flatnonzero(chosen)]
            writer.append(texts, tokens[np.repeat(chosen, lengths)], lengths[chosen])

    @contextmanager
    def _no_resume(self) -> Iterator[None]:
        """If the input is invalid, delete the journal, because a build with different input cannot resume from it."""
        try:
            yield
        except InputError:
            (self.folder / JOURNAL).unlink(missing_ok=True)
            raise

    def _count_written(self, document: Document) -> None:
        """Add a document to the counts and to the digest of written documents."""
        self.counts = dict(zip(COUNTS, self._waiting_counts.popleft(), strict=True))
        self.digest_of_written.update(document.digest)
        self.written += 1

    def _close(self, writers: dict[Split, SplitWriter]) -> dict[str, dict[str, int]]:
        """Close the files and return the counts for each split. Raises InputError if a split is empty."""
        counts = {str(split): writer.close() for split, writer in writers.items()}
        for split in SPLITS:
            if not counts[split]["documents"] and not (split == "train" and self.spec.test_fraction == 1):
                raise InputError(self._empty_split(split, self.written, self.report.kept))
        return counts

    def _empty_split(self, empty: Split, written: int, kept: int) -> str:
        """Error message for an empty split.

        written: number of documents written, all to the other split; kept: number of distinct documents read so far.
        """
        name, other = ("training", "test") if empty == "train" else ("test", "training")
        text = f"data: no {name} text:"
        if self.spec.test_fraction == 1:
            return (
                f"{text} test_fraction = 1 leaves no text to train a tokenizer on; set data.tokenizer or a smaller"
                " test_fraction"
            )
        if kept == 1:
            return (
                f"{text} the corpus is a single document, and a document is never divided, so all of it is {other} text;"
                " provide several files, or a .jsonl file with one document per line"
            )
        if written < kept:
            return (
                f"{text} data.max_tokens = {self.spec.max_tokens} is reached after {written} documents, which are all"
                f" {other} text; increase data.max_tokens or provide shorter documents"
            )
        return (
            f"{text} all {written} documents are {other} text with test_fraction = {self.spec.test_fraction}; provide more"
            " documents or change test_fraction"
        )
