"""Stores that are built from tokens of other programs."""

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from data_prep.data_spec import DataSpec
from data_prep.prepare import prepare
from data_prep.sources.tokens import runs
from data_prep.token_store import TokenStore
from tests.data_prep import token_files
from tests.data_prep.token_files import WRITERS, Documents, Fields


def spec_of(folder: Path, source: Fields, **fields: Any) -> DataSpec:
    source = {"kind": "tokens", "paths": [str(folder)], **source}
    return DataSpec.model_validate(
        {"source": source, "vocabulary": 320, "max_tokens": 10**9, "test_fraction": 1.0} | fields
    )


def documents_of(store: TokenStore) -> list[list[int]]:
    """All documents of both splits, without end-of-text tokens."""
    found = []
    for split in ("train", "test"):
        tokens, offsets = getattr(store, split), store.offsets(split)
        found += [tokens[start : end - 1].tolist() for start, end in pairwise(offsets)]
    return found


@pytest.fixture(scope="module")
def tokenizer(store: TokenStore) -> str:
    return str(store.folder / "tokenizer.json")


@pytest.fixture(scope="module")
def text_store(tokenizer: str, tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """A store of the package `json` and `http`, encoded with this tokenizer. All of it is test text."""
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
