"""Text to be tested on beside text to be trained on, in real stores."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.build import DataSpec, prepare
from data_prep.errors import InputError
from data_prep.overlap import require_apart, shared_document
from data_prep.token_store import TOKENIZER

SOME = [
    f"Document number {number} has a few words of its own: {'abcdefghij'[number % 10] * 9}." for number in range(40)
]


def lines(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def spec(path: str, **fields: Any) -> DataSpec:
    source = {"kind": "files", "paths": [path]}
    return DataSpec.model_validate({"source": source, "vocabulary": 260, "max_tokens": 10**6} | fields)


def test_one_shared_document_among_many_is_found_and_named(tmp_path: Path) -> None:
    trained = spec(lines(tmp_path / "trained.jsonl", SOME), test_fraction=0.2)
    store = prepare(trained, tmp_path)
    in_training = {name: SOME[int(name.split(":")[1]) - 1] for name in store.document_names("train")}
    of_training, of_test = next(iter(in_training.values())), (set(SOME) - set(in_training.values())).pop()
    fields = {"tokenizer_of": trained, "test_fraction": 1.0}
    apart = prepare(spec(lines(tmp_path / "apart.jsonl", ["Something else.", of_test]), **fields), tmp_path)
    assert apart.train.size == 0 and apart.manifest["splits"]["test"]["documents"] == 2
    assert apart.manifest["sha256"][TOKENIZER] == store.manifest["sha256"][TOKENIZER]
    assert shared_document(apart, store) is None, "what is test text in both is no training text"
    require_apart(apart, store, "evaluate, apart")
    again = prepare(spec(lines(tmp_path / "again.jsonl", ["Something else.", of_training]), **fields), tmp_path)
    assert shared_document(again, store) == "again.jsonl:2"
    with pytest.raises(InputError, match=r"evaluate, again: its document again.jsonl:2 is in the training text too"):
        require_apart(again, store, "evaluate, again")


def test_what_was_found_apart_is_remembered_for_these_two_stores_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = spec(lines(tmp_path / "trained.jsonl", SOME))
    stores = [prepare(trained, tmp_path), prepare(trained.model_copy(update={"max_tokens": 800}), tmp_path)]
    fields = {"tokenizer_of": trained, "test_fraction": 1.0}
    tested = prepare(spec(lines(tmp_path / "tested.jsonl", ["Something else."]), **fields), tmp_path)
    require_apart(tested, stores[0], "x")
    looked = []
    monkeypatch.setattr("data_prep.overlap.shared_document", lambda one, other: looked.append(other.fingerprint))
    require_apart(tested, stores[0], "x")
    assert looked == []
    stores[1].fingerprint, stores[1].manifest["sha256"] = "another", stores[0].manifest["sha256"]
    require_apart(tested, stores[1], "x")
    assert looked == ["another"]


def test_stores_of_different_tokenizers_cannot_be_compared(tmp_path: Path) -> None:
    one = prepare(spec(lines(tmp_path / "one.jsonl", SOME)), tmp_path)
    other = prepare(spec(lines(tmp_path / "other.jsonl", [text[::-1] for text in SOME])), tmp_path)
    with pytest.raises(InputError, match="made with different tokenizers"):
        require_apart(one, other, "x")


def test_a_store_whose_tokenizer_was_built_anew_is_refused(tmp_path: Path) -> None:
    trained = spec(lines(tmp_path / "trained.jsonl", SOME))
    dependent = spec(lines(tmp_path / "dependent.jsonl", SOME), tokenizer_of=trained)
    store = prepare(trained, tmp_path)
    prepare(dependent, tmp_path)
    lines(tmp_path / "trained.jsonl", [text[::-1] for text in SOME])
    for path in sorted(store.folder.iterdir()):
        path.unlink()
    store.folder.rmdir()
    with pytest.raises(InputError, match="built from other input: tokenizer was"):
        prepare(dependent, tmp_path)
