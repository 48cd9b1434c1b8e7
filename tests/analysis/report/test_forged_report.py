"""Run directories that somebody else made: the report is correct or ends in one line, whatever numbers their records have."""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from analysis.report.build import write_report
from analysis.runs import Runs, load_runs
from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.corpora import StudyTexts
from repeat_study.config.study import Study
from repeat_study.records.completion import checksums
from repeat_study.records.outcome import Outcome
from repeat_study.records.ranges import range_of
from repeat_study.records.run_directory import RunDirectory
from repeat_study.training.trainer import train_bundle

TABLES = ("heads", "paragraph", "test_sequences", "pool_sequences")
NUMBERED = ("step", "tokens", "layer", "head", "copy", "sequence")  # integer columns, whose values the run determines


@pytest.fixture(scope="module")
def trained(study: Study, store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with trained runs, which have every metric and every table."""
    folder = tmp_path_factory.mktemp("trained")
    runs = [run for run in study.runs(StudyTexts(store.fingerprint)) if run.model == "2x16"]
    assert set(train_bundle(runs, store, folder).values()) == {Outcome.DONE}
    return folder


def copied(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target / "tiny"))


def sign(folder: Path) -> None:
    """Write the numbers and the checksums of the edited records to done.json."""
    for path in folder.glob("*/done.json"):
        directory = RunDirectory(path.parent)
        last = json.loads(directory.metrics.read_text().splitlines()[-1])
        final = {key: last[key] for key in ("tokens", "test_loss") if key in last}
        content = json.loads(path.read_text()) | {"steps": last["step"]} | final
        path.write_text(json.dumps(content | checksums(directory.records)))


def edit_rows(path: Path, edit: Callable[[dict[str, Any]], dict[str, Any]], first: int = 0) -> None:
    """Edit the lines of a metrics.jsonl, from line `first` on. A negative number counts from the end."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[first:] = [edit(row) for row in rows[first:]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def edit_columns(path: Path, edit: Callable[[str, list[Any]], list[Any]]) -> None:
    """Edit every column of a Parquet file."""
    table = parquet.ParquetFile(path).read()
    columns = {
        field.name: pa.array(edit(field.name, table[field.name].to_pylist()), field.type) for field in table.schema
    }
    parquet.write_table(pa.table(columns), path)


def message(error: InputError) -> str:
    assert "\n" not in str(error) and len(str(error)) < 600
    return str(error)


def extreme(which: int) -> Callable[[str, Any], Any]:
    """Replace a number by the smallest (0) or the largest (1) that a run can record in its place."""

    def edit(name: str, value: Any) -> Any:
        if name in NUMBERED or isinstance(value, str) or value is None:
            return value
        return [range_of(name)[which]] * len(value) if isinstance(value, list) else range_of(name)[which]

    return edit


def zero(name: str, value: Any) -> Any:
    return value if name in NUMBERED or isinstance(value, str) else [0.0] * len(value) if isinstance(value, list) else 0


def alternating() -> Callable[[str, Any], Any]:
    ends: Iterator[Callable[[str, Any], Any]] = cycle((extreme(0), extreme(1), extreme(0), zero))
    return lambda name, value: next(ends)(name, value)


REPLACEMENTS = {"smallest": extreme(0), "largest": extreme(1), "mixed": alternating()}
EVERY, LAST = 0, -1  # the first edited evaluation


@pytest.mark.slow
@pytest.mark.parametrize(
    ("replacement", "first"), [("largest", EVERY), ("smallest", EVERY), ("mixed", LAST), ("largest", LAST)]
)
def test_any_numbers_in_range_give_a_report(first: int, replacement: str, trained: Path, tmp_path: Path) -> None:
    folder, replace = copied(trained, tmp_path), REPLACEMENTS[replacement]
    for path in folder.glob("*/metrics.jsonl"):
        edit_rows(path, lambda row: {key: replace(key, value) for key, value in row.items()}, first)
    for path in folder.glob("*/*.parquet"):
        edit_columns(path, lambda name, values: [replace(name, value) for value in values])
    sign(folder)
    _, page = write_report(folder)
    assert page.read_text().startswith("<!doctype html>")


@pytest.fixture
def single(trained: Path, tmp_path: Path) -> RunDirectory:
    """A trained run with repeats, alone in its folder."""
    source = next(trained.glob("*-R4-*"))
    return RunDirectory(Path(shutil.copytree(source, tmp_path / "tiny" / source.name)))


def impossible(name: str) -> list[Any]:
    """Numbers that no run records in this place."""
    low, high = range_of(name)
    wrong = [math.inf, -math.inf, 1e308, -1e308, 1e41]
    return [*wrong, *([-1] if low > -1 else []), *([14.0] if high < 14 else [])]


@pytest.mark.slow
def test_every_metric_that_no_run_records_is_refused(single: RunDirectory) -> None:
    """Each number is put into the last evaluation or into every evaluation, as it is or within lists."""
    original, folder = single.metrics.read_bytes(), single.path.parent
    row = json.loads(original.splitlines()[-1])
    edits = [
        (key, value) for key in row.keys() - set(NUMBERED) for value in (*impossible(key), math.nan, 10**41, -(10**41))
    ]
    edits += [("step", value) for value in (-1, 0, 10**9, 2**63, 10**30, 1.5)]
    edits += [("tokens", value) for value in (-1, 0, 1, 10**18, 2**63, 10**30, 0.5)]
    edits += [
        (key, value) for key in row if isinstance(row[key], list) for value in ([], [1.0], [1.0] * 17, [1.0, None])
    ]
    for place, (key, value) in enumerate(edits):
        bad = [*row[key][:-1], value] if isinstance(row[key], list) and not isinstance(value, list) else value
        single.metrics.write_bytes(original)
        edit_rows(single.metrics, lambda edited, key=key, bad=bad: edited | {key: bad}, (EVERY, LAST)[place % 2])  # type: ignore[misc]
        sign(folder)
        with pytest.raises(InputError, match=r"(metrics\.jsonl|done\.json): ") as caught:
            load_runs(folder)  # the report begins with this
        message(caught.value)


Lines = list[bytes]
ORDERS: dict[str, Callable[[Lines], Lines]] = {
    "reversed": lambda lines: [*lines[-2::-1], lines[-1]],
    "twice": lambda lines: [*lines[:-1], lines[-2], lines[-1]],
    "swapped": lambda lines: [lines[1], lines[0], *lines[2:]],
}


@pytest.mark.parametrize("order", ORDERS)
def test_evaluations_in_a_wrong_order_are_refused(order: str, single: RunDirectory) -> None:
    single.metrics.write_bytes(b"".join(ORDERS[order](single.metrics.read_bytes().splitlines(keepends=True))))
    sign(single.path.parent)
    with pytest.raises(InputError, match=r"metrics\.jsonl: rows out of order or repeated"):
        write_report(single.path.parent)


def assert_refused(runs: Runs, which: str, table: pa.Table) -> None:
    (name,) = runs.table.name
    parquet.write_table(table, runs.folder / name / f"{which}.parquet")
    with pytest.raises(InputError, match=rf"{which}\.parquet") as caught:
        getattr(runs, which)(name)
    message(caught.value)


@pytest.mark.parametrize("which", TABLES)
def test_every_column_with_a_number_that_no_run_records_is_refused(which: str, single: RunDirectory) -> None:
    table = parquet.ParquetFile(single.path / f"{which}.parquet").read()
    runs = load_runs(single.path.parent)
    getattr(runs, which)(runs.table.name[0])
    for name in table.column_names:
        place, kind = table.column_names.index(name), table.schema.field(name).type
        values = table[name].to_pylist()
        if name in NUMBERED:
            wrong: list[Any] = [-1, 10**9, 2**62, None]
        elif name == "token":
            wrong = [None, "<script>alert(1)</script>"]  # differs from the token in the other copies
        else:
            wrong = impossible(name)
        for value in wrong:
            for edited in ([*values[:-1], value], [value] * len(values)):
                if name != "token" or value is None or edited[0] != value:
                    column = pa.array(edited, kind, from_pandas=False)
                    assert_refused(runs, which, table.set_column(place, name, column))


@pytest.mark.parametrize("which", TABLES)
def test_rows_that_no_run_records_are_refused(which: str, single: RunDirectory) -> None:
    table = parquet.ParquetFile(single.path / f"{which}.parquet").read()
    steps = table["step"].to_pylist()
    rows, runs = steps.count(0), load_runs(single.path.parent)
    assert_refused(runs, which, table.take(list(range(len(table)))[::-1]))
    assert_refused(runs, which, pa.concat_tables([table, table]))
    assert_refused(runs, which, table.slice(0, len(table) - 1))
    assert_refused(runs, which, pa.concat_tables([table.slice(rows), table.slice(0, rows)]))
    assert_refused(runs, which, table.slice(0, 0))
    assert_refused(runs, which, table.slice(rows))


@pytest.mark.slow
def test_the_report_refuses_an_edited_table(single: RunDirectory) -> None:
    edit_columns(single.heads, lambda name, values: [1e308] * len(values) if name == "prefix_matching" else values)
    sign(single.path.parent)
    with pytest.raises(InputError, match=r"heads\.parquet: prefix_matching: 1e\+308 found; expected 0 to 1") as caught:
        write_report(single.path.parent)
    message(caught.value)


def test_pool_sequences_that_no_figure_reads_are_checked_too(trained: Path, tmp_path: Path) -> None:
    """Retention needs a repeated run and a clean run with the same seed, but this study has only one run."""
    folder = tmp_path / "tiny"
    single = RunDirectory(Path(shutil.copytree(path := next(trained.glob("*-clean-*")), folder / path.name)))
    edit_columns(single.pool_sequences, lambda name, values: [-5.0] * len(values) if name == "loss" else values)
    sign(folder)
    with pytest.raises(InputError, match=r"pool_sequences\.parquet: loss: -5 found; expected -0.001 to 1e\+40"):
        load_runs(folder)


@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize(
    "key", ["train_seconds", "evaluation_seconds", "saving_seconds", "tokens_per_second", "utilisation", "memory_bytes"]
)
def test_times_and_speeds_that_no_run_records_are_refused(key: str, place: int, single: RunDirectory) -> None:
    original = single.timing.read_text().splitlines()
    for value in (-1, 1e41, 10**41, "fast", [1], {}):
        lines = list(original)
        lines[place] = json.dumps(json.loads(lines[place]) | {key: value})
        single.timing.write_text("\n".join(lines) + "\n")
        sign(single.path.parent)
        with pytest.raises(InputError, match=rf"timing\.jsonl: malformed line \({key}") as caught:
            load_runs(single.path.parent)
        message(caught.value)
