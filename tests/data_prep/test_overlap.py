"""Overlap of the test text of one store with the training text of another, in real stores."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.data_spec import DataSpec
from data_prep.errors import InputError
from data_prep.overlap import find_shared_document, require_disjoint
from data_prep.prepare import prepare
from data_prep.token_store import TOKENIZER

TEXTS = [
    f"Document number {number} has a few words of its own: {'abcdefghij'[number % 10] * 9}." for number in range(40)
]


def lines(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def spec(path: str, **fields: Any) -> DataSpec:
    source = {"kind": "files", "paths": [path]}
    return DataSpec.model_validate({"source": source, "vocabulary": 260, "max_tokens": 10**6} | fields)


def test_one_shared_document_among_many_is_found_and_named(tmp_path: Path) -> None:
    trained = spec(lines(tmp_path / "trained.jsonl", TEXTS), test_fraction=0.2)
    store = prepare(trained, tmp_path)
    in_training = {name: TEXTS[int(name.split(":")[1]) - 1] for name in store.document_names("train")}
    train_text, test_text = next(iter(in_training.values())), (set(TEXTS) - set(in_training.values())).pop()
    fields = {"tokenizer_of": trained, "test_fraction": 1.0}
    disjoint = prepare(spec(lines(tmp_path / "disjoint.jsonl", ["Something else.", test_text]), **fields), tmp_path)
    assert disjoint.train.size == 0 and disjoint.manifest["splits"]["test"]["documents"] == 2
    assert disjoint.manifest["sha256"][TOKENIZER] == store.manifest["sha256"][TOKENIZER]
    assert find_shared_document(disjoint, store) is None, (
        "a document that is test text in both stores is not training text"
    )
    require_disjoint(disjoint, store, "evaluate, disjoint")
    overlapping = prepare(
        spec(lines(tmp_path / "overlapping.jsonl", ["Something else.", train_text]), **fields), tmp_path
    )
    assert find_shared_document(overlapping, store) == "overlapping.jsonl:2"
    with pytest.raises(
        InputError, match=r"evaluate, overlapping: document overlapping.jsonl:2 also appears in the training text"
    ):
        require_disjoint(overlapping, store, "evaluate, overlapping")


def test_a_passed_check_is_recorded_for_these_two_stores_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = spec(lines(tmp_path / "trained.jsonl", TEXTS))
    stores = [prepare(trained, tmp_path), prepare(trained.model_copy(update={"max_tokens": 800}), tmp_path)]
    fields = {"tokenizer_of": trained, "test_fraction": 1.0}
    tested = prepare(spec(lines(tmp_path / "tested.jsonl", ["Something else."]), **fields), tmp_path)
    require_disjoint(tested, stores[0], "x")
    compared = []
    monkeypatch.setattr(
        "data_prep.overlap.find_shared_document", lambda tested, trained: compared.append(trained.fingerprint)
    )
    require_disjoint(tested, stores[0], "x")
    assert compared == []
    stores[1].fingerprint, stores[1].manifest["sha256"] = "another", stores[0].manifest["sha256"]
    require_disjoint(tested, stores[1], "x")
    assert compared == ["another"]


def test_stores_of_different_tokenizers_cannot_be_compared(tmp_path: Path) -> None:
    forwards = prepare(spec(lines(tmp_path / "forwards.jsonl", TEXTS)), tmp_path)
    backwards = prepare(spec(lines(tmp_path / "backwards.jsonl", [text[::-1] for text in TEXTS])), tmp_path)
    with pytest.raises(InputError, match="have different tokenizers"):
        require_disjoint(forwards, backwards, "x")


def test_a_store_is_refused_if_the_tokenizer_it_was_built_with_has_been_rebuilt(tmp_path: Path) -> None:
    trained = spec(lines(tmp_path / "trained.jsonl", TEXTS))
    dependent = spec(lines(tmp_path / "dependent.jsonl", TEXTS), tokenizer_of=trained)
    store = prepare(trained, tmp_path)
    prepare(dependent, tmp_path)
    lines(tmp_path / "trained.jsonl", [text[::-1] for text in TEXTS])
    for path in sorted(store.folder.iterdir()):
        path.unlink()
    store.folder.rmdir()
    with pytest.raises(InputError, match="its input has changed: tokenizer was"):
        prepare(dependent, tmp_path)
