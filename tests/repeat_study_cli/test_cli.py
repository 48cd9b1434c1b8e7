"""The command as a user meets it: real processes, exit codes, one line for bad input."""

import json
from pathlib import Path

import pytest

from tests.command import call


def test_a_study_from_plan_to_report(workplace: Path) -> None:
    plan = call("plan", "tiny", cwd=workplace)
    assert plan.returncode == 0 and "tiny: 2 runs" in plan.stdout and "50.000%" in plan.stdout
    assert not (workplace / "runs").exists()
    before = call("status", "tiny", cwd=workplace)
    assert "2 pending" in before.stdout
    run = call("run", "tiny", "--processes", "2", cwd=workplace)
    assert run.returncode == 0, run.stderr
    assert "[2/2]" in run.stdout
    again = call("run", "tiny", cwd=workplace)
    assert again.stdout.count("already done") == 2
    status = call("status", "studies/tiny.toml", cwd=workplace)
    assert "2 done" in status.stdout and "64/64" in status.stdout
    folder = next((workplace / "runs/tiny").glob("*clean*"))
    probe = call("probe", folder, "--json", "probed.json", cwd=workplace)
    assert probe.returncode == 0 and "4 copies of 6 paragraphs, 8 tokens each" in probe.stdout, probe.stderr
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    written = json.loads((workplace / "probed.json").read_text())
    numbers = {key: value for key, value in last.items() if key in written["row"]}
    assert written["row"] == numbers, "the run's own last evaluation"
    report = call("report", "tiny", cwd=workplace)
    assert report.returncode == 0 and "report: runs/tiny/report.html" in report.stdout
    assert (workplace / "runs/tiny/report.html").exists()


