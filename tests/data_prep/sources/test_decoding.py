"""Decoding of files: byte-order marks and declared encodings."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.sources import Document, InstalledProse, InstalledPython, SourceReport, TextFiles, documents

MARK = b"\xef\xbb\xbf"


def read(*paths: Path, max_bad_rows: int = 0) -> tuple[list[Document], SourceReport]:
    report = SourceReport()
    source = TextFiles(paths=tuple(map(str, paths)), max_bad_rows=max_bad_rows)
    return list(documents(source, report)), report


def rows(*texts: str) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_a_byte_order_mark_before_json_lines_is_dropped(tmp_path: Path, name: str) -> None:
    content = MARK + rows("one", "two") + MARK + rows("three") + MARK + b"\n" + MARK
    if name.endswith("gz"):
        content = gzip.compress(content)
    elif name.endswith("zst"):
        content = pytest.importorskip("zstandard").compress(content)
    (tmp_path / name).write_bytes(content)
    kept, report = read(tmp_path)
    assert [document.text for document in kept] == ["one", "two", "three"]
    assert report == SourceReport(read=3)


@pytest.mark.parametrize("suffix", ["txt", "md", "py"])
def test_a_byte_order_mark_at_the_start_of_a_file_is_dropped(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a.{suffix}").write_bytes(MARK + "café".encode())
    (tmp_path / f"b.{suffix}").write_bytes("café".encode())
    (tmp_path / f"empty.{suffix}").write_bytes(MARK)
    kept, report = read(tmp_path)
    assert [document.text for document in kept] == ["café"]
    assert report == SourceReport(read=3, duplicates=1, empty=1)


def test_a_byte_order_mark_inside_a_row_is_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(rows("\ufeffone"))
    pq.write_table(pa.table({"text": ["\ufefftwo"]}), tmp_path / "b.parquet")
    assert [document.text for document in read(tmp_path)[0]] == ["\ufeffone", "\ufefftwo"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_the_error_for_utf16_names_it(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes(("" if encoding == "utf-16" else "\ufeff").encode(encoding) + "é".encode(encoding))
    _, report = read(tmp_path, max_bad_rows=1)
    assert report.bad_named[0].endswith("a.txt: expected UTF-8, found the byte-order mark of UTF-16")


PYTHON = {
    "latin.py": ("# -*- coding: latin-1 -*-\nname = 'café'\n", "latin-1"),
    "second.py": ("#!/usr/bin/env python\n# vim: set fileencoding=koi8-r :\nname = 'мир'\n", "koi8-r"),
    "plain.py": ("name = 'naïve'\n", "utf-8"),
    "unknown.py": ("# coding: uft-8\nname = 'œuvre'\n", "utf-8"),
    "wide.py": ("# coding: utf-16\nname = 'ascii'\n", "utf-8"),
    "third.py": ("\n\n# coding: latin-1\nname = 'Ł'\n", "utf-8"),  # PEP 263 allows it only in the first two lines
}


def test_python_files_are_read_in_the_encoding_they_declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, (text, encoding) in PYTHON.items():
        (tmp_path / name).write_bytes(text.encode(encoding))
    expected = {text for text, _ in PYTHON.values()}
    assert {document.text for document in read(tmp_path)[0]} == expected
    monkeypatch.setattr("data_prep.sources.installed_python.installed_python_roots", lambda: [tmp_path])
    assert {document.text for document in documents(InstalledPython(), SourceReport())} == expected


def test_a_declared_encoding_is_used_only_for_python_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("# coding: latin-1\ncafé".encode("latin-1"))
    (tmp_path / "b.py").write_bytes(b"# coding: ascii\ncaf\xe9")
    _, report = read(tmp_path, max_bad_rows=2)
    assert [row.removeprefix(f"{tmp_path}/") for row in report.bad_named] == [
        "a.txt: not UTF-8 (byte 0xe9 at 21)",
        "b.py: not UTF-8 (byte 0xe9 at 19)",
    ]


def test_the_prose_of_a_python_file_has_the_same_origin_as_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docstring = '"""' + "Ein langer Satz über Bücher. " * 20 + '"""\n'
    (tmp_path / "a.py").write_bytes(("# coding: latin-1\n" + docstring).encode("latin-1"))
    (tmp_path / "b.py").write_bytes(MARK + (docstring + "x = 1\n").encode())
    monkeypatch.setattr("data_prep.sources.installed_python.installed_python_roots", lambda: [tmp_path])
    monkeypatch.setattr("data_prep.sources.installed_prose.installed_python_roots", lambda: [tmp_path])
    code = {document.origin for document in documents(InstalledPython(), SourceReport())}
    prose = {document.origin for document in documents(InstalledProse(), SourceReport())}
    assert len(code) == 2 and prose <= code
