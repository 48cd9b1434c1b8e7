"""From a data spec to a token store: read, split by document, train or load the tokenizer, encode, seal."""

import hashlib
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from tokenizers import Tokenizer

from data_prep.encoding import EncodedBatch, encode
from data_prep.errors import InputError
from data_prep.files import canonical_json, exclusive_lock, is_locked, read_record, sha256_file, write_json
from data_prep.sources import Document, SourceReport, SourceSpec, documents
from data_prep.sources.document import split_draw
from data_prep.sources.synthetic import Synthetic, words_of
from data_prep.sources.text_files import TextFiles, find_files
from data_prep.token_store import (
    MANIFEST,
    SPLITS,
    TOKENIZER,
    Split,
    SplitWriter,
    TokenStore,
    token_dtype,
    write_manifest,
)
from data_prep.tokenizer import (
    END_OF_TEXT,
    SMALLEST_VOCABULARY,
    load_tokenizer,
    special_token,
    train_tokenizer,
    vocabulary_of,
    word_tokenizer,
)

TOKENIZER_CHARACTERS = 20_000_000  # of training text: merges of a small vocabulary have settled long before
JOURNAL_SECONDS = 10.0  # of work at most are lost when a build is killed
JOURNAL = "journal.json"
COUNTS = ("read", "duplicates", "empty", "bad")
_counts = attrgetter(*COUNTS)
BUILD_FORMAT = 2  # raised when the same spec and texts would give another store


def named_source(value: Any) -> Any:
    """`source = "installed-python"` is short for `source = {kind = "installed-python"}`."""
    return {"kind": value} if isinstance(value, str) else value


