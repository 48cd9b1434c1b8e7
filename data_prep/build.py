"""From a data spec to a token store: split by document, train the tokenizer, encode, seal."""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer

from data_prep.corpora import Document, SourceReport, installed_python
from data_prep.errors import InputError
from data_prep.files import canonical_json, exclusive_lock
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
from data_prep.tokenizer import END_OF_TEXT, SMALLEST_VOCABULARY, train_tokenizer

BATCH_CHARACTERS = 2_000_000  # per call of the encoder: keeps all cores busy at some 50 MB of memory
TOKENIZER_CHARACTERS = 20_000_000  # of training text: merges of a small vocabulary have settled long before
BUILD_FORMAT = 1  # raised when the same spec and texts would give another store


class DataSpec(BaseModel):
    """What a token store is made from: the `[data]` table of a study."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    source: Literal["installed-python"] = "installed-python"
    vocabulary: int = Field(1024, ge=SMALLEST_VOCABULARY, le=2**31)
    max_tokens: int = Field(gt=0)  # both splits together; the document that crosses it is the last
    test_fraction: float = Field(0.05, gt=0, lt=1)

    @property
    def store_name(self) -> str:
        """Folder name of the store: two specs share it only when they are equal."""
        digest = hashlib.sha256(canonical_json([BUILD_FORMAT, self.model_dump()])).hexdigest()[:8]
        return f"{self.source}-{self.vocabulary}-{digest}"


Progress = Callable[[str, float], None]  # (what is being done, share done 0..1)


def split_of(document: Document, test_fraction: float) -> Split:
    """The split of a document, from its content alone: adding or renaming documents moves no other one."""
    draw = int.from_bytes(hashlib.sha256(b"split" + document.digest).digest()[:8], "little")
    return "test" if draw < test_fraction * 2**64 else "train"


def prepare(spec: DataSpec, data_dir: Path, progress: Progress = lambda what, share: None) -> TokenStore:
    """Open the store of `spec`, building it first where it does not stand yet.

    A second process that asks for the same store waits for the first. The store appears under its name only when it
    is complete; what an earlier kill left behind is swept away.
    Raises InputError when the corpus is empty or a standing store does not match its manifest.
    """
    folder = data_dir / spec.store_name
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{data_dir}: cannot hold token stores: {error.strerror}") from error
    if not (folder / MANIFEST).is_file():
        with exclusive_lock(data_dir / f".{spec.store_name}.lock", wait=True):
            if not (folder / MANIFEST).is_file():
                _build(spec, folder, progress)
    return TokenStore(folder, verify=True)


def _build(spec: DataSpec, folder: Path, progress: Progress) -> None:
    begun = time.monotonic()
    scratch = folder.with_name(f".{folder.name}.building")
    shutil.rmtree(scratch, ignore_errors=True)
    if folder.exists():
        raise InputError(f"{folder}: exists but is no token store (no {MANIFEST}); move it away or delete it")
    scratch.mkdir(parents=True)
    try:
        report = _fill(spec, scratch, progress)
        scratch.replace(folder)
    except OSError as error:
        raise InputError(f"{scratch}: the store cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    progress(f"{report.found} files read, {report.duplicates} exact duplicates dropped", 1.0)
    progress(f"store ready in {time.monotonic() - begun:.0f} s", 1.0)


def _fill(spec: DataSpec, folder: Path, progress: Progress) -> SourceReport:
    progress("reading the corpus", 0.0)
    training_text = _some_text(
        (doc.text for doc in installed_python(SourceReport()) if split_of(doc, spec.test_fraction) == "train"),
        TOKENIZER_CHARACTERS,
    )
    progress(f"training a byte-level BPE of {spec.vocabulary} tokens", 0.0)
    tokenizer = train_tokenizer(training_text, spec.vocabulary)
    tokenizer.save(os.fspath(folder / TOKENIZER))

    end_of_text = tokenizer.token_to_id(END_OF_TEXT)
    assert end_of_text is not None
    # The corpus may quote the end-of-text token; there it is text like any other.
    tokenizer.encode_special_tokens = True
    dtype = token_dtype(spec.vocabulary)
    writers: dict[Split, SplitWriter] = {split: SplitWriter(folder, split, dtype, end_of_text) for split in SPLITS}
    report = SourceReport()
    for document, ids in _encoded(tokenizer, installed_python(report)):
        writers[split_of(document, spec.test_fraction)].append(document.name, ids, len(document.text.encode()))
        done = sum(writer.tokens for writer in writers.values())
        progress("tokenizing", min(1.0, done / spec.max_tokens))
        if done >= spec.max_tokens:
            break
    splits = {str(name): writer.close() for name, writer in writers.items()}
    for name, split in splits.items():
        if not split.documents:
            raise InputError(f"data: the {name} split is empty; give more text or another test_fraction")
    corpus = {key: value for key, value in asdict(report).items() if key != "not_utf8"}
    write_manifest(
        folder, spec.model_dump(), splits, spec.vocabulary, end_of_text, corpus | {"not_utf8": len(report.not_utf8)}
    )
    return report


def _some_text(texts: Iterator[str], characters: int) -> Iterator[str]:
    for text in texts:
        yield text
        characters -= len(text)
        if characters <= 0:
            return


def _encoded(tokenizer: Tokenizer, documents: Iterator[Document]) -> Iterator[tuple[Document, list[int]]]:
    """Documents with their token ids, in order; encoded on all cores a batch at a time."""
    batch: list[Document] = []
    characters = 0
    for document in chain(documents, [None]):
        if document:
            batch.append(document)
            characters += len(document.text)
        if batch and (document is None or characters >= BATCH_CHARACTERS):
            encodings = tokenizer.encode_batch_fast([doc.text for doc in batch])
            yield from zip(batch, (encoding.ids for encoding in encodings), strict=True)
            batch, characters = [], 0
