"""English text from small installations that the tests create."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.data_spec import DataSpec
from data_prep.errors import InputError
from data_prep.overlap import find_shared_document
from data_prep.prepare import prepare
from data_prep.sources import Document, InstalledProse, SourceReport, documents
from data_prep.sources.document import split_hash
from data_prep.sources.installed_prose import docstrings, without_code

LONG = "This sentence describes the module in words that a person can read. " * 4
Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Use these folders as the installation; the first is the standard library."""

    def roots(*folders: Path) -> None:
        for module in ("installed_python", "installed_prose"):
            monkeypatch.setattr(f"data_prep.sources.{module}.installed_python_roots", lambda: list(folders))

    return roots


def read() -> list[Document]:
    return list(documents(InstalledProse(), SourceReport()))


def python(path: Path, text: str, code: str = "") -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'"""{text}"""\n{code}')
    return hashlib.sha256(path.read_bytes()).digest()


def test_all_docstrings_are_read_in_order() -> None:
    source = '''"""Module."""
x = """no docstring"""
if x:
    try:
        class A:
            """Class."""
            async def f(self):
                """Method.

                   Indented.
                """
    except ValueError:
        def g(): "In a handler."
'''
    assert docstrings(source) == ["Module.", "Class.", "Method.\n\nIndented.", "In a handler."]


def test_code_is_removed_from_prose() -> None:
    text = """Before.

>>> call(1)
... more
result

Kept::

    code = 1

    more_code = 2
After it.

```python
fenced = True
```
Last."""
    assert without_code(text) == "Before.\n\nKept::\nAfter it.\n\nLast."


def test_only_docstrings_and_files_written_for_people_are_read(tmp_path: Path, install: Install) -> None:
    install(tmp_path)
    python(tmp_path / "package" / "a.py", LONG + "Of a.", "secret_code = 1")
    python(tmp_path / "package" / "short.py", "Too short.")
    for name, text in {
        "package/README.md": "Read me.",
        "package/LICENSE.APACHE": "License.",
        "package/data.txt": "1 2 3 4",
        "package/readme.json": "{}",
        "one-1.0.dist-info/METADATA": "",
        "mine-1.0.dist-info/METADATA": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        head = "Name: one\nVersion: 1.0\n\n" if name.endswith("METADATA") else ""
        (tmp_path / name).write_text(f"{head}{LONG}{text or name}")
    (tmp_path / "mine-1.0.dist-info" / "direct_url.json").write_text("{}")
    (tmp_path / "package" / "broken.py").write_text(f'"""{LONG}"""\ncertainly no Python')
    texts = {document.name: document.text for document in read()}
    assert set(texts) == {
        "package/a.py",
        "package/README.md",
        "package/LICENSE.APACHE",
        "one-1.0.dist-info/METADATA",
    }
    assert texts["package/a.py"] == (LONG + "Of a.").strip()
    assert not any("Version" in text or "secret" in text for text in texts.values())


def test_a_text_shared_by_several_files_is_test_text_only_if_all_of_them_are(tmp_path: Path, install: Install) -> None:
    install(tmp_path)
    origins = [python(tmp_path / f"{number}.py", LONG, f"x = {number}") for number in range(8)]
    (document,) = read()
    assert document.origin == max(origins, key=split_hash)
    report = SourceReport()
    list(documents(InstalledProse(), report))
    assert (report.read, report.duplicates) == (8, 7)


def test_prose_and_python_from_one_file_are_always_in_the_same_split(tmp_path: Path, install: Install) -> None:
    """Tests a Python model on prose and a prose model on Python, with real files."""
    library = tmp_path / "library"
    for package in ("asyncio", "email", "http", "json", "logging", "unittest", "xml", "concurrent", "importlib"):
        shutil.copytree(Path(os.__file__).parent / package, library / package)
    install(library)
    fields = {"vocabulary": 300, "max_tokens": 10**9, "test_fraction": 0.3}
    code = DataSpec.model_validate({"source": {"kind": "installed-python"}, **fields})
    prose = DataSpec.model_validate({"source": {"kind": "installed-prose"}, "tokenizer_of": code, **fields})
    stores = [prepare(spec, tmp_path / "data") for spec in (code, prose)]
    names = [{split: set(store.document_names(split)) for split in ("train", "test")} for store in stores]  # type: ignore[arg-type]
    for tested, trained in (names, names[::-1]):
        assert tested["test"] and trained["train"] and not tested["test"] & trained["train"]
    assert len(names[1]["test"] & names[0]["test"]) > 5, "the docstrings of test files are test text"
    assert all(find_shared_document(tested, trained) is None for tested in stores for trained in stores)


def test_an_installation_without_text_is_refused(tmp_path: Path, install: Install) -> None:
    install(tmp_path)
    with pytest.raises(InputError, match="installed-prose: no text found in"):
        read()