class DataSpec(BaseModel):
    """What a token store is made from: the `[data]` table of a study."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    source: Annotated[SourceSpec, BeforeValidator(named_source)]
    vocabulary: int = Field(1024, ge=SMALLEST_VOCABULARY, le=2**20)  # of a byte-level BPE trained on the training split
    tokenizer: str | None = None  # path of a tokenizer.json to use instead
    tokenizer_of: "DataSpec | None" = None  # the tokenizer of that store instead: its models read this one's tokens
    end_of_text: str = END_OF_TEXT
    max_tokens: int = Field(gt=0, le=10**15)  # both splits together; the document that crosses it is the last
    test_fraction: float = Field(0.05, gt=0, le=1)  # 1: text to be tested on, and nothing to train on

    @property
    def store_name(self) -> str:
        """Folder name of the store: two specs share it only when they ask for the same one."""
        without: dict[str, Any] = {"source": {"max_bad_rows"}}  # it decides whether there is a store, not which
        without["tokenizer_of"] = True
        if self.tokenizer is not None or self.tokenizer_of is not None:
            without["vocabulary"] = True
        content = [BUILD_FORMAT, self.model_dump(exclude=without)]
        if self.tokenizer_of is not None:
            content.append(self.tokenizer_of.store_name)
        return f"{self.source.kind}-{hashlib.sha256(canonical_json(content)).hexdigest()[:8]}"

    def expected_vocabulary(self) -> int:
        """The vocabulary of the store to be; InputError where a tokenizer is named that cannot be read."""
        if self.tokenizer_of is not None:
            return self.tokenizer_of.expected_vocabulary()
        if self.tokenizer is not None:
            return vocabulary_of(load_tokenizer(Path(self.tokenizer).expanduser()))
        return len(words_of(self.source)) + 1 if isinstance(self.source, Synthetic) else self.vocabulary

    def tokenizer_file(self, data_dir: Path) -> Path | None:
        """The tokenizer.json that is used, None where one is trained."""
        if self.tokenizer_of is not None:
            return data_dir / self.tokenizer_of.store_name / TOKENIZER
        return None if self.tokenizer is None else Path(self.tokenizer).expanduser()

    def inputs(self, data_dir: Path) -> dict[str, str]:
        """What the files that go in are like now, as far as they are here: sizes of text, the tokenizer's checksum.

        A store knows its own, so that other text under the same names is noticed.
        """
        found = {}
        if (path := self.tokenizer_file(data_dir)) and path.is_file():
            found["tokenizer"] = sha256_file(path)
        if isinstance(self.source, TextFiles):
            with suppress(InputError):
                found |= {name: f"{path.stat().st_size} bytes" for name, path in find_files(self.source.paths)}
        return found


Progress = Callable[[str, float], None]  # (what is being done, share done 0..1)


def split_of(document: Document, test_fraction: float) -> Split:
    """The split of a document, by where it was taken from; in stores of one fraction no text is test in one and training
    text in another."""
    return "test" if split_draw(document.origin) < test_fraction * 2**64 else "train"


def prepare(spec: DataSpec, data_dir: Path, progress: Progress = lambda what, share: None) -> TokenStore:
    """Open the store of `spec`, building it first where it does not stand yet.

    A second process that asks for the same store waits for the first. The store appears under its name only when it
    is complete; a build that was killed goes on where its journal says.
    Raises InputError when the corpus cannot be used, the disk is full, or a standing store does not match its manifest.
    """
    if spec.tokenizer_of is not None:
        prepare(spec.tokenizer_of, data_dir, progress)
    store = _standing_or_built(spec, data_dir, progress)
    corpus, limit = store.manifest["corpus"], getattr(spec.source, "max_bad_rows", None)
    if limit is not None and corpus["bad"] > limit:
        raise InputError(
            f"{store.folder}: built with {corpus['bad']} malformed rows skipped, the first {corpus['bad_named'][0]};"
            f" accepted by data.source.max_bad_rows: {limit}"
        )
    known, now = store.manifest["inputs"], spec.inputs(data_dir)
    # Text that is not here at all is no objection: the store may have been brought from elsewhere.
    if now and (changed := [name for name in sorted(known.keys() | now) if known.get(name) != now.get(name)]):
        raise InputError(
            f"{store.folder}: built from other input: {changed[0]} was {known.get(changed[0], 'absent')}, is"
            f" {now.get(changed[0], 'absent')}; delete the folder and prepare again"
        )
    return store


def _standing_or_built(spec: DataSpec, data_dir: Path, progress: Progress) -> TokenStore:
    folder = data_dir / spec.store_name
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{data_dir}: cannot hold token stores: {error.strerror}") from error
    if (folder / MANIFEST).is_file():
        return TokenStore(folder, verify=True)
    lock = data_dir / f".{spec.store_name}.lock"
    if is_locked(lock):
        progress("another process is building this store; waiting for it", 0.0)
    with exclusive_lock(lock, wait=True):
        if not (folder / MANIFEST).is_file():
            _build(spec, folder, progress)
    return TokenStore(folder)


def _build(spec: DataSpec, folder: Path, progress: Progress) -> None:
    begun = time.monotonic()
    scratch = folder.with_name(f".{folder.name}.building")
    if folder.exists():
        raise InputError(f"{folder}: exists but is no token store (no {MANIFEST}); move it away or delete it")
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        _Builder(spec, scratch, progress).build()
        scratch.replace(folder)
        (folder / JOURNAL).unlink(missing_ok=True)  # not before: until here it is what a killed build goes on from
    except InputError:
        if not (scratch / JOURNAL).is_file():  # nothing to go on from: the input was at fault, not the disk
            shutil.rmtree(scratch, ignore_errors=True)
        raise
    except OSError as error:
        raise InputError(
            f"{scratch}: the store cannot be written: {error.strerror}; make room and call again"
        ) from error
    progress(f"store ready in {time.monotonic() - begun:.0f} s", 1.0)


class _Builder:
    """One build in its scratch folder. The journal says up to where files and source have been worked through."""

    def __init__(self, spec: DataSpec, folder: Path, progress: Progress) -> None:
        self.spec, self.folder, self.progress = spec, folder, progress
        self.report = SourceReport()
        self.seen = hashlib.sha256()  # over the digests of the documents taken, in order: a source that changed shows
        self.taken = 0
        self.data_dir = folder.parent
        self.inputs = spec.inputs(self.data_dir)
        # The report's counts as they stood when each document had been read: reading runs ahead of taking, and what
        # lies behind the last document taken does not count.
        self.counts = dict.fromkeys(COUNTS, 0)
        self._counts_of_waiting: deque[tuple[int, ...]] = deque()

    def build(self) -> None:
        """Fill the folder and seal it."""
        spec = self.spec
        journal = self._journal()
        tokenizer = self._tokenizer(fresh=not journal)
        end_of_text = special_token(tokenizer, spec.end_of_text)
        vocabulary = vocabulary_of(tokenizer)
        dtype = token_dtype(vocabulary)
        writers: dict[Split, SplitWriter] = {
            name: SplitWriter(self.folder, name, dtype, end_of_text) for name in SPLITS
        }
        rest = self._documents()
        if journal:
            try:
                for split, writer in writers.items():
                    writer.rewind(journal["splits"][split])
                self._skip(rest, journal)
            except (KeyError, TypeError) as error:
                raise InputError(f"{self.folder / JOURNAL}: malformed; delete the folder to start anew") from error
        self._write(tokenizer, rest, writers)
        counts = {str(split): writer.close() for split, writer in writers.items()}
        for name, count in counts.items():
            if not count["documents"] and not (name == "train" and spec.test_fraction == 1):
                raise InputError(f"data: the {name} split is empty; give more text or another test_fraction")
        self.progress("computing checksums", 0.0)
        record = {
            "built_from": spec.model_dump(),
            "inputs": self.inputs,
            "vocabulary": vocabulary,
            "end_of_text": end_of_text,
            "dtype": dtype.name,
            "splits": counts,
            "corpus": {**self.counts, "bad_named": self.report.bad_named[: self.counts["bad"]]},
        }
        write_manifest(self.folder, record)
        dropped = "{duplicates} exact duplicates, {empty} empty and {bad} malformed dropped".format(**self.counts)
        self.progress(f"{self.counts['read']} documents read; {dropped}", 1.0)
        for row in self.report.bad_named[: self.counts["bad"]]:
            self.progress(f"malformed: {row}", 1.0)

    def _journal(self) -> dict[str, Any] | None:
        path = self.folder / JOURNAL
        if path.is_file():
            return read_record(path, "taken", "seen", "splits", "inputs")
        for stray in self.folder.iterdir():  # a build killed before its first journal
            stray.unlink()
        return None

    def _tokenizer(self, fresh: bool) -> Tokenizer:
        spec, path = self.spec, self.folder / TOKENIZER
        if not fresh:
            return load_tokenizer(path)
        if (brought := spec.tokenizer_file(self.data_dir)) is not None:
            tokenizer = load_tokenizer(brought)
        elif isinstance(spec.source, Synthetic):
            tokenizer = word_tokenizer(words_of(spec.source))
        else:
            self.progress(f"training a byte-level BPE of {spec.vocabulary} tokens", 0.0)
            tokenizer = train_tokenizer(self._some_training_text(), spec.vocabulary)
        tokenizer.save(os.fspath(path))
        return tokenizer

    def _some_training_text(self) -> Iterator[str]:
        characters = 0
        report = SourceReport()
        for document in documents(self.spec.source, report):
            if split_of(document, self.spec.test_fraction) == "train":
                yield document.text
                characters += len(document.text)
                if characters >= TOKENIZER_CHARACTERS:
                    return
        if not characters:
            found = f"{report.read} documents read, {report.empty} of them empty and {report.bad} malformed"
            raise InputError(f"data.source: no text for the training split ({found}); give more text")

    def _skip(self, rest: Iterator[Document], journal: dict[str, Any]) -> None:
        """Pass over the documents that stand in the files; raises InputError when the source has changed meanwhile."""
        self.progress("going on with a build that was interrupted", 0.0)
        while self.taken < journal["taken"] and (document := next(rest, None)):
            self._take(document)
        if self.seen.hexdigest() != journal["seen"] or self.inputs != journal["inputs"]:
            raise InputError(
                f"{self.folder}: the corpus has changed since this build was interrupted; delete the folder to start anew"
            )

    def _documents(self) -> Iterator[Document]:
        for document in documents(self.spec.source, self.report):
            self._counts_of_waiting.append(_counts(self.report))
            yield document

    def _take(self, document: Document) -> None:
        self.counts = dict(zip(COUNTS, self._counts_of_waiting.popleft(), strict=True))
        self.seen.update(document.digest)
        self.taken += 1

    def _write(self, tokenizer: Tokenizer, rest: Iterator[Document], writers: dict[Split, SplitWriter]) -> None:
        done = sum(writer.tokens for writer in writers.values())
        marked = time.monotonic()
        if done >= self.spec.max_tokens:
            return
        for batch in encode(tokenizer, rest):
            last = int(np.searchsorted(done + np.cumsum(batch.lengths + 1), self.spec.max_tokens)) + 1
            self._append(batch, min(last, len(batch.documents)), writers)
            done = sum(writer.tokens for writer in writers.values())
            self.progress("tokenizing", min(1.0, done / self.spec.max_tokens))
            if done >= self.spec.max_tokens:
                return
            if time.monotonic() - marked > JOURNAL_SECONDS:
                splits = {split: writer.sync() for split, writer in writers.items()}
                record = {"taken": self.taken, "seen": self.seen.hexdigest(), "inputs": self.inputs, "splits": splits}
                write_json(self.folder / JOURNAL, record)
                marked = time.monotonic()
        # The source is at its end: what was dropped behind the last document counts too.
        self.counts = dict(zip(COUNTS, _counts(self.report), strict=True))

    def _append(self, batch: EncodedBatch, count: int, writers: dict[Split, SplitWriter]) -> None:
        """Write the first `count` documents of a batch, each into its split."""
        taken = batch.documents[:count]
        for document in taken:
            self._take(document)
        splits = [split_of(document, self.spec.test_fraction) for document in taken]
        lengths = batch.lengths[:count]
        for split, writer in writers.items():
            mine = np.array([where == split for where in splits])
            names = [document.name for document, is_mine in zip(taken, mine, strict=True) if is_mine]
            text_bytes = sum(
                len(document.text.encode()) for document, is_mine in zip(taken, mine, strict=True) if is_mine
            )
            tokens = batch.tokens[: lengths.sum()][np.repeat(mine, lengths)]
            writer.append(names, tokens, lengths[mine], text_bytes)
