import json
import resource
import shutil
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from data_prep.data_spec import DataSpec
from data_prep.errors import InputError
from data_prep.sources import Document, SourceReport, documents
from data_prep.token_store import MANIFEST, NATURAL_REPEATS, SPLITS, TokenStore


@pytest.fixture
def copy(store: TokenStore, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store.folder, tmp_path / "store"))


def test_tokens_decode_to_the_documents(store: TokenStore) -> None:
    tokenizer = store.tokenizer()
    offsets = store.offsets("train")
    assert len(offsets) == len(store.document_names("train")) + 1 and offsets[-1] == store.train.size
    text_bytes = 0
    for start, end in pairwise(offsets):
        assert store.train[end - 1] == store.end_of_text
        assert store.end_of_text not in store.train[start : end - 1]
        text_bytes += len(tokenizer.decode(store.train[start : end - 1].tolist()).encode())
    assert text_bytes == store.manifest["splits"]["train"]["text_bytes"], "byte-level BPE is lossless"


def test_sequences_are_disjoint_and_cover_the_split(store: TokenStore) -> None:
    context = 31
    count = store.sequences_in("train", context)
    rows = store.gather("train", np.arange(count), context)
    assert rows.shape == (count, context + 1) and rows.dtype == np.int64
    assert (rows.ravel() == store.train[: count * (context + 1)]).all()
    assert store.train.size - rows.size <= context


def test_the_content_of_a_document_decides_its_split(store: TokenStore, data_spec: DataSpec) -> None:
    tokenizer = store.tokenizer()
    digests = {}
    for split in SPLITS:
        offsets, tokens = store.offsets(split), store.train if split == "train" else store.test
        texts = [tokenizer.decode(tokens[start : end - 1].tolist()) for start, end in pairwise(offsets)]
        digests[split] = {Document.of("", text).digest for text in texts}
        assert len(digests[split]) == len(texts) == store.manifest["splits"][split]["documents"] > 0
    assert not digests["train"] & digests["test"]
    expected: dict[str, set[bytes]] = {"train": set(), "test": set()}
    for document in documents(data_spec.source, SourceReport()):
        expected[data_spec.split_of(document)].add(document.digest)
    assert digests == expected


def test_natural_repeats_of_a_read_only_store(store: TokenStore, copy: Path) -> None:
    expected = store.natural_repeats()
    (copy / NATURAL_REPEATS).unlink(missing_ok=True)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write beyond the limit raises an error
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, old[1]))
        assert TokenStore(copy).natural_repeats() == expected
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert sorted(copy.glob("*natural*")) == sorted(copy.glob(".*tmp")) == []


@pytest.mark.parametrize("content", ["", "[]", "{", '{"fingerprint": "x"}', "null"])
def test_damaged_statistics_of_natural_repeats_are_computed_again(store: TokenStore, copy: Path, content: str) -> None:
    expected = store.natural_repeats()
    (copy / NATURAL_REPEATS).write_text(content)
    assert TokenStore(copy).natural_repeats() == expected
    assert json.loads((copy / NATURAL_REPEATS).read_text()) == {"fingerprint": store.fingerprint, **expected}


@pytest.mark.parametrize("value", ["many", None, [1], -1])
def test_impossible_statistics_of_natural_repeats_are_computed_again(
    store: TokenStore, copy: Path, value: object
) -> None:
    expected = store.natural_repeats()
    record = {"fingerprint": store.fingerprint, **expected, "train_windows": value}
    (copy / NATURAL_REPEATS).write_text(json.dumps(record))
    assert TokenStore(copy).natural_repeats() == expected


def truncate(folder: Path) -> None:
    path = folder / "train.tokens"
    path.write_bytes(path.read_bytes()[:-2])


def alter(folder: Path) -> None:
    path = folder / "test.tokens"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


def edit(folder: Path, key: str, value: object) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {key: value}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"train.tokens: \d+ bytes long, but the manifest says \d+"),
        (alter, "test.tokens: does not match its checksum in the manifest"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "missing, but the manifest lists it"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "not valid JSON"),
        (lambda folder: (folder / MANIFEST).write_text(json.dumps({"format": 99})), "not the manifest"),
        (lambda folder: edit(folder, "fingerprint", "0" * 16), "altered after it was written"),
        (lambda folder: edit(folder, "vocabulary", 9999), "altered after it was written"),
        (lambda folder: edit(folder, "splits", {}), "malformed"),
        (lambda folder: edit(folder, "bytes", 5), "malformed"),
        (lambda folder: (folder / MANIFEST).unlink(), "no token store here"),
    ],
)
def test_damage_is_detected_before_use(copy: Path, damage: Callable[[Path], None], message: str) -> None:
    TokenStore(copy, verify=True)
    damage(copy)
    with pytest.raises(InputError, match=message):
        TokenStore(copy, verify=True)
