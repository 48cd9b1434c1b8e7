from pathlib import Path

import pytest

from data_prep.corpora import SourceReport, installed_python
from data_prep.errors import InputError


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


TEXTS = {"a.py": b"x = 1\n", "deep/er/b.py": b"y = 2\n", "c.py": b"z = 3\n"}


def test_order_depends_on_content_only(tmp_path: Path) -> None:
    renamed = {f"other{number}.py": text for number, text in enumerate(reversed(TEXTS.values()))}
    orders = []
    for name, files in (("one", TEXTS), ("two", renamed)):
        root = write(tmp_path / name, files)
        orders.append([document.text for document in installed_python(SourceReport(), [root])])
    assert orders[0] == orders[1] and sorted(orders[0]) == ["x = 1\n", "y = 2\n", "z = 3\n"]


def test_duplicates_empty_and_undecodable_files_are_dropped_and_counted(tmp_path: Path) -> None:
    extra = {
        "copy.py": TEXTS["a.py"],
        "empty.py": b"",
        "blank.py": b" \n",
        "latin.py": b"# caf\xe9\n",
        "note.txt": b"no",
    }
    report = SourceReport()
    documents = list(installed_python(report, [write(tmp_path, TEXTS | extra)]))
    assert len(documents) == 3
    assert (report.found, report.duplicates, report.empty, report.not_utf8) == (7, 1, 2, ["latin.py"])


def test_another_environments_packages_and_editable_installs_are_left_out(tmp_path: Path) -> None:
    standard = write(tmp_path / "lib", TEXTS | {"site-packages/other.py": b"other = 1\n"})
    packages = write(tmp_path / "packages", {"__editable___mine.py": b"path = 1\n", "numpy/core.py": b"n = 1\n"})
    texts = {document.text for document in installed_python(SourceReport(), [standard, packages])}
    assert texts == {"x = 1\n", "y = 2\n", "z = 3\n", "n = 1\n"}


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no Python source found"):
        next(installed_python(SourceReport(), [tmp_path]))


def test_the_default_source_is_this_interpreters(tmp_path: Path) -> None:
    names = {document.name for document in installed_python(SourceReport())}
    assert "argparse.py" in names
    assert any(name.startswith("numpy/") for name in names)
