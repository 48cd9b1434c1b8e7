"""Several processes say what one says: the same bytes, the same errors."""

import os
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from written_runs import write_run

from analysis.report import build as report
from analysis.report.fork_pool import side_by_side
from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run


def written(folder: Path) -> dict[str, bytes]:
    """All that a report writes but the date of its pictures in TensorBoard."""
    files = [*folder.glob("*.html"), *folder.glob("figures/*.*"), *folder.glob("tables/*")]
    return {path.name: path.read_bytes() for path in files if "tfevents" not in path.name}


@pytest.fixture
def study_folder(tmp_path: Path, runs: list[Run], store: TokenStore) -> Path:
    folder = tmp_path / "study"
    for model, end in (("2x32", 4.0), ("2x64", 3.5), ("2x128", 3.2)):
        write_run(folder, runs[0], store, [5.0, 4.5, end], model=model, repeats=1)
        for repeats in (2, 4):
            fields = {"model": model, "repeats": repeats, "repeated_fraction": 0.5}
            write_run(folder, runs[0], store, [5.0, 4.5, end + 0.1 * repeats], **fields)
    return folder


def test_several_processes_write_the_bytes_of_one(study_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "FEWEST_TO_SHARE", 0)
    found = []
    for count in (1, 3):
        monkeypatch.setattr(report, "processes", lambda count=count: count)
        report.write_report(study_folder)
        found.append(written(study_folder))
        for part in ("figures", "tables"):
            shutil.rmtree(study_folder / part)
    assert found[0] == found[1] and len(found[0]) > 30


def test_an_error_in_another_process_comes_out_as_it_is(
    study_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"

    def fails(runs: object) -> None:
        with seen.open("a") as file:
            file.write(f"{os.getpid()}\n")
        raise InputError("disk: cannot be written")

    def waits(runs: object) -> None:
        while not seen.exists():
            time.sleep(0.01)

    monkeypatch.setattr(report, "FEWEST_TO_SHARE", 0)
    monkeypatch.setattr(report, "processes", lambda: 2)
    monkeypatch.setattr(report, "FIGURES", (fails,))
    monkeypatch.setattr(report, "PARTS", (waits,))  # in this process, which leaves the figure to the other one
    with pytest.raises(InputError, match=r"^disk: cannot be written$"):
        report.write_report(study_folder)
    first, again = seen.read_text().split()
    assert first != again == str(os.getpid())


def test_results_are_in_order_and_of_several_processes() -> None:
    def pid() -> int:
        time.sleep(0.1)
        return os.getpid()

    found = side_by_side([pid] * 8, [2, 5], 3)
    assert found[2] == found[5] == os.getpid() and len(set(found)) == 3
    places = [partial(int, place) for place in range(300)]
    assert side_by_side(places, [299], 4) == list(range(300))


def test_what_a_killed_process_took_with_it_is_done_again() -> None:
    here = os.getpid()

    def is_killed() -> int:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return here

    assert side_by_side([partial(time.sleep, 0.5), is_killed], [0], 2) == [None, here]


def test_an_interrupt_leaves_no_process_behind(tmp_path: Path) -> None:
    def sleeps() -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        time.sleep(60)

    def interrupts() -> None:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        side_by_side([interrupts, sleeps], [0], 2)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
