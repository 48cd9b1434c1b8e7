"""The text to copy: shipped, from a file, or written in the study."""

from pathlib import Path

import pytest

from data_prep.errors import InputError
from repeat_study.config.copying_text import SHIPPED, insert_copying_text, shipped_text


def inserted(value: object, folder: Path) -> object:
    table = {"evaluation": {"copying_text": value}}
    insert_copying_text(table, folder)
    return table["evaluation"]["copying_text"]


def test_a_shipped_text_and_a_file_become_text(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("my own words")
    assert inserted({"file": "mine.txt"}, tmp_path) == inserted("my own words", tmp_path) == "my own words"
    assert SHIPPED == ("english", "python")
    assert inserted({"shipped": "python"}, tmp_path) == shipped_text("python")
    assert inserted({"shipped": "english"}, tmp_path) is None, "the default"
    assert "Alice" in shipped_text() and "def " in shipped_text("python")


@pytest.mark.parametrize(
    "value", [{}, {"shipped": "german"}, {"shipped": []}, {"file": 1}, {"file": "a", "shipped": "python"}]
)
def test_other_tables_are_refused(value: object, tmp_path: Path) -> None:
    expected = r'expected text, \{file = PATH\} or \{shipped = "english" or "python"\}, found'
    with pytest.raises(InputError, match=rf"^evaluation\.copying_text: {expected} "):
        inserted(value, tmp_path)
