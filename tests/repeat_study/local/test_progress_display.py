"""The progress display while runs train, and the summary when they have ended."""

import io

import pytest
from rich.console import Console

from repeat_study.config.run import Run
from repeat_study.local import progress
from repeat_study.local.progress import ProgressDisplay, duration, join_fitting, shorten_middle, summary_lines
from repeat_study.local.scheduler import Restarted, Started
from repeat_study.records.outcome import Ended, Outcome, Progress


def test_piped_lines_name_every_run_and_have_no_trailing_comma(
    runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    output, run = io.StringIO(), runs[0]
    with ProgressDisplay(runs, Console(file=output, width=200)) as display:
        display(Started((run.name, runs[1].name), new_process=True))
        display(Progress(run.name, 1, 64, 5.0, tokens_per_second=2.0, seconds_left=100_000.0))
        display(Restarted(run.name, "process killed by SIGKILL"))
        display(Started((run.name,), new_process=True))
        display(Progress(run.name, 32, 64, 4.0, resumed=True))
        display(Progress(run.name, 48, 64, 4.0, tokens_per_second=900.0, seconds_left=60.0))
        display(Ended(run.name, Outcome.FAILED, "Diverged: test_loss is nan"))
    lines = output.getvalue().splitlines()
    assert lines[0] == f"starting {run.label}, {runs[1].label}"
    assert f"{run.label}: process killed by SIGKILL; restarting from its last checkpoint" in lines
    assert f"{run.label}: resumed at step 32 of 64" in lines
    assert f"[1/{len(runs)}] {run.label}: failed: Diverged: test_loss is nan" in lines
    totals = [line for line in lines if "of the training done" in line]
    assert totals and all(f" of {len(runs)} runs ended" in line and not line.endswith(",") for line in totals)
    assert not any(" left" in line for line in totals[:5]), "no estimate before a tenth of a run is complete"
    assert "left" in totals[5]


def test_bars_fit_80_columns_without_cutting_labels_or_numbers(runs: list[Run]) -> None:
    output = io.StringIO()
    long = runs[0].model_copy(update={"seed": 123})
    with ProgressDisplay([long], Console(file=output, width=80, force_terminal=True, color_system=None)) as display:
        display(Started((long.name,), new_process=True))
        assert [task.fields["note"] for task in display.bars.tasks] == ["", "starting"]
        display(Progress(long.name, 48, 64, 4.125, tokens_per_second=12_345.6, seconds_left=754.0))
    (frame,) = [line for line in output.getvalue().splitlines() if "step 48/64" in line][-1:]
    assert long.label in frame and len(frame.rstrip()) <= 80 and "…" not in frame
    for text in frame.split("  "):
        assert text.strip() in ("", long.label) or any(
            word in text for word in ("━", "%", "step", "loss", "left", "tok")
        )


def test_the_summary_counts_outcomes_and_names_the_lowest_and_highest_loss(runs: list[Run]) -> None:
    outcomes = [Outcome.DONE, Outcome.DONE, Outcome.FAILED]
    ended = {run.name: Ended(run.name, outcome) for run, outcome in zip(runs, outcomes, strict=False)}
    losses = {runs[0].name: 3.25, runs[1].name: 3.5}
    assert summary_lines(runs[:3], ended, losses, 754.0) == [
        "3 runs: 2 done, 1 failed; took 13 min",
        f"final test loss in nats per token: 3.250 ({runs[0].label}) to 3.500 ({runs[1].label})",
    ]
    assert summary_lines(runs[:1], {runs[0].name: Ended(runs[0].name, Outcome.FAILED)}, {}, 3.0) == [
        "1 run: 1 failed; took 3 s"
    ]


def test_labels_are_shortened_in_the_middle_and_notes_by_leaving_out_parts() -> None:
    assert shorten_middle("2x64-R16-s3", 11) == "2x64-R16-s3"
    short = shorten_middle("4x256-from-laptop-clean-f0.5-R1024-s12", 20)
    assert len(short) == 20 and short.startswith("4x256") and short.endswith("R1024-s12")
    assert join_fitting(["step 1/2", "test loss 3.1", "5 s left"], 23) == "step 1/2  test loss 3.1"
    assert [duration(seconds) for seconds in (3.2, 59.7, 754.0, 12_000.0)] == ["3 s", "1 min", "13 min", "3 h 20 min"]
