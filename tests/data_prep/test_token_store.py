import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from data_prep.errors import InputError
from data_prep.token_store import MANIFEST, TokenStore


@pytest.fixture
def copy(store: TokenStore, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store.folder, tmp_path / "store"))


def test_tokens_decode_to_the_documents(store: TokenStore) -> None:
    tokenizer = store.tokenizer()
    offsets = np.fromfile(store.folder / "train.offsets", np.int64)
    assert len(offsets) == len(store.document_names("train")) + 1 and offsets[-1] == store.train.size
    text_bytes = 0
    for start, end in pairwise(offsets):
        assert store.train[end - 1] == store.end_of_text
        assert store.end_of_text not in store.train[start : end - 1]
        text_bytes += len(tokenizer.decode(store.train[start : end - 1].tolist()).encode())
    assert text_bytes == store.manifest["splits"]["train"]["text_bytes"], "byte-level BPE must lose nothing"


def test_sequences_are_disjoint_and_cover_the_split(store: TokenStore) -> None:
    context = 31
    count = store.sequences_in("train", context)
    rows = store.gather("train", np.arange(count), context)
    assert rows.shape == (count, context + 1) and rows.dtype == np.int64
    assert (rows.ravel() == store.train[: count * (context + 1)]).all()
    assert store.train.size - rows.size <= context


def test_a_sequence_knows_its_document(store: TokenStore) -> None:
    offsets = np.fromfile(store.folder / "train.offsets", np.int64)
    documents = store.document_of("train", np.arange(50), 31)
    for sequence, document in enumerate(documents):
        assert offsets[document] <= sequence * 32 < offsets[document + 1]


def test_train_and_test_share_no_document(store: TokenStore) -> None:
    assert not set(store.document_names("train")) & set(store.document_names("test"))
    assert store.manifest["splits"]["test"]["documents"] > 0


def truncate(folder: Path) -> None:
    path = folder / "train.tokens"
    path.write_bytes(path.read_bytes()[:-2])


def alter(folder: Path) -> None:
    path = folder / "test.tokens"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"train.tokens: \d+ bytes found, \d+ in the manifest"),
        (alter, "test.tokens: its content is not what the manifest's checksum says"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "missing, though the manifest lists it"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "not valid JSON"),
        (lambda folder: (folder / MANIFEST).write_text(json.dumps({"format": 99})), "not the manifest"),
        (lambda folder: (folder / MANIFEST).unlink(), "no token store here"),
    ],
)
def test_damage_is_found_before_use(copy: Path, damage: Callable[[Path], None], message: str) -> None:
    TokenStore(copy, verify=True)
    damage(copy)
    with pytest.raises(InputError, match=message):
        TokenStore(copy, verify=True)
