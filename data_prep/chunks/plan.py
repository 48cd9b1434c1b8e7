"""Plan a build: divide the source into chunks, make the tokenizer and check the free disk space."""

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from data_prep.chunks.changes import delete_encoded, ids_after_change
from data_prep.data_spec import DataSpec
from data_prep.document_batch import Progress
from data_prep.empty_split import MORE_DOCUMENTS, empty_split
from data_prep.errors import InputError
from data_prep.files import exclusive_lock, read_record, write_json
from data_prep.sources import Chunk, Source, SourceReport, documents
from data_prep.store_writer import token_dtype
from data_prep.token_store import TOKENIZER
from data_prep.tokenizer import load_tokenizer, special_token, train_tokenizer, vocabulary_of, word_tokenizer

PLAN = "plan.json"
# The tokenizer is trained on this much text. More text does not change the merges of a small vocabulary.
TOKENIZER_CHARACTERS = 20_000_000
CHUNKS = 128  # the number of chunks aimed at, so that all processes finish at about the same time
SMALLEST_CHUNK, LARGEST_CHUNK = 2**18, 2**24  # bytes of text; the largest one takes a core a few seconds
BYTES_PER_TOKEN = 4.0  # of text; estimates for small vocabularies are too low, so they only limit sizes
FEWEST_BYTES_PER_TOKEN = 2.5  # to estimate the size of the store
BYTES_PER_DOCUMENT_TOKEN = 0.3  # bytes of digests, names and offsets per token, at 300 tokens per document


@dataclass(frozen=True)
class Plan:
    """How a store is built from a text source. It depends only on the spec and the input, not on the number of processes."""

    inputs: dict[str, str]
    vocabulary: int
    end_of_text: int
    # Whether to check for lost text: only a tokenizer that comes from the user or another store can lose text.
    audited: bool
    chunk_bytes: int  # of text, approximately
    chunks: list[Chunk]
    ids: list[int]  # of the chunks, in the names of their files; they do not change if chunks are inserted or removed

    @property
    def text_bytes(self) -> int | None:
        """Estimated size of the text; None if it is unknown."""
        sizes = [chunk.text_bytes for chunk in self.chunks]
        return None if None in sizes else sum(size or 0 for size in sizes)

    @classmethod
    def load(cls, folder: Path) -> "Plan":
        """Read a plan. Raises InputError if it is missing or damaged."""
        record = read_record(folder / PLAN)
        try:
            chunks = [_chunk_of(values) for values in record.pop("chunks")]
            return cls(chunks=chunks, **record)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{folder / PLAN}: malformed; delete the folder to start again") from error


def make_plan(spec: DataSpec, data_dir: Path, progress: Progress = lambda stage, share: None) -> Plan:
    """Make the plan and the tokenizer in `spec.chunks_folder`. If the build was interrupted, load them and adapt them to the input.

    Raises InputError if the source cannot be read, the tokenizer cannot be used, the disk is too small for the store, or text that is
    already encoded has changed.
    """
    folder = spec.chunks_folder(data_dir)
    with exclusive_lock(folder / "plan.lock", wait=True):
        if (folder / PLAN).is_file():
            progress("using the existing plan", 0.0)
            plan = _adapted(Plan.load(folder), spec, data_dir, folder, progress)
        else:
            plan = _first_plan(spec, data_dir, folder, progress)
        return plan


def existing_plan(spec: DataSpec, data_dir: Path, progress: Progress = lambda stage, share: None) -> Plan:
    """Load the plan, or make it if there is none. It does not check for changes in the input, which would take long for every process."""
    folder = spec.chunks_folder(data_dir)
    if not (folder / PLAN).is_file():
        with exclusive_lock(folder / "plan.lock", wait=True):
            if not (folder / PLAN).is_file():  # no other process has made it in the meantime
                return _first_plan(spec, data_dir, folder, progress)
    return Plan.load(folder)


def _first_plan(spec: DataSpec, data_dir: Path, folder: Path, progress: Progress) -> Plan:
    text_bytes = spec.source.text_bytes() if isinstance(spec.source, Source) else None
    require_space(spec, data_dir, text_bytes)
    plan = _new_plan(spec, data_dir, folder, text_bytes, progress)
    write_json(folder / PLAN, asdict(plan))
    return plan


