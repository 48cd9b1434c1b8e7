"""CSV files with a user's runs are read, and malformed files are rejected."""

from pathlib import Path

import numpy as np
import pytest

from analysis.laws.runs_csv import parse_columns, read_points
from data_prep.errors import InputError

HEADER = "params,tokens,fraction,repeats,loss"
CLEAN, REPEATED = "1e6,1e8,0,1,3.1", "1e6,1e8,0.5,10,3.4"


def written(folder: Path, *lines: str) -> Path:
    (path := folder / "runs.csv").write_text("\n".join(lines) + "\n")
    return path


def refusal(path: Path, columns: dict[str, str] | None = None) -> str:
    with pytest.raises(InputError) as refused:
        read_points(path, columns)
    return str(refused.value).removeprefix(str(path)).lstrip(", :")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("params,", "size,"), "missing column params; found size, tokens"),
        ((REPEATED, "1e6,1e8,0.5,10,nan"), "line 3: loss is 'nan'; expected nats per token, above 0 and up to 100"),
        ((REPEATED, "1e6,1e8,1.5,10,3.4"), "line 3: fraction is '1.5'; expected a number from 0 to 1"),
        ((REPEATED, "1e6,1e8,0,10,3.4"), "line 3: fraction is 0 but repeats is above 1"),
        ((REPEATED, "1e6,1e8,0.5,ten,3.4"), "line 3: repeats is 'ten'; expected a number from 1"),
        ((REPEATED, CLEAN), "line 3: identical to line 2; if the runs differ in their seed, add a column 'seed'"),
        ((REPEATED, f"{REPEATED},second"), "line 3: 6 cells, but the header has 5; expected one cell per column"),
        ((REPEATED, "1e6,1e8,0.5,10,3,4"), "line 3: 6 cells, but the header has 5"),
        ((REPEATED, "100,000,000,1e8,0.5,10,3.4"), "line 3: 7 cells, but the header has 5"),
        ((REPEATED, "1e6,1e8,0.5,10"), "line 3: 4 cells, but the header has 5"),
        ((REPEATED, '1e6,1e8,0.5,10,"3,4"'), "line 3: loss is '3,4'"),
        ((REPEATED, "1e6,1e8,0.5,10,3_4"), "line 3: loss is '3_4'"),
        ((REPEATED, '1e6,1e8,0.5,10,"3.4'), "line 3: not CSV: unexpected end of data"),
        ((REPEATED, "0.125,1e8,0.5,10,3.4"), "line 3: params is '0.125'; expected a count of at least 1,000"),
        ((REPEATED, "1e6,100,0.5,10,3.4"), "line 3: tokens is '100'; expected a count of at least 1,000"),
        ((REPEATED, "-1e6,1e8,0.5,10,3.4"), "line 3: params is '-1e6'"),
        ((REPEATED, "1e6,1e8,0.5,inf,3.4"), "line 3: repeats is 'inf'"),
        ((HEADER, HEADER.replace(",", ";")), "columns are separated by ';'; expected a comma"),
        ((HEADER, f"{HEADER},loss"), "column loss appears twice"),
        ((f"\n{CLEAN}\n{REPEATED}", ""), "no runs below the header"),
    ],
)
def test_a_bad_csv_is_rejected_with_its_line_and_column(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    text = "\n".join([HEADER, CLEAN, REPEATED])
    assert change[0] in text
    assert refusal(written(tmp_path, text.replace(*change))).startswith(message)


def test_lines_that_end_in_a_separator_are_read_and_blank_lines_count(tmp_path: Path) -> None:
    points = read_points(written(tmp_path, HEADER, f"{CLEAN},", "", f"{REPEATED},,")).points
    assert points.loss.tolist() == [3.1, 3.4] and points.repeats.tolist() == [1, 10]
    assert refusal(written(tmp_path, HEADER, CLEAN, "", f"{REPEATED},x")).startswith("line 4: 6 cells")


def test_seeds_may_have_the_same_loss_if_another_column_differs(tmp_path: Path) -> None:
    with_seeds = [f"{HEADER},seed", f"{CLEAN},0", f"{CLEAN},1", f"{REPEATED},0", f"{REPEATED},1"]
    assert read_points(written(tmp_path, *with_seeds)).points.loss.tolist() == [3.1, 3.1, 3.4, 3.4]
    assert refusal(written(tmp_path, *with_seeds, f"{CLEAN},1")).startswith("line 6: identical to line 3")


def test_counts_may_have_suffixes_and_separators(tmp_path: Path) -> None:
    points = read_points(
        written(tmp_path, HEADER, "125M,1.5B,0,1,3.1", '"1,500_000",2.5e9,0.1,1k,3.2', "3 k,1T,0,1,5")
    ).points
    assert points.params.tolist() == [125e6, 1.5e6, 3e3] and points.tokens.tolist() == [1.5e9, 2.5e9, 1e12]
    assert points.repeats.tolist() == [1, 1000, 1]


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    path = written(tmp_path, "name,N,D,fraction,R,loss", f"a,{CLEAN}", f"b,{REPEATED}")
    points = read_points(path, parse_columns("params=N, tokens=D,repeats=R")).points
    assert np.array_equal(points.params, [1e6, 1e6]) and np.array_equal(points.repeats, [1, 10])
    assert "missing column params, tokens, repeats; found name, N, D" in refusal(path)
    assert "missing column T" in refusal(path, parse_columns("params=N,tokens=T,repeats=R"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("params", "'params' found; expected pairs such as params=N"),
        ("", "'' found; expected pairs"),
        ("params=N,,tokens=T", "'' found; expected pairs"),
        ("size=N", "unknown column 'size'; expected params, tokens, fraction, repeats, loss, seed, cell, clean_loss"),
        ("params=N,params=M", "'params=M' repeats a column"),
        ("params=N,tokens=N", "'tokens=N' repeats a column"),
    ],
)
def test_a_bad_column_mapping_is_rejected(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_columns(text)


def test_an_endless_file_is_rejected_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.csv_table.MOST_BYTES", 10_000)
    assert "larger than the limit of 10,000 bytes" in refusal(Path("/dev/zero"))
