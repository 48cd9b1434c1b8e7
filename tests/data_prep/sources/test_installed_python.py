from pathlib import Path

import pytest

from data_prep.errors import InputError
from data_prep.sources import Document, InstalledPython, SourceReport, documents

TEXTS = {"a.py": b"x = 1\n", "deep/er/b.py": b"y = 2\n", "c.py": b"z = 3\n"}


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


@pytest.fixture
def corpus(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """A function that reads the corpus in the given roots and returns its documents and the report."""

    def read(*roots: Path) -> tuple[list[Document], SourceReport]:
        monkeypatch.setattr("data_prep.sources.installed_python.installed_python_roots", lambda: list(roots))
        report = SourceReport()
        return list(documents(InstalledPython(), report)), report

    return read


def test_the_order_of_documents_depends_only_on_their_content(corpus, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    renamed = {f"other{number}.py": text for number, text in enumerate(reversed(TEXTS.values()))}
    original_order, _ = corpus(write(tmp_path / "original", TEXTS))
    renamed_order, _ = corpus(write(tmp_path / "renamed", renamed))
    assert [document.text for document in original_order] == [document.text for document in renamed_order]
    assert sorted(document.text for document in original_order) == ["x = 1\n", "y = 2\n", "z = 3\n"]


def test_duplicates_empty_and_undecodable_files_are_dropped_and_counted(corpus, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    extra = {
        "copy.py": TEXTS["a.py"],
        "empty.py": b"",
        "blank.py": b" \n",
        "latin.py": b"# caf\xe9\n",
        "note.txt": b"no",
    }
    kept, report = corpus(write(tmp_path, TEXTS | extra))
    assert len(kept) == 3
    assert report == SourceReport(7, 1, 2, 1, ["latin.py: not UTF-8 (byte 0xe9 at 5)"])


def test_packages_of_other_environments_and_editable_installs_are_skipped(corpus, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    standard = write(tmp_path / "lib", TEXTS | {"site-packages/other.py": b"other = 1\n"})
    packages = write(tmp_path / "packages", {"__editable___mine.py": b"path = 1\n", "numpy/core.py": b"n = 1\n"})
    kept, _ = corpus(standard, packages)
    assert {document.text for document in kept} == {"x = 1\n", "y = 2\n", "z = 3\n", "n = 1\n"}


def test_an_empty_corpus_is_refused(corpus, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="no Python source found"):
        corpus(tmp_path)


def test_the_corpus_is_the_installation_of_the_running_interpreter() -> None:
    names = {document.name for document in documents(InstalledPython(), SourceReport())}
    assert "argparse.py" in names
    assert any(name.startswith("numpy/") for name in names)
