"""The commands as a user calls them, from plan to report."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from repeat_study_cli import COMMANDS, arguments, load_command
from tests.command import call
from tests.repeat_study_cli.conftest import Invoke, on_a_terminal


@pytest.mark.slow
def test_a_study_from_plan_to_report(workplace: Path, trained: Path, invoke: Invoke) -> None:
    plan = invoke("plan", "tiny", cwd=workplace)
    assert plan.returncode == 0 and "tiny: 2 runs" in plan.stdout and "50.000%" in plan.stdout
    assert not (workplace / "runs").exists()
    before = invoke("status", "tiny", cwd=workplace)
    assert "2 pending" in before.stdout
    again = invoke("run", "tiny", cwd=trained)
    assert "2 runs, all done" in again.stdout
    status = invoke("status", "studies/tiny.toml", cwd=trained)
    assert "2 done" in status.stdout and "64/64" in status.stdout
    folder = next((trained / "runs/tiny").glob("*clean*"))
    probe = invoke("probe", folder, "--json", "probed.json", cwd=trained)
    assert probe.returncode == 0 and "4 copies of 6 paragraphs, 8 tokens each" in probe.stdout, probe.stderr
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    written = json.loads((trained / "probed.json").read_text())
    numbers = {key: value for key, value in last.items() if key in written["row"]}
    assert written["row"] == numbers, "the run's own last evaluation"
    report = invoke("report", "tiny", cwd=trained)
    assert report.returncode == 0 and "report: runs/tiny/report.html" in report.stdout
    assert (trained / "runs/tiny/report.html").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("preloaded_workers")
def test_one_command_trains_parents_and_children_and_the_report_includes_both(with_child: Path, invoke: Invoke) -> None:
    few = ("--set", "grid.0.parent=['scratch', 'clean', 'worst']")
    plan = invoke("plan", "child", *few, cwd=with_child)
    assert plan.returncode == 0 and "1x16-from-f0.5-worst-s0" in plan.stdout, plan.stderr
    unknown = invoke("sweep", "child", "--cluster", "debug", *few, "--set", "parent.grid.0.repeats=1", cwd=with_child)
    assert (
        unknown.returncode == 2
        and "worst matches no run in tiny with model 1x16; available: 1x16-clean-s0" in unknown.stderr
    )
    run = invoke("run", "child", *few, cwd=with_child)
    assert run.returncode == 0 and "training 2 runs in tiny first" in run.stdout, run.stderr
    assert run.stdout.count(": done\n") == 5 and run.stdout.index("1x16-f0.5-R4-s0") < run.stdout.index("from-f0.5-R4")
    again = invoke("run", "child", *few, cwd=with_child)
    assert "first" not in again.stdout and "3 runs, all done" in again.stdout
    assert "3 done" in invoke("status", "child", *few, cwd=with_child).stdout
    report = invoke("report", "child", *few, cwd=with_child)
    assert report.returncode == 0 and "parent with f = 50%" in report.stdout, report.stderr
    page = (with_child / "runs/child/report.html").read_text()
    assert "Clean parent: " in page and "Not yet" not in page
    assert invoke("report", "tiny", cwd=with_child).returncode == 0
    (with_child / "runs" / "tiny").rename(with_child / "runs" / "away")
    orphans = invoke("report", "child", *few, cwd=with_child)
    assert (
        orphans.returncode == 2
        and "runs/tiny: no runs of study tiny here; the runs of child start from them" in orphans.stderr
    )


def test_the_data_of_a_study_can_be_inspected(workplace: Path, invoke: Invoke) -> None:
    inspected = invoke("inspect", "tiny", cwd=workplace)
    assert inspected.returncode == 0, inspected.stderr
    assert (
        "fingerprint" in inspected.stdout
        and "training windows of 50 tokens that occur more than once: " in inspected.stdout
    )
    output = invoke("provenance", "tiny", "1x16-f0.5-R4-s0", "--step", "3", "--text", cwd=workplace)
    assert output.returncode == 0, output.stderr
    assert output.stdout.count("--- position") == 8
    assert "of 4" in output.stdout and ".py" in output.stdout


@pytest.mark.slow
def test_a_report_needs_only_the_run_directories(workplace: Path, invoke: Invoke) -> None:
    run = call("run", "tiny", "--set", "grid.0.repeats=1", cwd=workplace)
    assert run.returncode == 0 and "[1/1]" in run.stdout and "next: repeat-study report tiny" in run.stdout
    (workplace / "data").unlink()
    means = list((workplace / "runs/tiny/arms").rglob("events.*"))
    assert [path.parent.name for path in means] == ["1x16-clean"], "`run` has written the mean over seeds"
    report = invoke("report", "tiny", cwd=workplace)
    assert report.returncode == 0, report.stderr
    assert list((workplace / "runs/tiny/arms").rglob("events.*")) == means, "nothing is written twice"
    assert "repeat-study run tiny\nrepeat-study report tiny</code>" in (workplace / "runs/tiny/report.html").read_text()
    assert "Not yet started: 1x16-f0.5-R4-s0" in (workplace / "runs/tiny/report.html").read_text()


def test_status_before_prepare_lists_labels_and_says_that_names_are_not_final(workplace: Path, invoke: Invoke) -> None:
    output = invoke("status", "tiny", "--data-dir", "elsewhere", cwd=workplace)
    assert output.returncode == 0 and "not prepared yet: elsewhere/files-" in output.stdout
    assert "They get their final names when the data is prepared." in " ".join(output.stdout.split())
    assert "\n1x16-f0.5-R4-s0  pending" in output.stdout and "2 pending" in output.stdout
    record = json.loads(invoke("status", "tiny", "--data-dir", "elsewhere", "--json", cwd=workplace).stdout)
    assert not record["prepared"] and [run["label"] for run in record["runs"]] == ["1x16-clean-s0", "1x16-f0.5-R4-s0"]
    assert {run["name"] for run in record["runs"]} == {None}


def test_status_without_the_token_store_reads_the_run_directories(trained: Path, invoke: Invoke) -> None:
    output = invoke("status", "tiny", "--data-dir", "elsewhere", cwd=trained)
    assert "token store not found: elsewhere/files-" in output.stdout and "2 done" in output.stdout


def test_status_as_json_has_every_number_with_its_unit(trained: Path, invoke: Invoke) -> None:
    record = json.loads(invoke("status", "tiny", "--json", cwd=trained).stdout)
    assert record["study"] == "tiny" and record["prepared"] and record["counts"] == {"done": 2}
    clean, repeated = record["runs"]
    assert clean["label"] == "1x16-clean-s0" and clean["name"].startswith("1x16-clean-s0-")
    assert (trained / clean["folder"] / "spec.json").is_file()
    assert repeated["repeats"] == 4 and repeated["repeated_fraction"] == 0.5 and repeated["seed"] == 0
    assert (repeated["exact_repeated_fraction"], repeated["hold_fixed"]) == (0.5, "total")
    assert repeated["pool_tokens"] == 64 * 8 * 32 // 2 // 4
    assert repeated["step"] == repeated["steps"] == 64 and repeated["tokens"] == 64 * 8 * 32
    done = json.loads((trained / repeated["folder"] / "done.json").read_text())
    assert repeated["test_loss_nats"] == done["test_loss"]
    assert repeated["tokens_per_second"] > 0 and repeated["memory_bytes"] > 0 and 0 < repeated["evaluation_share"] < 1
    both = invoke("status", "tiny", "--json", "--watch", cwd=trained)
    assert both.returncode == 2 and "--json and --watch: give only one of them" in both.stderr


def test_a_run_is_selected_by_label_name_or_folder(trained: Path, invoke: Invoke) -> None:
    folder = next((trained / "runs/tiny").glob("*R4*"))
    named = ["1x16-f0.5-R4-s0", folder.name, folder, f"runs/tiny/{folder.name}", f"runs/tiny/{folder.name}/"]
    output = {invoke("provenance", "tiny", run, "--step", 3, cwd=trained).stdout for run in named}
    assert len(output) == 1 and "1x16-f0.5-R4-s0, step 3" in output.pop()
    for run in named[:3]:
        probed = invoke("probe", "tiny", run, cwd=trained)
        assert probed.returncode == 0 and f"{folder.name}, step 64 of 64" in probed.stdout
    for run in named:
        cancelled = invoke("cancel", "tiny", run, cwd=trained)
        assert "no run in study" not in cancelled.stderr
    other = invoke("provenance", "tiny", f"runs/other/{folder.name}", "--step", 3, cwd=trained)
    assert other.returncode == 2 and "no run in study 'tiny' has this label, name or folder" in other.stderr


def test_weights_that_were_not_kept_are_reported_as_missing(trained: Path, invoke: Invoke) -> None:
    again = invoke("run", "tiny", "--keep-checkpoints", "all", cwd=trained)
    (line,) = [line for line in again.stdout.splitlines() if "keep-checkpoints" in line]
    assert (
        "2 runs finished without keeping intermediate weights" in line
        and "delete their folders to train them again" in line
    )
    assert "keep-checkpoints" not in invoke("run", "tiny", cwd=trained).stdout


def test_a_plan_includes_startup_and_evaluation_in_its_time(workplace: Path, invoke: Invoke) -> None:
    plan = invoke("plan", "tiny", "--processes", 1, cwd=workplace).stdout
    (total,) = [line for line in plan.splitlines() if line.startswith("total")]
    seconds = int(total.split("or about ")[1].split(" s on")[0])
    assert 8 < seconds < 30 and "estimated, including startup and evaluation" in total


COMMANDS_THAT_PRINT = [
    ("plan", "tiny"),
    ("plan", "hernandez2022"),
    ("status", "tiny"),
    ("status", "hernandez2022"),
    ("inspect", "tiny"),
    ("provenance", "tiny", "1x16-f0.5-R4-s0", "--step", "3"),
    ("probe", "tiny", "1x16-f0.5-R4-s0"),
    ("report", "tiny"),
    ("predict", "--params", "800M", "--tokens", "100B", "--fraction", "0.1", "--repeats", "100"),
]


@pytest.mark.parametrize("command", COMMANDS_THAT_PRINT, ids=" ".join)
def test_nothing_is_cut_at_80_columns(
    trained: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    wide = invoke(*command, cwd=trained)
    monkeypatch.setattr(arguments.console, "width", 80)
    narrow = invoke(*command, cwd=trained)
    assert narrow.returncode == 0, narrow.stderr
    assert "…" not in wide.stdout + narrow.stdout
    assert max(map(len, narrow.stdout.splitlines())) <= 80
    first_words = {line.split()[0] for line in wide.stdout.splitlines() if line.strip() and command[0] != "status"}
    assert first_words <= set(narrow.stdout.split()), "names are not split"


def test_no_cell_is_cut_on_a_terminal_of_80_columns(trained: Path) -> None:
    code, output = on_a_terminal([sys.executable, "-m", "repeat_study_cli", "status", "tiny"], trained)
    assert code == 0 and "1x16-f0.5-R4-s0" in output and "64/64" in output and "…" not in output


def test_the_help_of_a_command_starts_with_its_line_in_the_list_of_commands() -> None:
    for name, line in COMMANDS.items():
        assert load_command(name).help.split("\n\n")[0] == line, name


def test_quick_commands_import_nothing_slow(workplace: Path) -> None:
    slow = ("torch", "lightning", "pandas", "scipy", "matplotlib", "submitit", "datasets", "tensorboard")
    code = (
        "import sys, repeat_study_cli\n"
        "try: repeat_study_cli.main()\n"
        "finally: print([name for name in {slow} if name in sys.modules], file=sys.stderr)"
    ).replace("{slow}", str(slow))
    for command in (["--help"], ["plan", "tiny"], ["status", "tiny"], list(COMMANDS_THAT_PRINT[-1])):
        ended = subprocess.run([sys.executable, "-c", code, *command], cwd=workplace, capture_output=True, text=True)
        assert ended.returncode == 0 and ended.stderr.strip() == "[]", (command, ended.stderr)
