"""Output of `prepare` and `inspect` on the command line, and their one-line errors for invalid input."""

import json
import re
from pathlib import Path

import pytest

from analysis.forecast.census import read_census
from tests.command import STUDY, call, toml
from tests.data_prep.test_tokenizer_audit import ENGLISH, RUSSIAN, SPECIAL, byte_bpe, unigram


def study(folder: Path, **fields: object) -> str:
    table = {"max_tokens": 10**6, "test_fraction": 0.2} | fields
    lines = "".join(f"{key} = {toml(value)}\n" for key, value in table.items())
    (folder / "study.toml").write_text(f"[data]\n{lines}{STUDY}")
    return "study.toml"


def write_corpus(folder: Path, texts: list[str]) -> dict[str, object]:
    (folder / "corpus" / ".old").mkdir(parents=True)
    (folder / "corpus" / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (folder / "corpus" / "picture.png").write_bytes(b"\x89PNG")
    return {"kind": "files", "paths": ["corpus"]}


def test_prepare_and_inspect_show_skipped_files_and_lost_text(tmp_path: Path) -> None:
    source = write_corpus(tmp_path, [f"{text}, part {part}" for text in ENGLISH for part in range(10)])
    byte_bpe(ENGLISH).save(str(tmp_path / "tokenizer.json"))
    name = study(tmp_path, source=source, tokenizer="tokenizer.json", end_of_text=SPECIAL[0])
    skipped = "files skipped: 1 hidden (name begins with a dot), 1 of other types (.png 1)\n"
    for verb in ("prepare", "inspect"):
        done = call(verb, name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert skipped in done.stdout and "tokenizer: no text is lost or unknown\n" in done.stdout
    counted = call("inspect", name, "--histogram", "census.csv", cwd=tmp_path)
    assert counted.returncode == 0, counted.stderr
    windows = int(re.search(r"occur more than once: .* of ([0-9,]+)\)", counted.stdout)[1].replace(",", ""))  # type: ignore[index]
    census = read_census(tmp_path / "census.csv")
    assert census.total == pytest.approx(windows, rel=1e-3)


@pytest.mark.parametrize("fault", ["special token", "lost text", "one document", "path with NUL"])
def test_invalid_data_gives_a_one_line_error(tmp_path: Path, fault: str) -> None:
    texts, message = {
        "special token": (
            [*ENGLISH, "a </s> b"],
            "data.tokenizer: a.jsonl:201: part of its text is encoded as the special token '</s>'",
        ),
        "lost text": ([*ENGLISH, *RUSSIAN], "visible characters lost or unknown"),
        "one document": (ENGLISH[:1], "the corpus is a single document, and a document is never divided"),
        "path with NUL": (ENGLISH, "data.source.paths: 'a\\x00b' contains a NUL character"),
    }[fault]
    source = write_corpus(tmp_path, texts)
    if "NUL" in fault:
        source["paths"] = ["a\0b"]
    unigram(ENGLISH).save(str(tmp_path / "tokenizer.json"))
    done = call("prepare", study(tmp_path, source=source, tokenizer="tokenizer.json", end_of_text="</s>"), cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