def _adapted(plan: Plan, spec: DataSpec, data_dir: Path, folder: Path, progress: Progress) -> Plan:
    """The plan for the present input. Encoded chunks are kept. Raises InputError if the tokenizer or encoded text has changed."""
    assert isinstance(spec.source, Source)
    inputs, chunks = spec.inputs(data_dir), spec.source.chunks(plan.chunk_bytes, spec.max_tokens)
    if plan.inputs == inputs and plan.chunks == chunks:
        return plan
    ids = ids_after_change(folder, plan.chunks, plan.ids, chunks)
    tokenizer = _make_tokenizer(spec, data_dir, progress).to_str(pretty=True)
    if tokenizer != (folder / TOKENIZER).read_text(encoding="utf-8"):
        raise InputError(
            f"{folder}: the tokenizer, or the text that it is trained on, has changed since this build was interrupted; delete the"
            " folder to start again"
        )
    delete_encoded(folder, set(plan.ids) - set(ids))
    plan = replace(plan, inputs=inputs, chunks=chunks, ids=ids)
    write_json(folder / PLAN, asdict(plan))
    return plan


def require_space(spec: DataSpec, data_dir: Path, text_bytes: float | None) -> None:
    """Raise InputError if the disk is too small for the encoded text and the store. text_bytes: None if the size is unknown."""
    if text_bytes is None:
        return
    needed, free = disk_bytes(spec, text_bytes), shutil.disk_usage(data_dir).free
    if needed > free:
        raise InputError(
            f"{data_dir}: {free / 1e9:.1f} GB free, but building the store needs about {needed / 1e9:.1f} GB; free some space,"
            " choose another --data-dir, or reduce data.max_tokens"
        )


def disk_bytes(spec: DataSpec, text_bytes: float) -> float:
    """Estimated disk space during the build, which is needed for the encoded text and the store. After the build, half of it is free."""
    tokens = min(spec.max_tokens, text_bytes / FEWEST_BYTES_PER_TOKEN)
    try:
        bytes_per_token = token_dtype(spec.expected_vocabulary()).itemsize
    except InputError:  # reported when the tokenizer is loaded
        bytes_per_token = 4
    return 2 * tokens * (bytes_per_token + BYTES_PER_DOCUMENT_TOKEN)


def _new_plan(spec: DataSpec, data_dir: Path, folder: Path, text_bytes: float | None, progress: Progress) -> Plan:
    if not spec.has_tokenizer:
        raise InputError(
            "data.source: the training data has no tokenizer, so this text cannot be encoded; set data.tokenizer, or use a source"
            ' of kind "tokens"'
        )
    tokenizer = _make_tokenizer(spec, data_dir, progress)
    chunk_bytes = _chunk_bytes(spec, text_bytes)
    assert isinstance(spec.source, Source)
    chunks = spec.source.chunks(chunk_bytes, spec.max_tokens)
    # Tokenizer.save would raise a plain Exception instead of an OSError if the disk is full.
    (folder / TOKENIZER).write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    return Plan(
        inputs=spec.inputs(data_dir),
        vocabulary=vocabulary_of(tokenizer),
        end_of_text=special_token(tokenizer, spec.end_of_text),
        audited=spec.tokenizer_file(data_dir) is not None,
        chunk_bytes=chunk_bytes,
        chunks=chunks,
        ids=list(range(len(chunks))),
    )


def _chunk_bytes(spec: DataSpec, text_bytes: float | None) -> int:
    needed = min(text_bytes or 0, BYTES_PER_TOKEN * spec.max_tokens)
    return min(max(int(needed / CHUNKS), SMALLEST_CHUNK), LARGEST_CHUNK)


def _chunk_of(values: dict[str, Any]) -> Chunk:
    return Chunk(**values | {"files": tuple((name, path) for name, path in values["files"])})


def _make_tokenizer(spec: DataSpec, data_dir: Path, progress: Progress) -> Tokenizer:
    assert isinstance(spec.source, Source)
    if (path := spec.tokenizer_file(data_dir)) is not None:
        return load_tokenizer(path)
    if (words := spec.source.fixed_vocabulary()) is not None:
        return word_tokenizer(words)
    progress(f"training a byte-level BPE of {spec.vocabulary} tokens", 0.0)
    return train_tokenizer(_tokenizer_text(spec, spec.source), spec.vocabulary)


def _tokenizer_text(spec: DataSpec, source: Source) -> Iterator[str]:
    """Yield the text of training documents until the total reaches TOKENIZER_CHARACTERS characters."""
    characters = 0
    report = SourceReport()
    for document in documents(source, report):
        if spec.split_of(document) == "train":
            yield document.text
            characters += len(document.text)
            if characters >= TOKENIZER_CHARACTERS:
                return
    if characters:
        return
    if report.kept:
        raise InputError(empty_split(spec, "train", report.kept, report.kept, MORE_DOCUMENTS))
    counts = f"documents read: {report.read}; empty: {report.empty}; malformed: {report.bad}"
    raise InputError(f"data.source: no text for the training split ({counts}); provide more text")
