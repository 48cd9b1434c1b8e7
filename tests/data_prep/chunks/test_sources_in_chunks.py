"""The chunks of a source contain the documents of the source, in order."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from data_prep.sources import BadRow, Document, Source, SourceSpec, Synthetic, TextFiles
from data_prep.sources.record_files import count_lines, lines_between
from tests.data_prep.chunks.planted import KINDS


def rows_of_chunks(source: Source, size: int) -> list[Document | BadRow]:
    """All rows of all chunks. Rows of a chunk with an unknown number of rows before it are numbered from 1."""
    rows: list[Document | BadRow] = []
    base = 0
    for chunk in source.chunks(size, 10**9):
        in_chunk = list(source.read_chunk(chunk))
        if chunk.rows_before is not None:
            base = 0
        for row in in_chunk:
            name = row.place if isinstance(row, BadRow) else row.name
            if base:
                file, _, number = name.rpartition(":")
                name = f"{file}:{int(number) + base}"
            rows.append(replace(row, place=name) if isinstance(row, BadRow) else replace(row, name=name))
        base += source.rows_in(chunk, len(in_chunk))
        if chunk.rows_before is None and in_chunk:  # the number that an error message names
            numbered = next(source.read_chunk(source.numbered(chunk)))
            assert numbered == rows[-len(in_chunk)]
    return rows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [200, 3000, 10**6])
def test_the_chunks_of_a_source_contain_its_documents_in_order(
    kind: str, size: int, corpora: dict[str, dict[str, object]]
) -> None:
    source: Source = TypeAdapter(SourceSpec).validate_python(corpora[kind]["source"])
    assert rows_of_chunks(source, size) == list(source.read())
    if size < 10**6:
        assert len(source.chunks(size, 10**9)) > 10


def test_files_of_different_types_with_bad_rows_are_divided_too(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "b.txt").write_bytes(b"caf\xe9")
    rows = [json.dumps({"text": f"row {number}" * (number % 5)}) for number in range(40)]
    rows[7] = rows[23] = "no json"
    (tmp_path / "c.jsonl").write_text("\n\n" + "\n".join(rows))  # without a line break at the end
    pq.write_table(pa.table({"text": ["one", None, "three"]}), tmp_path / "d.parquet", row_group_size=1)
    (tmp_path / "e.jsonl").touch()
    (tmp_path / "f.md").write_text("last")
    source = TextFiles(paths=(str(tmp_path),), max_bad_rows=9)
    for size in (1, 50, 10**6):
        assert rows_of_chunks(source, size) == list(source.read())


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_every_line_belongs_to_exactly_one_range(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    content = b'\xef\xbb\xbf"a"\n\n  \n' + b'"' + b"b" * 30 + b'"\n"c"\n"d"'
    with pa.output_stream(str(path), "gzip" if name.endswith("gz") else None) as stream:
        stream.write(content)
    lines = [b'"a"\n', b'"' + b"b" * 30 + b'"\n', b'"c"\n', b'"d"']
    for size in range(1, len(content) + 2):
        ranges = [(first, first + size) for first in range(0, len(content), size)]
        assert [line for first, last in ranges for _, line in lines_between(path, first, last)] == lines
        if name == "a.jsonl":
            assert sum(count_lines(path, first, min(last, len(content))) for first, last in ranges) == 6
    assert list(lines_between(path, 0, None))[-1] == (6, b'"d"')


def test_a_compressed_file_is_read_again_for_an_earlier_range_and_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    with pa.output_stream(str(path), "zstd") as stream:
        stream.write(b"".join(b"%d\n" % number for number in range(10, 90)))
    assert [next(lines_between(path, first, None)) for first in (30, 0, 33)] == [
        (11, b"20\n"),
        (1, b"10\n"),
        (12, b"21\n"),
    ]
    path.write_bytes(path.read_bytes()[:-5])
    for _ in range(2):
        with pytest.raises(OSError, match=r"[Tt]runcated"):
            list(lines_between(path, 0, None, state="truncated"))


def test_the_chunks_of_a_language_without_end_contain_enough_documents_for_the_build() -> None:
    source = Synthetic(words=50)
    chunks = source.chunks(3000, 20_000)
    documents = [document for chunk in chunks[:-1] for document in source.read_chunk(chunk)]
    assert documents == list(islice(source.read(), len(documents)))
    assert sum(len(document.text.split()) + 1 for document in documents) >= 20_000
    assert next(source.read_chunk(chunks[-1])).name == f"synthetic:{len(documents)}"
