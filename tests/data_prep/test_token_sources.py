"""Stores that are built from data tokenized by other programs."""

import errno
import gc
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep import build, store_writer
from data_prep.build import JOURNAL, StoreBuilder
from data_prep.data_spec import DataSpec
from data_prep.errors import InputError
from data_prep.overlap import require_disjoint
from data_prep.prepare import prepare
from data_prep.sources.tokens import runs
from data_prep.store_writer import SplitWriter, StoreWriter
from data_prep.token_store import TokenStore
from tests.data_prep import token_files
from tests.data_prep.token_files import END, WRITERS, Documents, Fields


def spec_of(folder: Path, source: Fields, **fields: Any) -> DataSpec:
    source = {"kind": "tokens", "paths": [str(folder)], **source}
    return DataSpec.model_validate(
        {"source": source, "vocabulary": 320, "max_tokens": 10**9, "test_fraction": 1.0} | fields
    )


def documents_of(store: TokenStore) -> list[list[int]]:
    """All documents of both splits, without end-of-text tokens."""
    documents = []
    for split in ("train", "test"):
        tokens, offsets = getattr(store, split), store.offsets(split)
        documents += [tokens[start : end - 1].tolist() for start, end in pairwise(offsets)]
    return documents


@pytest.fixture(scope="module")
def tokenizer(store: TokenStore) -> str:
    return str(store.folder / "tokenizer.json")


