import gzip
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.errors import InputError
from data_prep.sources import Document, SourceReport, TextFiles, documents

zstandard = pytest.importorskip("zstandard")


def lines(rows: Iterable[Any]) -> bytes:
    return b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows)


def texts(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"id": number, "text": f"text {number}"} for number in range(start, start + count)]


def read(*paths: Path | str, **fields: Any) -> tuple[list[Document], SourceReport]:
    report = SourceReport()
    spec = TextFiles(paths=tuple(map(str, paths)), **fields)
    return list(documents(spec, report)), report


def names(*paths: Path | str) -> list[str]:
    return [document.name for document in read(*paths)[0]]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder with every type of file, two texts in each JSONL and Parquet file."""
    root = tmp_path / "mixed"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "plain.txt").write_text("plain\n")
    (root / "sub" / "note.md").write_text("note\n")
    (root / "sub" / "code.py").write_text("code = 1\n")
    (root / "b.jsonl").write_bytes(lines(texts(2, 0)))
    (root / "sub" / "c.jsonl.gz").write_bytes(gzip.compress(lines(texts(2, 10))))
    (root / "sub" / "deep" / "d.jsonl.zst").write_bytes(zstandard.compress(lines(texts(2, 20))))
    pq.write_table(pa.Table.from_pylist(texts(2, 30)), root / "a.parquet")
    (root / "image.png").write_bytes(b"\x89PNG")
    return root


IN_ORDER = ["a.parquet:1", "a.parquet:2", "b.jsonl:1", "b.jsonl:2", "plain.txt", "sub/c.jsonl.gz:1",
            "sub/c.jsonl.gz:2", "sub/code.py", "sub/deep/d.jsonl.zst:1", "sub/deep/d.jsonl.zst:2",
            "sub/note.md"]  # fmt: skip


def test_every_type_of_file_is_read_in_the_order_of_the_names(mixed: Path) -> None:
    kept, report = read(mixed)
    assert [document.name for document in kept] == IN_ORDER
    assert [document.text for document in kept] == [
        "text 30", "text 31", "text 0", "text 1", "plain\n", "text 10", "text 11", "code = 1\n", "text 20", "text 21",
        "note\n",
    ]  # fmt: skip
    assert report == SourceReport(read=11)
    assert [document.name for document in read(mixed)[0]] == IN_ORDER


def test_globs_home_and_relative_paths_work_as_in_a_shell(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mixed.parent)
    monkeypatch.setenv("HOME", str(mixed.parent))
    assert names("mixed") == names("~/mixed") == IN_ORDER
    assert names("mixed/*.jsonl") == ["b.jsonl:1", "b.jsonl:2"]
    assert names("mixed/**/*.md", "mixed/plain.txt") == ["sub/note.md", "plain.txt"]
    assert names("mixed/**/*.zst") == ["sub/deep/d.jsonl.zst:1", "sub/deep/d.jsonl.zst:2"]
    assert names("mixed/s?b") == [name for name in IN_ORDER if name.startswith("sub/")]


def test_a_file_that_is_matched_twice_is_read_once(mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(mixed)
    kept, report = read(mixed / "plain.txt", mixed, mixed / "**", tmp_path / "link" / "b.jsonl")
    assert [document.name for document in kept] == ["plain.txt", *(name for name in IN_ORDER if name != "plain.txt")]
    assert (report.read, report.duplicates) == (11, 0)


def test_an_existing_file_with_wildcards_in_its_name_is_not_a_glob(tmp_path: Path) -> None:
    (tmp_path / "part[1].txt").write_text("one")
    (tmp_path / "part1.txt").write_text("another")
    assert names(tmp_path / "part[1].txt") == ["part[1].txt"]


@pytest.mark.parametrize("path", ["none.txt", "none*", "folder", "folder/*.jsonl", "~nobody-here/a.txt", "a" * 300])
def test_a_path_without_text_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "image.png").write_bytes(b"\x89PNG")
    with pytest.raises(
        InputError, match=r"matches no file with one of the suffixes \.txt|File name too long|home folder of ~nobody"
    ) as refused:
        read(path)
    assert str(refused.value).startswith(path)


def test_a_file_of_unknown_type_is_refused(mixed: Path) -> None:
    with pytest.raises(InputError, match=r"image\.png: unknown file type; accepted suffixes: \.txt .* \.parquet"):
        read(mixed / "image.png")


THREE_BAD = lines([*texts(2), b"{broken\n", b"\n", *texts(1, 2), {"id": 5, "body": "no text"}, {"text": None}, b"  \n"])


def test_bad_rows_up_to_the_limit_are_skipped_and_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(THREE_BAD))
    kept, report = read(path, max_bad_rows=3)
    assert [document.name for document in kept] == [f"rows.jsonl.gz:{line}" for line in (1, 2, 5)]
    assert (report.read, report.bad) == (6, 3)
    assert [row.removeprefix(f"{path}:") for row in report.bad_named] == [
        "3: not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))",
        "6: no field 'text' (data.source.text_field); fields: id, body",
        "7: field 'text': expected a string, found null",
    ]


def test_one_bad_row_too_many_gives_a_one_line_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(THREE_BAD))
    with pytest.raises(InputError) as refused:
        read(path, max_bad_rows=2)
    assert str(refused.value) == (
        f"{path}:7: field 'text': expected a string, found null; bad rows so far: 3, but data.source.max_bad_rows is 2"
    )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"[1, 2]\n", "expected a JSON object, found list"),
        (b'"text"\n', "expected a JSON object, found str"),
        (b'{"text": 5}\n', "field 'text': expected a string, found int"),
        (b'{"text": ["a"]}\n', "field 'text': expected a string, found list"),
        (b'{"text": "caf\xe9"}\n', "not UTF-8 (byte 0xe9 at 13)"),
        (b'{"text": "half \\ud800"}\n', "lone surrogate at character 5"),
        (b"[" * 100_000 + b"\n", "not JSON (maximum recursion depth"),
        (b'{"text": "cut', "not JSON (Unterminated string"),
        (b"{}\n", "no field 'text' (data.source.text_field); fields: none"),
    ],
)
def test_every_kind_of_bad_line_is_reported_with_its_reason(tmp_path: Path, row: bytes, reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines([*texts(1), row]))
    kept, report = read(path, max_bad_rows=1)
    assert len(kept) == 1
    assert report.bad_named[0].startswith(f"{path}:2: {reason}")


def test_the_limit_applies_to_all_files_together_and_twenty_rows_are_named(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_bytes(b"bad\n" * 15)
    _, report = read(tmp_path, max_bad_rows=30)
    assert report.bad == 30 and len(report.bad_named) == 20
    with pytest.raises(InputError, match=r"b\.jsonl:15: .*bad rows so far: 30, but .* is 29"):
        read(tmp_path, max_bad_rows=29)


def test_a_text_file_that_is_not_utf8_is_bad_and_an_empty_one_is_an_empty_document(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "empty.txt").write_bytes(b"")
    for name in ("empty.jsonl", "empty.jsonl.gz", "empty.jsonl.zst"):
        (tmp_path / name).write_bytes(b"")
    kept, report = read(tmp_path, max_bad_rows=1)
    assert kept == []
    assert report == SourceReport(2, 0, 1, 1, [f"{tmp_path}/latin.txt: not UTF-8 (byte 0xe9 at 3)"])
    with pytest.raises(InputError, match=r"latin\.txt: not UTF-8 .*max_bad_rows is 0"):
        read(tmp_path)


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_all_members_of_a_concatenated_compressed_file_are_read(tmp_path: Path, suffix: str) -> None:
    compress = gzip.compress if suffix == "gz" else zstandard.compress
    path = tmp_path / f"parts.jsonl.{suffix}"
    path.write_bytes(compress(lines(texts(2))) + compress(lines(texts(2, 2))))
    assert [document.text for document in read(path)[0]] == ["text 0", "text 1", "text 2", "text 3"]


@pytest.mark.parametrize("suffix", ["gz", "zst"])
@pytest.mark.parametrize("share", [0.99, 0.5])
def test_a_truncated_file_is_refused_and_named(tmp_path: Path, suffix: str, share: float) -> None:
    compressed = (gzip.compress if suffix == "gz" else zstandard.compress)(lines(texts(20_000)))
    path = tmp_path / f"cut.jsonl.{suffix}"
    path.write_bytes(compressed[: int(share * len(compressed))])
    with pytest.raises(InputError, match=rf"cut\.jsonl\.{suffix}: cannot be read: Truncated compressed stream"):
        read(path)


def with_long_window(content: bytes) -> bytes:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=31, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return bytes(compressor.compress(content) + compressor.flush())


def test_a_zstandard_file_with_a_long_window_is_read(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl.zst"
    for compress in (with_long_window, zstandard.compress):  # the first frame of a concatenated file
        path.write_bytes(compress(lines(texts(2000))) + with_long_window(lines(texts(2, 2000))))
        kept, _ = read(path)
        assert [document.text for document in kept] == [f"text {number}" for number in range(2002)]
        assert kept[-1].name == "long.jsonl.zst:2002"


def test_a_damaged_zstandard_file_with_a_long_window_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl.zst"
    compressed = with_long_window(lines({"text": os.urandom(500).hex()} for _ in range(2000)))
    path.write_bytes(compressed[: len(compressed) // 2])
    with pytest.raises(InputError, match=r"long\.jsonl\.zst: cannot be read: Truncated compressed stream"):
        read(path)
    path.write_bytes(compressed[: len(compressed) // 2] + b"\xff" * 1000)
    with pytest.raises(InputError, match=r"long\.jsonl\.zst: cannot be read: "):
        read(path)


def test_without_zstandard_the_error_for_a_long_window_gives_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    single, joined = tmp_path / "long.jsonl.zst", tmp_path / "joined.jsonl.zst"
    single.write_bytes(with_long_window(lines(texts(1))))
    # Only the second frame has a long window, so pyarrow fails after it has begun to read.
    joined.write_bytes(zstandard.compress(lines(texts(1))) + with_long_window(lines(texts(1, 1))))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    for path in (single, joined):
        with pytest.raises(
            InputError, match=r"window is larger than 128 MB; run pip install zstandard, or .* -d --long=31"
        ) as refused:
            read(path)
        assert str(refused.value).startswith(str(path))


@pytest.mark.parametrize("name", ["not.jsonl.gz", "not.jsonl.zst", "not.parquet", "empty.parquet"])
def test_a_file_whose_content_does_not_match_its_suffix_is_refused_and_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"" if name.startswith("empty") else b"hello " * 100)
    with pytest.raises(InputError, match=rf"{name}: cannot be read: ") as refused:
        read(tmp_path / name)
    assert "\n" not in str(refused.value)


def test_two_parquet_columns_with_the_same_name_are_refused_only_if_they_contain_the_text(tmp_path: Path) -> None:
    path = tmp_path / "twins.parquet"
    columns = [pa.array(values) for values in (["one"], ["two"], ["three"])]
    pq.write_table(pa.Table.from_arrays(columns, names=["id", "text", "text"]), path)
    with pytest.raises(InputError, match=r"twins\.parquet: 2 columns are named 'text' \(data\.source\.text_field\)"):
        read(path)
    pq.write_table(pa.Table.from_arrays(columns, names=["id", "id", "text"]), path)
    assert [document.text for document in read(path)[0]] == ["three"]


def test_a_missing_parquet_column_is_refused_and_the_existing_ones_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"id": [1], "body": ["b"]}), path)
    with pytest.raises(InputError, match=r"no column 'text' \(data\.source\.text_field\); columns: id, body$"):
        read(path)
    with pytest.raises(InputError, match=r"column 'id' \(data\.source\.text_field\) has type int64, expected text"):
        read(path, text_field="id")
    assert read(path, text_field="body")[0][0].text == "b"


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
def test_a_null_or_undecodable_parquet_row_is_one_bad_row(tmp_path: Path, kind: pa.DataType) -> None:
    path = tmp_path / "table.parquet"
    values = pa.array([b"one", None, b"caf\xe9", b"two"], pa.binary())
    if pa.types.is_dictionary(kind):
        values = pa.array(["one", None, None, "two"]).dictionary_encode()
    elif not pa.types.is_binary(kind):  # bytes wrongly declared as text, as by some writers
        values = pa.Array.from_buffers(pa.string(), 4, values.buffers()).cast(kind)
    pq.write_table(pa.table({"text": values}), path)
    kept, report = read(path, max_bad_rows=2)
    assert [document.name for document in kept] == ["table.parquet:1", "table.parquet:4"]
    assert report.bad_named[0] == f"{path}:2: field 'text': expected a string, found null"
    with pytest.raises(InputError, match=r"table\.parquet:3: "):
        read(path, max_bad_rows=1)


def bytes_read() -> int:
    """Bytes this process has read so far, including from the page cache."""
    status = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(status["rchar"])


@pytest.mark.skipif(not os.access("/proc/self/io", os.R_OK), reason="only Linux counts reads")
@pytest.mark.parametrize("name", ["large.jsonl", "large.jsonl.gz", "large.jsonl.zst", "large.parquet"])
def test_only_a_small_part_of_a_large_file_is_read_for_the_first_document(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    # Random hex digits compress only to half their size, so the file stays large.
    rows = [{"text": os.urandom(2000).hex()} for _ in range(10_000)]
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=len(rows), use_dictionary=False)
    else:
        content = lines(rows)
        compress = {"gz": lambda data: gzip.compress(data, 1), "zst": zstandard.compress}.get(name.split(".")[-1])
        path.write_bytes(compress(content) if compress else content)
    size = path.stat().st_size
    assert size > 15_000_000
    next(documents(TextFiles(paths=(str(path),)), SourceReport()))  # so that imports on first use are not counted

    read_before, allocated_before = bytes_read(), pa.total_allocated_bytes()
    stream = documents(TextFiles(paths=(str(path),)), SourceReport())
    first = next(stream)
    assert first.text == rows[0]["text"]
    assert bytes_read() - read_before < size / 4
    assert pa.total_allocated_bytes() - allocated_before < size / 4
    peak = max(pa.total_allocated_bytes() - allocated_before for _ in stream)
    assert peak < size / 4