def test_one_command_trains_parents_and_children_and_says_what_came_of_it(with_child: Path) -> None:
    few = ("--set", "grid.0.parent=['scratch', 'clean', 'worst']")
    plan = call("plan", "child", *few, cwd=with_child)
    assert plan.returncode == 0 and "1x16-from-f0.5-worst-s0" in plan.stdout, plan.stderr
    unknown = call("sweep", "child", "--cluster", "debug", *few, "--set", "parent.grid.0.repeats=1", cwd=with_child)
    assert (
        unknown.returncode == 2
        and "worst matches no run of tiny with model 1x16; there are 1x16-clean-s0" in unknown.stderr
    )
    run = call("run", "child", *few, cwd=with_child)
    assert run.returncode == 0 and "2 runs of tiny are trained first" in run.stdout, run.stderr
    assert run.stdout.count("done") == 5 and run.stdout.index("1x16-f0.5-R4-s0") < run.stdout.index("from-f0.5-R4")
    again = call("run", "child", *few, cwd=with_child)
    assert "trained first" not in again.stdout and again.stdout.count("already done") == 3
    assert "3 done" in call("status", "child", *few, cwd=with_child).stdout
    report = call("report", "child", *few, cwd=with_child)
    assert report.returncode == 0 and "parent with f = 50%" in report.stdout, report.stderr
    page = (with_child / "runs/child/report.html").read_text()
    assert "Clean parent: " in page and "Not yet" not in page
    assert call("report", "tiny", cwd=with_child).returncode == 0
    (with_child / "runs" / "tiny").rename(with_child / "runs" / "away")
    orphans = call("report", "child", *few, cwd=with_child)
    assert orphans.returncode == 2 and "runs/tiny: no runs of tiny here, from which those of child" in orphans.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plan", "nothing"), "studies/nothing.toml: no such study; found here: tiny; installed: chudnovsky2026, "),
        (("plan", "tiny", "--set", "training.tokenz=1"), "training.tokenz: unknown key; did you mean 'tokens'?"),
        (("run", "tiny", "--set", "training.context=true"), "training.context: input should be a valid integer"),
        (("run", "tiny", "--set", "grid.0.repeats=0"), "grid.0.repeats: input should be greater than or equal to 1"),
        (("run", "tiny", "--set", "grid.0.repeats=5000"), "less than one"),
        (("run", "tiny", "--set", "training.tokens=4_000_000"), "tokens: the run needs"),
        (("report", "tiny"), "runs/tiny: no runs here"),
        (("inspect", "tiny", "--data-dir", "elsewhere"), "no token store here"),
        (("plan",), "Missing argument 'STUDY'"),
        (("run", "tiny", "--processes", "0"), "--processes"),
        (
            ("plan", "tiny", "--set", "training.weight_decay=inf"),
            "training.weight_decay: input should be a finite number",
        ),
        (("plan", "tiny", "--set", f"training.tokens=1{'0' * 400}"), "training.tokens: input should be less than"),
        (("plan", "tiny", "--set", "name=.."), "name: string should match pattern"),
        (
            ("run", "tiny", "--set", "training.context=1_000_000", "--set", "training.tokens=100_000_000"),
            "the corpus has",
        ),
        (("prepare", "tiny", "--data-dir", "/proc"), "/proc: cannot be written"),
        (("probe", "studies"), "studies: no run here (no spec.json)"),
        (
            ("plan", "tiny", "--set", "evaluation.copying_text={file='no.txt'}"),
            "studies/no.txt: cannot be read: No such file",
        ),
        (("run", "tiny", "--set", "evaluation.copying_text=short"), "copying text, paragraph 1 ('short'):"),
        (("provenance", "tiny", "1x16-clean-s0", "--step", "64"), "--step 64: the run has steps 0 to 63"),
        (
            ("provenance", "tiny", "none", "--step", "0"),
            "none: no run of study 'tiny' has this label, name or folder; there are 1x16-clean-s0",
        ),
        (("run", "tiny", "--data-dir", "studies/tiny.toml/x"), "cannot hold token stores: Not a directory"),
        (("run", "tiny", "--runs-dir", "studies/tiny.toml"), "cannot be written: Not a directory"),
        (["run", "tiny", "--set", "resources.processes_per_run=3"], "sequences of a step of"),
        (["plan", "tiny", "--set", "resources.processes_per_run=3"], "do not divide among 3 processes"),
        (
            ["run", "tiny", "--lanes", "many"],
            "resources.lanes: 'many' found; accepted are \"auto\" and whole numbers from 1",
        ),
        (["plan", "tiny", "--lanes", "0"], "resources.lanes: 0 found; accepted are"),
        (["run", "tiny", "--set", "resources.precision=float8"], "input should be 'auto', 'float32' or 'bfloat16'"),
        (["run", "tiny", "--keep-checkpoints", "some"], "'last', 'log', 'all'"),
        (["sweep", "tiny", "--time", "soon"], "slurm.time: accepted are minutes, hours:minutes:seconds"),
        (["sweep", "tiny", "--gpus-per-node", "4"], "give each process one: --set resources.processes_per_run=4"),
        (["sweep", "tiny", "--set", "slurm.partion=main"], "slurm.partion: unknown key; did you mean 'partition'?"),
        (["sweep", "tiny", "--cluster", "cloud"], "'slurm', 'local', 'debug'"),
        (["resume", "tiny"], "runs/tiny: nothing was submitted from here"),
        (["cancel", "tiny"], "cancel: name the runs to cancel, or give --all"),
        (["dev-cluster", "restart"], "dev-cluster: 'restart' found; accepted are start and stop"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(workplace: Path, arguments: tuple[str, ...], message: str) -> None:
    before = sorted(path for path in workplace.rglob("*") if path.is_file())
    found = call(*arguments, cwd=workplace)
    assert found.returncode == 2
    assert message in found.stderr and found.stderr.count("\n") == 1, found.stderr
    assert sorted(path for path in workplace.rglob("*") if path.is_file()) == before


def test_the_data_of_a_study_can_be_looked_at(workplace: Path) -> None:
    inspected = call("inspect", "tiny", cwd=workplace)
    assert inspected.returncode == 0, inspected.stderr
    assert (
        "fingerprint" in inspected.stdout
        and "training windows of 50 tokens that occur more than once: " in inspected.stdout
    )
    shown = call("provenance", "tiny", "1x16-f0.5-R4-s0", "--step", "3", "--text", cwd=workplace)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("--- position") == 8
    assert "of 4" in shown.stdout and ".py" in shown.stdout


def test_a_report_needs_the_run_directories_alone(workplace: Path) -> None:
    assert call("run", "tiny", "--set", "grid.0.repeats=1", cwd=workplace).returncode == 0
    (workplace / "data").unlink()
    report = call("report", "tiny", cwd=workplace)
    assert report.returncode == 0, report.stderr
    assert "Not yet started: 1x16-f0.5-R4-s0" in (workplace / "runs/tiny/report.html").read_text()