@pytest.fixture(scope="module")
def text_store(tokenizer: str, tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """A store of the packages `json` and `http`, encoded with this tokenizer. All of it is test text."""
    library = Path(os.__file__).parent
    source = {"kind": "files", "paths": [str(library / "json"), str(library / "http"), str(library / "dbm")]}
    fields = {"source": source, "tokenizer": tokenizer, "max_tokens": 10**9, "test_fraction": 1.0}
    return prepare(DataSpec.model_validate(fields), tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def documents(text_store: TokenStore) -> Documents:
    return documents_of(text_store)


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_every_format_gives_the_same_store_as_the_text(
    write: Callable[[Path, Documents], Fields],
    documents: Documents,
    text_store: TokenStore,
    tokenizer: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runs, "BLOCK_BYTES", 5_000)  # so that blocks end within documents
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    source = write(corpus, documents)
    store = prepare(spec_of(corpus, source, tokenizer=tokenizer), tmp_path / "data")
    assert store.fingerprint == text_store.fingerprint
    assert store.manifest["splits"]["test"]["documents"] == len(documents)
    without = prepare(spec_of(corpus, source), tmp_path / "data")
    for name in ("test.tokens", "test.offsets"):
        assert without.manifest["sha256"][name] == text_store.manifest["sha256"][name]
    assert not without.has_tokenizer and without.vocabulary == 320


@pytest.mark.parametrize(
    "write",
    [token_files.nanogpt, token_files.llm_c, token_files.megatron, token_files.mds],
    ids=lambda write: write.__name__,
)
def test_duplicates_and_empty_documents_are_dropped_and_splits_do_not_depend_on_the_format(
    write: Callable[[Path, Documents], Fields], documents: Documents, tmp_path: Path
) -> None:
    expected = prepare(
        spec_of(*written(tmp_path / "plain", token_files.nanogpt, documents), test_fraction=0.3), tmp_path / "data"
    )
    assert sorted(documents_of(expected)) == sorted(documents)
    assert expected.manifest["splits"]["train"]["documents"] > expected.manifest["splits"]["test"]["documents"] > 0
    with_copies = [documents[0], [], *documents, documents[3], documents[1], []]
    store = prepare(spec_of(*written(tmp_path / "copies", write, with_copies), test_fraction=0.3), tmp_path / "data")
    counts = store.manifest["corpus"]
    assert (counts["read"], counts["duplicates"], counts["empty"]) == (len(with_copies), 3, 2)
    assert store.fingerprint == expected.fingerprint


def written(folder: Path, write: Callable[[Path, Documents], Fields], documents: Documents) -> tuple[Path, Fields]:
    folder.mkdir(exist_ok=True)
    return folder, write(folder, documents)


def test_only_the_first_copy_of_a_document_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "BLOCK_BYTES", 200)  # so that copies are in the same block and in others
    rng = np.random.default_rng(0)
    documents = [rng.integers(1, 8, rng.integers(1, 5)).tolist() for _ in range(2000)]
    store = prepare(spec_of(*written(tmp_path / "corpus", token_files.nanogpt, documents)), tmp_path / "data")
    distinct = [list(document) for document in dict.fromkeys(map(tuple, documents))]
    assert documents_of(store) == distinct
    assert store.manifest["corpus"]["duplicates"] == len(documents) - len(distinct) > 100


def test_a_store_does_not_depend_on_how_much_is_written_and_flushed_together(
    documents: Documents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(*written(tmp_path / "corpus", token_files.nanogpt_in_shards, documents), test_fraction=0.2)
    at_the_end = prepare(spec, tmp_path / "first")
    monkeypatch.setattr(runs, "BLOCK_BYTES", 2_000)
    monkeypatch.setattr(store_writer, "PIECE_TOKENS", 1_500)
    monkeypatch.setattr(store_writer, "FLUSH_TOKENS", 4_000)
    flushed: list[int] = []
    fdatasync = os.fdatasync

    def flush(descriptor: int) -> None:
        flushed.append(descriptor)
        fdatasync(descriptor)

    monkeypatch.setattr(os, "fdatasync", flush)
    in_pieces = prepare(spec, tmp_path / "second")
    assert len(flushed) > 10
    assert in_pieces.manifest == at_the_end.manifest
    TokenStore(in_pieces.folder, verify=True)


def test_a_disk_that_is_full_while_tokens_are_flushed_is_reported(
    documents: Documents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store_writer, "PIECE_TOKENS", 1_500)  # so that it fails while pieces are being written
    monkeypatch.setattr(store_writer, "FLUSH_TOKENS", 1)
    monkeypatch.setattr(os, "fdatasync", fail)
    spec = spec_of(*written(tmp_path / "corpus", token_files.nanogpt, documents))
    with pytest.raises(InputError, match="cannot be written: No space left on device; free some space and run again"):
        prepare(spec, tmp_path / "data")
    monkeypatch.undo()
    assert documents_of(prepare(spec, tmp_path / "data")) == documents


def test_what_a_failed_build_left_in_memory_never_reaches_the_resumed_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook keeps the last exception, and with it the failed build's file objects. They must not flush their buffers later."""
    rng = np.random.default_rng(0)
    documents = [rng.integers(1, 300, rng.integers(0, 200)).tolist() for _ in range(1000)]
    write, calls = SplitWriter.write, count()

    def fail_at_the_sixtieth(writer: SplitWriter, buffer: Any) -> None:
        if next(calls) == 60:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(writer, buffer)

    spec = spec_of(*written(tmp_path / "corpus", token_files.nanogpt, documents), test_fraction=0.2)
    undisturbed = prepare(spec, tmp_path / "undisturbed")
    write_journal = StoreBuilder._write_journal

    def write_a_single_journal(builder: StoreBuilder, writer: StoreWriter) -> None:
        write_journal(builder, writer)
        monkeypatch.setattr(build, "JOURNAL_SECONDS", 1e9)

    monkeypatch.setattr(build, "JOURNAL_SECONDS", 0.0)
    monkeypatch.setattr(StoreBuilder, "_write_journal", write_a_single_journal)
    monkeypatch.setattr(runs, "BLOCK_BYTES", 2_000)
    monkeypatch.setattr(store_writer, "PIECE_TOKENS", 500)
    monkeypatch.setattr(SplitWriter, "write", fail_at_the_sixtieth)
    with pytest.raises(InputError, match="No space left on device") as failure:
        prepare(spec, tmp_path / "data")
    assert list(tmp_path.glob(f"data/.*/{JOURNAL}"))
    monkeypatch.undo()
    store = prepare(spec, tmp_path / "data")
    assert store.manifest == undisturbed.manifest
    del failure
    gc.collect()
    TokenStore(store.folder, verify=True)


def test_a_build_killed_repeatedly_gives_the_same_store(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    documents = [rng.integers(1, 300, rng.integers(0, 200)).tolist() for _ in range(4000)]
    corpus, source = written(tmp_path / "corpus", token_files.nanogpt_in_shards, documents + documents[:50])
    spec = spec_of(corpus, source, test_fraction=0.2)
    uninterrupted = prepare(spec, tmp_path / "uninterrupted")
    assert uninterrupted.manifest["corpus"]["duplicates"] > 40
    scratch = tmp_path / f".{spec.store_name}.building"
    taken = []
    for kills in (1, 2, 3):
        child = multiprocessing.get_context("fork").Process(target=_build_and_die, args=(spec, tmp_path, 3 * kills))
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        taken.append(json.loads((scratch / JOURNAL).read_text())["taken"])
        with (scratch / "train.tokens").open("ab") as file:
            file.write(b"written after the journal")
    assert 0 < taken[0] < taken[1] < taken[2] < uninterrupted.manifest["corpus"]["read"]
    store = prepare(spec, tmp_path)
    assert store.manifest == uninterrupted.manifest
    assert TokenStore(store.folder, verify=True).document_names("train") == uninterrupted.document_names("train")


def _build_and_die(spec: DataSpec, data_dir: Path, journals: int) -> None:
    """Build from small blocks, write a journal after each, and kill this process after the given number of journals."""
    runs.BLOCK_BYTES, build.JOURNAL_SECONDS = 40_000, 0.0
    write = build.write_json

    def write_and_count(path: Path, record: Any) -> None:
        nonlocal journals
        write(path, record)
        if (journals := journals - (path.name == JOURNAL)) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    build.write_json = write_and_count
    prepare(spec, data_dir)


def test_a_corpus_that_changed_during_an_interruption_is_detected(tmp_path: Path) -> None:
    documents = [[number % 300 + 1] * (number % 90 + 1) for number in range(3000)]
    corpus, source = written(tmp_path / "corpus", token_files.nanogpt, documents)
    spec = spec_of(corpus, source, test_fraction=0.2)
    child = multiprocessing.get_context("fork").Process(target=_build_and_die, args=(spec, tmp_path, 2))
    child.start()
    child.join()
    token_files.nanogpt(corpus, [[7, 7, 8], *documents[1:]])
    with pytest.raises(InputError, match="the corpus has changed since this build was interrupted"):
        prepare(spec, tmp_path)


def test_the_document_that_reaches_max_tokens_is_the_last(documents: Documents, tmp_path: Path) -> None:
    corpus, source = written(tmp_path / "corpus", token_files.llm_c, [documents[0], *documents])
    limited = prepare(spec_of(corpus, source, max_tokens=20_000), tmp_path / "data")
    kept = documents_of(limited)
    assert kept == documents[: len(kept)]
    assert 20_000 <= limited.test.size < 20_000 + len(kept[-1]) + 1
    assert limited.manifest["corpus"]["read"] == len(kept) + 1
    assert limited.document_names("test")[0] == "train_000000.bin:1"


def test_rows_of_equal_length_without_an_inner_end_of_text_are_documents(tmp_path: Path) -> None:
    rows = [[number % 300 + 1] * 9 + [number // 300 + 1] for number in range(1200)]
    corpus, _ = written(tmp_path / "corpus", token_files.nanogpt, [])
    store = prepare(spec_of(corpus, token_files.litdata_rows(corpus, rows)), tmp_path / "data")
    assert documents_of(store) == rows
    (note,) = store.manifest["corpus"]["notes"]
    assert (
        note == "rows: the first 1,000 are 10 tokens long, without token 0 in the middle, so each row is one document"
    )


def test_packed_rows_are_reported_and_a_row_of_another_length_is_refused(documents: Documents, tmp_path: Path) -> None:
    corpus, source = written(tmp_path / "packed", token_files.litdata_packed, documents)
    (note,) = prepare(spec_of(corpus, source), tmp_path / "data").manifest["corpus"]["notes"]
    assert note == "rows: packed, 64 tokens each; they were joined and divided into documents at token 0"
    rows = token_files.packed_rows(documents)
    assert len(rows) > 1100
    token_files.litdata_rows(corpus, [*rows[:1050], rows[0][:50], *rows[1050:]])
    with pytest.raises(InputError, match="a row is not 64 tokens long, but the rows before it are packed"):
        prepare(spec_of(corpus, source, max_tokens=10**8), tmp_path / "data")


def test_an_end_of_text_token_inside_a_recorded_document_divides_it(tmp_path: Path) -> None:
    rows = [[1, 2, END, 3], [END, 4], [5, END, END, 6, END]]
    for write in (token_files.megatron, token_files.megatron_with_end):
        corpus, source = written(tmp_path / write.__name__, write, rows)
        store = prepare(spec_of(corpus, source), tmp_path / "data")
        assert documents_of(store) == [[1, 2], [3], [4], [5], [6]]
        before = prepare(spec_of(corpus, source | {"end": "before"}), tmp_path / "data")
        assert documents_of(before) == [[1, 2], [3], [4], [5], [6]]


def test_a_document_that_is_much_too_long_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "MOST_TOKENS", 1000)
    monkeypatch.setattr(runs, "BLOCK_BYTES", 500)
    corpus, source = written(tmp_path / "corpus", token_files.nanogpt, [[1] * 500, [2] * 1500])
    with pytest.raises(InputError, match=r"a document of more than 1,000 tokens; is data.source.end_of_text the"):
        prepare(spec_of(corpus, source), tmp_path / "data")


def test_the_tokenizer_must_agree_with_the_end_of_text_token(
    documents: Documents, tokenizer: str, tmp_path: Path
) -> None:
    corpus, source = written(tmp_path / "corpus", token_files.nanogpt, documents)
    with pytest.raises(
        InputError, match=r"token 5 separates documents, but the tokenizer's '<\|endoftext\|>' is token 0"
    ):
        prepare(spec_of(corpus, source | {"end_of_text": 5}, tokenizer=tokenizer), tmp_path / "data")
    named = prepare(spec_of(corpus, source | {"end_of_text": None}, tokenizer=tokenizer), tmp_path / "data")
    assert named.end_of_text == 0  # taken from the tokenizer


def test_test_sets_of_tokens_are_compared_with_training_documents(text_store: TokenStore, tmp_path: Path) -> None:
    documents = [[number % 300 + 1, number // 300 + 1] * 5 for number in range(200)]
    training = spec_of(*written(tmp_path / "training", token_files.nanogpt, documents[:100]), test_fraction=0.2)
    corpus, source = written(tmp_path / "other", token_files.megatron, documents[100:])
    fields = {"vocabulary": 1024, "tokenizer_of": training}
    other = prepare(spec_of(corpus, source, **fields), tmp_path / "data")
    trained = prepare(training, tmp_path / "data")
    require_disjoint(other, trained, "evaluate")
    shared = documents_of(trained)[0]
    overlapping = spec_of(*written(tmp_path / "overlap", token_files.llm_c, [[1, 2], shared]), **fields)
    with pytest.raises(InputError, match=r"document train_00000\d.bin:2 also appears in the training text"):
        require_disjoint(prepare(overlapping, tmp_path / "data"), trained, "evaluate")
    with pytest.raises(InputError, match="have different tokenizers"):
        require_disjoint(text_store, trained, "evaluate")
    with pytest.raises(InputError, match="the training data has no tokenizer, so this text cannot be encoded"):
        text = {"source": {"kind": "files", "paths": [str(Path(os.__file__).parent / "dbm")]}, "tokenizer_of": training}
        prepare(DataSpec.model_validate(text | {"max_tokens": 10**6}), tmp_path / "data")
    with pytest.raises(InputError, match="token 9 separates documents here, but the training data uses token 0"):
        prepare(spec_of(corpus, source | {"end_of_text": 9}, **fields), tmp_path / "data")
