"""Progress of long computations goes to standard error, so that standard output contains only results."""

import sys
from pathlib import Path

import pytest

from repeat_study_cli import progress
from tests.repeat_study_cli.conftest import on_a_terminal


def test_a_pipe_gets_a_line_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.show_progress() as report:
        for second in range(12):
            now = float(second)
            report("fitting partial", second / 12)
    output = capsys.readouterr()
    assert output.out == "" and output.err == "fitting partial: 42%\nfitting partial: 83%\n"


def test_a_stage_of_unknown_length_has_no_percentage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_PER_LINE", 0.0)
    with progress.show_progress() as report:
        report("probing m0; attention heads", None)
    assert capsys.readouterr().err == "probing m0; attention heads\n"


def test_a_terminal_gets_a_bar(tmp_path: Path) -> None:
    code = (
        "import time\nfrom repeat_study_cli.progress import show_progress\n"
        "with show_progress() as report:\n    report('fitting partial', 0.5)\n    time.sleep(0.5)"
    )
    status, output = on_a_terminal([sys.executable, "-c", code], tmp_path)
    assert status == 0 and "fitting partial" in output and "━" in output and "50%" in output
