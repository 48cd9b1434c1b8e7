"""Several processes write the same bytes and raise the same errors as a single process."""

import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from written_runs import write_run

from analysis.figures import learning_curves
from analysis.report import collect
from analysis.report.build import write_report
from analysis.report.workers import run_tasks
from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run
from tests.waiting import wait_until


def report_files(folder: Path) -> dict[str, bytes]:
    """The content of all files of a report, except TensorBoard events, which contain dates."""
    files = [*folder.glob("*.html"), *folder.glob("figures/[a-z]*.*"), *folder.glob("tables/*")]
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


@pytest.mark.slow
def test_several_processes_write_the_same_bytes_as_one(study_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "FEWEST_RUNS_FOR_WORKERS", 0)
    monkeypatch.setattr(collect, "FIGURES", collect.FIGURES[:6])
    reports = []
    for count in (1, 3):
        monkeypatch.setattr(collect, "process_count", lambda count=count: count)
        write_report(study_folder)
        reports.append(report_files(study_folder))
        for subfolder in ("figures", "tables"):
            shutil.rmtree(study_folder / subfolder)
    assert reports[0] == reports[1] and len(reports[0]) > 20


def test_an_error_in_a_worker_is_raised_unchanged(
    study_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "pid"

    def fail(runs: object) -> None:
        with pid.open("a") as file:
            file.write(f"{os.getpid()}\n")
        raise InputError("disk: cannot be written")

    def wait_for_worker(runs: object) -> None:
        wait_until(pid.exists)

    monkeypatch.setattr(collect, "FEWEST_RUNS_FOR_WORKERS", 0)
    monkeypatch.setattr(collect, "process_count", lambda: 2)
    monkeypatch.setattr(learning_curves, "plot", fail)
    monkeypatch.setattr(collect, "FIGURES", ("learning_curves",))
    monkeypatch.setattr(
        collect, "SECTIONS", (wait_for_worker,)
    )  # keeps this process busy, so the worker plots the figure
    with pytest.raises(InputError, match=r"^disk: cannot be written$"):
        write_report(study_folder)
    assert pid.read_text().split() != [str(os.getpid())], "the figure was plotted in another process"


def test_results_of_several_processes_are_in_order(tmp_path: Path) -> None:
    def pid() -> int:
        (tmp_path / str(os.getpid())).touch()
        wait_until(lambda: len(list(tmp_path.iterdir())) == 3)
        return os.getpid()

    pids = run_tasks([pid] * 8, [2, 5], 3)
    assert pids[2] == pids[5] == os.getpid() and len(set(pids)) == 3
    tasks = [partial(int, index) for index in range(300)]
    assert run_tasks(tasks, [299], 4) == list(range(300))


def test_the_tasks_of_a_killed_worker_run_in_this_process() -> None:
    parent = os.getpid()

    def kill_worker() -> int:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return parent

    assert run_tasks([partial(time.sleep, 0.5), kill_worker], [0], 2) == [None, parent]


def test_an_interrupt_leaves_no_process_behind(tmp_path: Path) -> None:
    def sleep() -> None:
        (tmp_path / "pid").write_text(str(os.getpid()))
        time.sleep(600)

    def interrupt() -> None:
        wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tasks([interrupt, sleep], [0], 2)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = f"""
import os, time
from pathlib import Path
from analysis.report.workers import run_tasks
def sleep(): Path({str(pid)!r}).write_text(str(os.getpid())); time.sleep(600)
run_tasks([lambda: time.sleep(600), sleep], [0], 2)
"""
    report = subprocess.Popen([sys.executable, "-c", code])
    wait_until(lambda: pid.exists() and pid.read_text() != "")
    report.kill()
    report.wait()
    wait_until(lambda: not is_alive(int(pid.read_text())))


def is_alive(pid: int) -> bool:
    """Whether a process is running. A zombie, which only waits for its parent, does not count."""
    status = Path(f"/proc/{pid}/status")
    try:
        return "\nState:\tZ" not in status.read_text()
    except OSError:
        return False
