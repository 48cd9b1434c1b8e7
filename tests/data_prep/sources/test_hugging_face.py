import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data_prep.errors import InputError
from data_prep.sources import Document, HuggingFace, SourceReport, documents

TEXTS = ["one", "two", "", "two", "three"]


@pytest.fixture(scope="module")
def library() -> Any:
    return pytest.importorskip("datasets")


def read(dataset: Path | str, **fields: Any) -> tuple[list[Document], SourceReport]:
    report = SourceReport()
    return list(documents(HuggingFace(dataset=str(dataset), **fields), report)), report


def test_the_rows_of_a_saved_dataset_are_read_in_order(library: Any, tmp_path: Path) -> None:
    library.Dataset.from_dict({"text": TEXTS, "id": range(5)}).save_to_disk(str(tmp_path / "saved"))
    kept, report = read(tmp_path / "saved")
    assert [(document.name, document.text) for document in kept] == [
        ("saved/train:1", "one"),
        ("saved/train:2", "two"),
        ("saved/train:5", "three"),
    ]
    assert report == SourceReport(read=5, duplicates=1, empty=1)
    assert read(tmp_path / "saved")[0] == kept


def test_the_requested_split_of_a_saved_dataset_dict_is_read(library: Any, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    splits = {name: library.Dataset.from_dict({"text": [f"{name} text"]}) for name in ("train", "validation")}
    library.DatasetDict(splits).save_to_disk(str(folder))
    assert read(folder, split="validation")[0][0].text == "validation text"
    with pytest.raises(InputError, match=r"no split 'test' \(data\.source\.split\); splits: train, validation$"):
        read(folder, split="test")


def test_a_missing_column_is_refused_and_the_existing_ones_are_listed(library: Any, tmp_path: Path) -> None:
    library.Dataset.from_dict({"body": TEXTS, "id": range(5)}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(InputError, match=r"no column 'text' \(data\.source\.text_field\); columns: body, id$"):
        read(tmp_path / "saved")
    assert len(read(tmp_path / "saved", text_field="body")[0]) == 3


def test_rows_without_text_are_skipped_up_to_the_limit(library: Any, tmp_path: Path) -> None:
    library.Dataset.from_dict({"text": ["one", None, "two"]}).save_to_disk(str(tmp_path / "saved"))
    kept, report = read(tmp_path / "saved", max_bad_rows=1)
    assert len(kept) == 2
    assert report.bad_named == ["saved/train:2: field 'text': expected a string, found null"]
    with pytest.raises(InputError, match=r"saved/train:2: .*found null; bad rows so far: 1, .*max_bad_rows is 0$"):
        read(tmp_path / "saved")


def test_a_local_copy_of_a_hub_dataset_is_streamed(library: Any, tmp_path: Path) -> None:
    for split in ("train", "test"):
        rows = "".join(json.dumps({"text": f"{split} {number}"}) + "\n" for number in range(3))
        (tmp_path / f"{split}.jsonl").write_text(rows)
    kept, _ = read(tmp_path, split="test")
    assert [document.text for document in kept] == ["test 0", "test 1", "test 2"]
    with pytest.raises(InputError, match=r"cannot be read: .*validation.*train.*test") as refused:
        read(tmp_path, split="validation")
    assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match="body"):
        read(tmp_path, text_field="body")


def test_a_missing_dataset_gives_a_one_line_error(library: Any, tmp_path: Path) -> None:
    program = """if True:
        from data_prep.sources import HuggingFace, SourceReport, documents
        from data_prep.errors import InputError
        try:
            next(documents(HuggingFace(dataset="no/such-dataset"), SourceReport()))
        except InputError as error:
            print(error)"""
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", program], env=offline, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("no/such-dataset: cannot be read: ") and done.stdout.count("\n") == 1


def test_without_the_library_the_error_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # makes the import fail as if it were not installed
    with pytest.raises(InputError, match=r"pip install 'repeat-study\[hf\]'$"):
        read("any/thing")
