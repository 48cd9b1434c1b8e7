"""The GPU check's time limits: a part that hangs, crashes or starts processes of its own does not affect the others."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from benchmarks import gpu_check
from benchmarks.gpu_check import Outcome, Part, as_markdown, earlier_outcomes, parts_of, run_parts


def python(name: str, code: str, limit: float = 60, skipped: str = "") -> Part:
    return Part(name, [sys.executable, "-c", code], limit, skipped=skipped)


def test_no_part_affects_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "GRACE", 1.0)
    monkeypatch.setattr(gpu_check, "MIN_SECONDS", 1.0)
    hanging = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('{\"a\": 1}', flush=True);"
        f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600) # {tmp_path}']); time.sleep(600)"
    )
    parts = [
        python("crash", "import os; os.abort()"),
        python("hang", hanging, limit=15),
        python("error", "raise SystemExit(3)"),
        python("absent", "", skipped="no such device"),
        python("works", "print('{\"b\": 2}'); print('{not json')"),
    ]
    start = time.monotonic()
    outcomes = run_parts(parts, 5.0, tmp_path)
    assert time.monotonic() - start < 200
    assert [outcome.state for outcome in outcomes] == [
        "failed (exit status -6)",
        "stopped at its limit",
        "failed (exit status 3)",
        "skipped: no such device",
        "ok",
    ]
    assert outcomes[1].result == {"a": 1}, "what it had measured by then"
    assert outcomes[4].result == {"b": 2}
    record = json.loads((tmp_path / "results.json").read_text())
    assert [part["name"] for part in record["parts"]] == [part.name for part in parts]
    assert not [process for process in psutil.process_iter() if str(tmp_path) in " ".join(_command(process))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return [str(word) for word in process.cmdline()]
    except psutil.Error:
        return []


def test_the_check_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "GRACE", 0.5)
    monkeypatch.setattr(gpu_check, "MIN_SECONDS", 1.0)
    start = time.monotonic()
    outcomes = run_parts(
        [python(f"part {number}", "import time; time.sleep(600)") for number in range(3)], 0.05, tmp_path
    )
    assert time.monotonic() - start < 200
    assert outcomes[0].state == "stopped at its limit"
    assert outcomes[2].state == "skipped: no time left"
    assert "| part 2 | skipped: no time left | 0 |" in (tmp_path / "results.md").read_text()


def test_goals_are_compared_with_what_was_measured() -> None:
    row = {"share_of_peak": 0.1, "bytes_per_lane": None, "tokens_per_second": 9, "runs_per_hour": 1.0, "model": "2L"}
    rows = [row | {"how": "1 lanes", "over_one_lane": 1.0}, row | {"how": "16 lanes", "over_one_lane": 4.5}]
    rows.append(row | {"how": "8 processes", "over_one_lane": 9.0})
    outcomes = [
        Outcome("lanes 2L", "ok", result={"rows": rows}),
        Outcome("training", "ok", result={"ratios": {"8L ours / nanoGPT": 1.1}}),
    ]
    text = as_markdown(outcomes)
    assert "2L): lanes relative to one run at a time | 4 | 4.50 | reached |" in text
    assert "relative to nanoGPT | 1.2 | 1.10 | missed |" in text
    assert "2x32: lanes relative to one run at a time | 8 | not measured |  |" in text


def test_a_machine_without_text_skips_the_study_and_says_how(tmp_path: Path) -> None:
    skipped = {part.name: part.skipped for part in parts_of("cuda", tmp_path, None, None)}
    assert "--corpus" in skipped["study"] and "--corpus" in skipped["report"]
    skipped = {part.name: part.skipped for part in parts_of("cuda", tmp_path, None, tmp_path)}
    assert not skipped["study"] and not skipped["report"]


def test_parts_that_run_again_replace_only_their_own_results(tmp_path: Path) -> None:
    run_parts([python("first", "print('{\"a\": 1}')"), python("second", "raise SystemExit(3)")], 1.0, tmp_path)
    run_parts([python("second", "print('{\"b\": 2}')")], 1.0, tmp_path, earlier_outcomes(tmp_path))
    outcomes = earlier_outcomes(tmp_path)
    assert [(outcome.name, outcome.state, outcome.result) for outcome in outcomes] == [
        ("first", "ok", {"a": 1}),
        ("second", "ok", {"b": 2}),
    ]


def test_earlier_parts_leave_the_time_that_later_ones_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "GRACE", 0.5)
    reserving = replace(python("report", "print('{\"b\": 2}')", limit=600), reserved=20)
    outcomes = run_parts([python("study", "import time; time.sleep(600)", limit=600), reserving], 0.5, tmp_path)
    assert [outcome.state for outcome in outcomes] == ["stopped at its limit", "ok"]
    assert outcomes[0].limit <= 10 < 18 < outcomes[1].limit


def test_parts_find_the_repository_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    imported = python(
        "imports", "import benchmarks.bundles, os; print('{\"path\": \"' + os.environ['PYTHONPATH'] + '\"}')"
    )
    [outcome] = run_parts([imported], 1.0, tmp_path / "out")
    assert outcome.state == "ok" and outcome.result["path"].endswith(f":{tmp_path}")


def test_eight_minutes_are_enough_for_the_parts_with_goals_and_a_beginning_of_the_study(tmp_path: Path) -> None:
    parts = parts_of("cuda", tmp_path, tmp_path, tmp_path)
    names = [part.name for part in parts]
    assert names.index("machine") < names.index("tests") < names.index("lanes 2x32") < names.index("training")
    with_goals = parts[: names.index("training") + 1]
    assert sum(part.limit for part in with_goals) + sum(part.reserved for part in parts) <= 8 * 60
    assert parts[names.index("lanes 2L")] == parts[len(with_goals)], "the other part with a goal is next"


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"minutes": 1}',
        '{"parts": [{"name": "x"}]}',
        '{"parts": [{"name": "x", "state": "ok", "result": []}]}',
    ],
)
def test_damaged_results_are_kept_under_another_name(content: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(content)
    assert earlier_outcomes(tmp_path) == []
    assert (tmp_path / "results.json.damaged").read_text() == content


@pytest.mark.parametrize("option", ["--corpus", "--nanogpt"])
def test_a_missing_input_is_refused_before_anything_runs(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_check", option, str(tmp_path / "missing"), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="2"):
        gpu_check.main()
    assert f"{option}: " in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_corpus_may_have_any_name(tmp_path: Path) -> None:
    settings = gpu_check.study_settings("cuda", tmp_path / 'a"b\\c.jsonl')
    [paths] = [setting for setting in settings if setting.startswith("data.source.paths=")]
    assert json.loads(paths.partition("=")[2]) == [str(tmp_path / 'a"b\\c.jsonl')]
