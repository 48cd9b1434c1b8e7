"""Build a token store: read documents, assign splits, train or load the tokenizer, encode, write, seal."""

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

TOKENIZER_CHARACTERS = 20_000_000  # of training text; more does not change the merges of a small vocabulary
JOURNAL_SECONDS = 10.0  # a killed build loses at most this much work
JOURNAL = "journal.json"
COUNTS = ("read", "duplicates", "empty", "bad")
_counts = attrgetter(*COUNTS)

Progress = Callable[[str, float], None]  # (stage, share of it done, 0..1)


class StoreBuilder:
    """One build in its scratch folder. The journal records how far the source has been read and the files written."""

    def __init__(self, spec: DataSpec, folder: Path, progress: Progress) -> None:
        self.spec, self.folder, self.progress = spec, folder, progress
        self.data_dir = folder.parent
        self.inputs = spec.inputs(self.data_dir)
        self.report = SourceReport()
        self.taken = 0  # documents written
        self.audit: TokenizerAudit | None = None  # of a tokenizer that was not made for this store
        self.loss = TextLoss()
        self.digest_of_taken = hashlib.sha256()  # of their digests in order, to detect a source that changed
        # Documents are read ahead of being written. The manifest counts up to the last document written, so the counts
        # at the time each document was read wait here.
        self.counts = dict.fromkeys(COUNTS, 0)
        self._waiting_counts: deque[tuple[int, ...]] = deque()

    def build(self) -> None:
        """Fill the folder and seal it with a manifest."""
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
        dropped = "{duplicates} exact duplicates, {empty} empty and {bad} malformed dropped".format(**self.counts)
        self.progress(f"{self.counts['read']} documents read; {dropped}", 1.0)
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
        for leftover in self.folder.iterdir():  # from a build killed before its first journal
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
        # Not Tokenizer.save: if the disk is full, it raises a plain Exception.
        path.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
        return tokenizer

    def _tokenizer_text(self) -> Iterator[str]:
        """The first TOKENIZER_CHARACTERS characters of training text."""
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
        counts = f"{report.read} documents read, {report.empty} of them empty and {report.bad} malformed"
        raise InputError(f"data.source: no text for the training split ({counts}); give more text")

    def _documents(self) -> Iterator[Document]:
        for document in documents(self.spec.source, self.report):
            self._waiting_counts.append(_counts(self.report))
            yield document

    def _resume(self, journal: dict[str, Any], unread: Iterator[Document], writers: dict[Split, SplitWriter]) -> None:
        """Return to the state of the journal: cut the files and skip the documents they hold.

        Raises InputError if the journal is damaged or the source has changed since.
        """
        self.progress("resuming an interrupted build", 0.0)
        try:
            for split, writer in writers.items():
                writer.rewind(journal["splits"][split])
            self.loss = TextLoss(**journal.get("text_loss", {}))
            while self.taken < journal["taken"] and (document := next(unread, None)):
                self._take(document)
        except (KeyError, TypeError) as error:
            raise InputError(f"{self.folder / JOURNAL}: malformed; delete the folder to start again") from error
        if self.digest_of_taken.hexdigest() != journal["seen"] or self.inputs != journal["inputs"]:
            raise InputError(
                f"{self.folder}: the corpus has changed since this build was interrupted; delete the folder to start"
                " again"
            )

    def _write(self, tokenizer: Tokenizer, unread: Iterator[Document], writers: dict[Split, SplitWriter]) -> None:
        """Encode and write documents until `max_tokens` or the end of the source."""
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
        # The source has ended: also count what was dropped after the last document written.
        self.counts = dict(zip(COUNTS, _counts(self.report), strict=True))

    def _write_journal(self, writers: dict[Split, SplitWriter]) -> None:
        splits = {split: writer.sync() for split, writer in writers.items()}
        seen = self.digest_of_taken.hexdigest()
        record = {"taken": self.taken, "seen": seen, "inputs": self.inputs, "splits": splits}
        record["text_loss"] = asdict(self.loss)
        write_json(self.folder / JOURNAL, record)

    def _append(self, batch: EncodedBatch, count: int, writers: dict[Split, SplitWriter]) -> None:
        """Write the first `count` documents of a batch, each to its split."""
        batch_documents, lengths = batch.documents[:count], batch.lengths[:count]
        tokens = batch.tokens[: lengths.sum()]
        if self.audit:
            with self._no_resume():
                self.loss += self.audit.check(EncodedBatch(batch_documents, tokens, lengths))
                self.loss.require_small(last=False)
        for document in batch_documents:
            self._take(document)
        split_of = np.array([self.spec.split_of(document) for document in batch_documents])
        for split, writer in writers.items():
            chosen = split_of == split
            texts = [batch_documents[number] for number in np.flatnonzero(chosen)]
            writer.append(texts, tokens[np.repeat(chosen, lengths)], lengths[chosen])

    @contextmanager
    def _no_resume(self) -> Iterator[None]:
        """Remove the journal if the input is at fault: the user will give another one."""
        try:
            yield
        except InputError:
            (self.folder / JOURNAL).unlink(missing_ok=True)
            raise

    def _take(self, document: Document) -> None:
        """Count a document as written."""
        self.counts = dict(zip(COUNTS, self._waiting_counts.popleft(), strict=True))
        self.digest_of_taken.update(document.digest)
        self.taken += 1

    def _close(self, writers: dict[Split, SplitWriter]) -> dict[str, dict[str, int]]:
        """Close the files; returns the counts of each split. Raises InputError if a split is empty."""
        counts = {str(split): writer.close() for split, writer in writers.items()}
        for split in SPLITS:
            if not counts[split]["documents"] and not (split == "train" and self.spec.test_fraction == 1):
                raise InputError(self._empty_split(split, self.taken, self.report.kept))
        return counts

    def _empty_split(self, empty: Split, taken: int, kept: int) -> str:
        """The error for an empty split, of which all `taken` documents are in the other; `kept` have been read so far."""
        name, other = ("training", "test") if empty == "train" else ("test", "training")
        text = f"data: no {name} text:"
        if self.spec.test_fraction == 1:
            return (
                f"{text} test_fraction = 1 leaves none to train a tokenizer on; set data.tokenizer or another fraction"
            )
        if kept == 1:
            return (
                f"{text} the corpus is one document, and documents are never cut, so all of it is {other} text; give several"
                " files, or a .jsonl file with one document per line"
            )
        if taken < kept:
            return (
                f"{text} data.max_tokens = {self.spec.max_tokens} is reached after {taken} documents, all of them {other}"
                " text; set more tokens or give shorter documents"
            )
        return (
            f"{text} all {taken} documents are {other} text at test_fraction = {self.spec.test_fraction}; give more documents"
            " or another test_fraction"
        )
