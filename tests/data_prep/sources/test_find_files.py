"""Which files a path matches. The rules are the same however the path is written."""

import gzip
import json
from pathlib import Path

import pytest

from data_prep.errors import InputError
from data_prep.prepare import prepare
from data_prep.sources import SourceReport, TextFiles, documents
from data_prep.sources.find_files import find_files, names_of
from tests.data_prep.test_build import spec_of


def put(root: Path, *names: str) -> Path:
    """Write a file with different content for every name."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"text of {name}\n")
    return root


def names(*paths: Path | str) -> list[str]:
    return [name for name, _ in find_files(tuple(map(str, paths))).files]


HIDDEN = (".ipynb_checkpoints/a.txt", "sub/._b.txt", "sub/.git/deep/c.txt", ".d.txt")


@pytest.mark.parametrize("spelling", ["corpus", "corpus/", "corpus/*", "corpus/**", "corpus/**/*.txt", "link", "c*"])
def test_hidden_files_and_folders_are_skipped_however_the_path_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    put(tmp_path / "corpus", "a.txt", "sub/b.txt", *HIDDEN)
    (tmp_path / "link").symlink_to("corpus")
    monkeypatch.chdir(tmp_path)
    assert [name.removeprefix("corpus/") for name in names(spelling)] == ["a.txt", "sub/b.txt"]


def test_hidden_files_and_folders_are_counted(tmp_path: Path) -> None:
    root = put(tmp_path, "a.txt", *HIDDEN)
    assert find_files((str(root), str(root / "a.txt"))).skipped() == "files skipped: 4 hidden (name begins with a dot)"


def test_a_hidden_file_or_folder_that_the_path_names_is_read(tmp_path: Path) -> None:
    root = put(tmp_path, "a.txt", *HIDDEN)
    assert names(root / ".ipynb_checkpoints") == ["a.txt"]
    assert names(root / ".d.txt") == [".d.txt"]
    assert names(root / ".*.txt") == [".d.txt"]
    assert names(root / "sub/.git/**/*.txt") == ["deep/c.txt"]


def test_the_error_for_a_folder_with_only_hidden_files_mentions_them(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"matches no file with one of the suffixes .*; hidden files and folders skipped: 1$"
    ):
        names(put(tmp_path, ".a.txt"))


@pytest.mark.parametrize("spelling", ["corpus", "corpus/*", "corpus/**", "corpus/**/*.txt"])
def test_links_to_folders_are_followed_however_the_path_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    put(tmp_path, "corpus/own.txt", "corpus/z/inner.txt", "elsewhere/far/outer.txt")
    (tmp_path / "corpus" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "corpus" / "another-name-of-z").symlink_to("z")
    for place in ("corpus/circle", "corpus/z/circle", "elsewhere/circle"):
        (tmp_path / place).symlink_to(tmp_path / "corpus")
    (tmp_path / "corpus" / "z" / "up").symlink_to("..")
    monkeypatch.chdir(tmp_path)
    assert names(spelling) == ["linked/far/outer.txt", "own.txt", "z/inner.txt"]


def test_a_link_that_points_to_itself_is_not_read(tmp_path: Path) -> None:
    root = put(tmp_path, "a.txt")
    (root / "self").symlink_to("self")
    (root / "broken.txt").symlink_to("nowhere.txt")
    assert names(root) == ["a.txt"]
    assert find_files((str(root),)).skipped() == "files skipped: 2 of other types (broken links and devices 2)"


def test_the_case_of_a_suffix_does_not_matter_and_json_lines_have_three_suffixes(tmp_path: Path) -> None:
    for number, name in enumerate(["A.JSONL", "b.ndjson", "c.Json.gz", "d.NDJSON.GZ", "e.json.zst", "f.ndjson.zst"]):
        content = json.dumps({"text": f"text {number}"}).encode()
        if name.lower().endswith(".gz"):
            content = gzip.compress(content)
        elif name.endswith(".zst"):
            content = pytest.importorskip("zstandard").compress(content)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "G.TXT").write_text("text 6")
    (tmp_path / "H.Md").write_text("text 7")
    kept = list(documents(TextFiles(paths=(str(tmp_path),)), SourceReport()))
    assert sorted(document.text for document in kept) == [f"text {number}" for number in range(8)]


def test_files_of_other_types_are_counted_by_suffix(tmp_path: Path) -> None:
    root = put(tmp_path, "a.txt", "x.json", "y.json", "z.PNG", "sub/Makefile", ".hidden")
    assert find_files((str(root),)).skipped() == (
        "files skipped: 1 hidden (name begins with a dot), 4 of other types (.json 2, .png 1, no suffix 1)"
    )
    assert find_files((str(root / "*.txt"),)).skipped() == ""


def test_prepare_and_the_manifest_report_the_skipped_files(tmp_path: Path) -> None:
    root = put(tmp_path / "corpus", *(f"{number}.txt" for number in range(40)), "image.png", ".hidden.txt")
    lines: list[str] = []
    spec = spec_of(root, vocabulary=257, test_fraction=0.5)
    store = prepare(spec, tmp_path / "data", lambda stage, share: lines.append(stage))
    skipped = "files skipped: 1 hidden (name begins with a dot), 1 of other types (.png 1)"
    assert skipped in lines and store.manifest["corpus"]["skipped"] == skipped


def test_a_path_with_a_nul_is_refused(tmp_path: Path) -> None:
    for path in ("a\0b.txt", "a\0/*.txt", "~\0"):
        with pytest.raises(InputError, match=r"data\.source\.paths: '.*\\x00.*' contains a NUL character"):
            names(path)


def test_a_path_with_an_unknown_home_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda _: {}["no such user"])
    with pytest.raises(InputError, match=r"^~/a\.txt: the home folder of ~ is unknown .*set HOME$"):
        names("~/a.txt")


def test_paths_are_named_for_readers_without_folders_wildcards_and_duplicates() -> None:
    assert names_of(["/data/corpus/**"]) == "corpus"
    assert names_of(["a/train.bin", "b/train.bin", "c/test-*.bin"]) == "train.bin, c"
    assert names_of(["*.txt"]) == "*.txt"
    assert names_of([f"/data/{name}" for name in "abcd"]) == "a and 3 more"
