"""Build a token store: read batches of documents, and write each document to its split."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_prep.data_spec import DataSpec
from data_prep.document_batch import DIGEST_BYTES, BatchReader, Progress
from data_prep.empty_split import empty_split
from data_prep.errors import CannotResume, InputError
from data_prep.files import read_record, write_json
from data_prep.store_writer import StoreWriter, token_dtype, write_manifest
from data_prep.token_store import SPLITS

JOURNAL_SECONDS = 10.0  # time between journal writes; a killed build loses about this much work
JOURNAL = "journal.json"


class StoreBuilder:
    """Builds one store in a scratch folder. A journal records its progress, so an interrupted build can resume."""

    def __init__(self, spec: DataSpec, folder: Path, reader: Callable[[bool], BatchReader], progress: Progress) -> None:
        """reader: makes the reader of the source; its argument is whether the folder is empty, so that a tokenizer has to be copied."""
        self.spec, self.folder, self.reader, self.progress = spec, folder, reader, progress
        self.inputs = spec.inputs(folder.parent)
        self.written = 0  # documents
        self.digest_of_written = hashlib.sha256()  # hash of all document digests, used to detect a changed source

    def build(self) -> None:
        """Write the files of the store into the scratch folder. The manifest is written last."""
        journal = self._journal()
        reader = self.reader(not journal)
        dtype = token_dtype(reader.vocabulary)
        try:
            with StoreWriter(self.folder, dtype) as writer:
                if journal:
                    self._resume(journal, reader, writer)
                self._write(reader, writer)
                splits = writer.close()
            for split in SPLITS:
                if not splits[split]["documents"] and not (split == "train" and self.spec.test_fraction == 1):
                    raise CannotResume(empty_split(self.spec, split, self.written, reader.kept, reader.more_documents))
            checked = reader.finish()
        except CannotResume:
            (self.folder / JOURNAL).unlink(missing_ok=True)
            raise
        self.progress("computing checksums", 0.0)
        skipped = self.spec.source.skipped_input()
        record = {
            "built_from": self.spec.model_dump(),
            "inputs": self.inputs,
            "vocabulary": reader.vocabulary,
            "end_of_text": reader.end_of_text,
            "dtype": dtype.name,
            "splits": splits,
            "corpus": {**reader.counts, **reader.corpus_entries(), "skipped": skipped},
        }
        write_manifest(self.folder, record | checked, writer.sha256())
        dropped = "{duplicates} exact duplicates, {empty} empty, {bad} malformed".format(**reader.counts)
        self.progress(f"documents read: {reader.counts['read']}; dropped: {dropped}", 1.0)
        for line in [*reader.notes(), *([skipped] if skipped else [])]:
            self.progress(line, 1.0)

    def _journal(self) -> dict[str, Any] | None:
        path = self.folder / JOURNAL
        if path.is_file():
            return read_record(path, "taken", "seen", "splits", "inputs")
        for leftover in self.folder.iterdir():  # left by a build that was killed before it wrote a journal
            leftover.unlink()
        return None

    def _resume(self, journal: dict[str, Any], reader: BatchReader, writer: StoreWriter) -> None:
        """Restore the state recorded in the journal: truncate the files and skip the documents already written.

        Raises InputError if the journal is damaged or the source has changed since the interruption.
        """
        self.progress("resuming an interrupted build", 0.0)
        try:
            writer.rewind(journal["splits"])
            for digests in reader.skip(journal["taken"]):
                self._count_written(digests)
        except (KeyError, TypeError) as error:
            raise InputError(f"{self.folder / JOURNAL}: malformed; delete the folder to start again") from error
        if self.digest_of_written.hexdigest() != journal["seen"] or self.inputs != journal["inputs"]:
            raise InputError(
                f"{self.folder}: the corpus has changed since this build was interrupted; delete the folder to start"
                " again"
            )

    def _write(self, reader: BatchReader, writer: StoreWriter) -> None:
        """Write documents until `max_tokens` is reached or the source ends."""
        last_journal = time.monotonic()
        if writer.tokens >= self.spec.max_tokens:
            return
        for batch in reader.batches(self.spec.max_tokens - writer.tokens):
            writer.append(batch)
            self._count_written(batch.digests)
            self.progress(reader.stage, min(1.0, writer.tokens / self.spec.max_tokens))
            if time.monotonic() - last_journal > JOURNAL_SECONDS and writer.tokens < self.spec.max_tokens:
                self._write_journal(writer)
                last_journal = time.monotonic()

    def _write_journal(self, writer: StoreWriter) -> None:
        splits = writer.sync()
        seen = self.digest_of_written.hexdigest()
        record = {"taken": self.written, "seen": seen, "inputs": self.inputs, "splits": splits}
        write_json(self.folder / JOURNAL, record)

    def _count_written(self, digests: bytes) -> None:
        """Add documents to the count and to the digest of written documents."""
        self.digest_of_written.update(digests)
        self.written += len(digests) // DIGEST_BYTES
