import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from data_prep.sources import HuggingFace, InstalledPython, SourceReport, SourceSpec, Synthetic, TextFiles, documents

ADAPTER: TypeAdapter[SourceSpec] = TypeAdapter(SourceSpec)


@pytest.mark.parametrize(
    ("toml", "spec"),
    [
        ('kind = "installed-python"', InstalledPython()),
        ('kind = "files"\npaths = ["a.txt", "~/b"]', TextFiles(paths=("a.txt", "~/b"))),
        ('kind = "huggingface"\ndataset = "a/b"\nsplit = "test"', HuggingFace(dataset="a/b", split="test")),
        ('kind = "synthetic"\nseed = 3\nzipf_exponent = 1', Synthetic(seed=3)),
    ],
)
def test_a_source_is_a_hashable_value_that_survives_toml_and_json(toml: str, spec: SourceSpec) -> None:
    assert ADAPTER.validate_python(tomllib.loads(toml)) == spec
    assert ADAPTER.validate_python(json.loads(spec.model_dump_json())) == spec
    assert len({spec, ADAPTER.validate_python(tomllib.loads(toml))}) == 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"kind": "fils"}, "'files'"),
        ({"kind": "files", "paths": []}, "at least 1 item"),
        ({"kind": "files", "paths": "a.txt"}, "valid tuple"),
        ({"kind": "files", "paths": [1]}, "valid string"),
        ({"kind": "files", "paths": ["a"], "pahts": 1}, "Extra inputs"),
        ({"kind": "synthetic", "words": 1}, "greater than or equal to 2"),
        ({"kind": "synthetic", "words": 10.5}, "valid integer"),
        ({"kind": "synthetic", "shortest": 9, "longest": 8}, "longest = 8 is less than shortest = 9"),
        ({"kind": "synthetic", "words": 2, "longest": 8, "passages": 2}, "repeat by chance"),
    ],
)
def test_an_invalid_source_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ADAPTER.validate_python(table)


@given(texts=st.lists(st.sampled_from(["", " \n", "one", "two", "two ", "drei", "\u2028", "\U0001f600"]), max_size=30))
def test_every_distinct_text_is_kept_once_at_its_first_occurrence(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    report = SourceReport()
    kept = list(documents(TextFiles(paths=(str(path),)), report))
    assert [document.text for document in kept] == list(dict.fromkeys(text for text in texts if text.strip()))
    assert all(document.digest == hashlib.sha256(document.text.encode()).digest() for document in kept)
    assert report.read == len(texts) == len(kept) + report.duplicates + report.empty
    assert report.empty == sum(not text.strip() for text in texts)


def test_duplicates_are_dropped_across_files_and_file_types(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("same")
    (tmp_path / "b.jsonl").write_text('{"text": "same"}\n{"text": "other"}\n')
    (tmp_path / "c.md").write_text("other")
    report = SourceReport()
    kept = list(documents(TextFiles(paths=(str(tmp_path),)), report))
    assert [document.name for document in kept] == ["a.txt", "b.jsonl:2"]
    assert (report.read, report.duplicates) == (4, 2)
