"""For bad input, commands exit with code 2 and print one line: where it is, what was found, and what is accepted."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.errors import InputError
from repeat_study.records.run_directory import RunDirectory
from tests.command import call
from tests.repeat_study_cli.conftest import Invoke
from tests.waiting import PATIENCE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("plan", "nothing"),
            "studies/nothing.toml: no such study; studies in studies: tiny; shipped with this package: chudnovsky2026, ",
        ),
        (("plan", "tiny", "--set", "training.tokenz=1"), "training.tokenz: unknown key; did you mean 'tokens'?"),
        (("run", "tiny", "--set", "training.context=true"), "training.context: input should be a valid integer"),
        (("run", "tiny", "--set", "grid.0.repeats=0"), "grid.0.repeats: 0 needs a named pool"),
        (("run", "tiny", "--set", "grid.0.repeats=5000"), "less than one"),
        (("run", "tiny", "--set", "training.tokens=4_000_000"), "tokens: the run needs"),
        (("report", "tiny"), "runs/tiny: no runs here"),
        (("inspect", "tiny", "--data-dir", "elsewhere"), "no token store here"),
        (("plan", "tiny", "--set", "grid.0.model=[[1]]"), "grid.0.model: input should be a valid string, found [1]"),
        (
            ("plan", "tiny", "--set", 'grid.0.model=[["1x16", "2x16"], "1x16"]'),
            "grid.0.model: input should be a valid string",
        ),
        (("plan", "tiny", "--set", f"training.x={'[' * 3000}"), "nested too deeply; expected at most 12 levels"),
        (("plan", "tiny", "--set", f"{'a.' * 1000}a=1"), "nested too deeply; expected at most 12 levels"),
        (("plan", "tiny", "--set", f"training.tokens={'1' * 5000}"), "Exceeds the limit"),
        (("plan", "/dev/zero"), "/dev/zero: a pipe, socket or device; expected a regular file"),
        (("plan", "large.toml"), "large.toml: larger than the limit of 1,000,000 bytes"),
        (("plan", "pipe.toml"), "pipe.toml: a pipe, socket or device; expected a regular file"),
        (("run", "socket.toml"), "socket.toml: a pipe, socket or device; expected a regular file"),
        (("plan", "studies/"), "studies: cannot be read: Is a directory"),
        (
            ("plan", "tiny", "--set", "evaluation.copying_text={file='../pipe.toml'}"),
            "pipe.toml: a pipe, socket or device; expected a regular file",
        ),
        (
            ("plan", "tiny", "--set", "data.tokenizer=~nobody-here/t.json"),
            "the home folder of ~nobody-here is unknown (data.tokenizer)",
        ),
        (("plan", "tiny", "--set", 'evaluation.copying_text={file="\\u0000"}'), "cannot be read: embedded null byte"),
        (("plan", "tiny", "--gigaflops", "inf"), "inf is not a finite number"),
        (("plan",), "Missing argument 'STUDY'"),
        (("run", "tiny", "--processes", "0"), "--processes"),
        (
            ("plan", "tiny", "--set", "training.weight_decay=inf"),
            "training.weight_decay: input should be a finite number",
        ),
        (("plan", "tiny", "--set", f"training.tokens=1{'0' * 400}"), "training.tokens: input should be less than"),
        (("plan", "tiny", "--set", "name=.."), "name: expected letters, digits, "),
        (
            ("run", "tiny", "--set", "training.context=1_000_000", "--set", "training.tokens=100_000_000"),
            "context: the test split contains only",
        ),
        (("run", "tiny", "--set", "training.tokens=100_000_000"), "the corpus has"),
        (("prepare", "tiny", "--data-dir", "/proc"), "/proc: cannot be written"),
        (("probe", "studies"), "studies: not a run directory (no spec.json)"),
        (
            ("plan", "tiny", "--set", "evaluation.copying_text={file='no.txt'}"),
            "studies/no.txt: cannot be read: No such file",
        ),
        (
            ("run", "tiny", "--set", "evaluation.copying_text=short"),
            "evaluation.copying_text: copying text, paragraph 1 ('short'):",
        ),
        (("provenance", "tiny", "1x16-clean-s0", "--step", "64"), "--step 64: expected a step from 0 to 63"),
        (
            ("provenance", "tiny", "none", "--step", "0"),
            "none: no run in study 'tiny' has this label, name or folder; expected one of 1x16-clean-s0",
        ),
        (("run", "tiny", "--data-dir", "studies/tiny.toml/x"), "cannot be used as the data folder: Not a directory"),
        (("run", "tiny", "--runs-dir", "studies/tiny.toml"), "cannot be written: Not a directory"),
        (["run", "tiny", "--set", "resources.processes_per_run=3"], "sequences per step of"),
        (["plan", "tiny", "--set", "resources.processes_per_run=3"], "cannot be split evenly among 3 processes"),
        (
            ["run", "tiny", "--lanes", "many"],
            "resources.lanes: 'many' found; expected \"auto\" or a positive integer",
        ),
        (["plan", "tiny", "--lanes", "0"], "resources.lanes: 0 found; expected"),
        (["plan", "tiny", "--set", "resources.compile=1"], 'resources.compile: 1 found; expected true, false or "'),
        (["run", "tiny", "--set", "resources.precision=float8"], "input should be 'auto', 'float32' or 'bfloat16'"),
        (["run", "tiny", "--keep-checkpoints", "some"], "'last', 'log', 'all'"),
        (["run", "tiny", "--keep-checkpoints", "some"], "'--keep-checkpoints': 'some' is not one of"),
        (["run", "tiny", "--processes", "1e3"], ", found '1e3'"),
        (["plan", "tiny", "--processes=0"], "greater than or equal to 1, found '0'"),
        (["plan", ""], "STUDY is empty; expected a .toml file, or the name of a study"),
        (["plan", "a" * 5000], "File name too long"),
        (["plan", "s.txt"], "s.txt: not a .toml file; expected a file that ends in .toml, or the name of a study"),
        (
            ["plan", "my study.toml"],
            "my study.toml: this file name cannot be the name of the study; rename the file or add",
        ),
        (
            ["plan", "tiny", "--set", "slurm.partion=main"],
            "tiny: slurm.partion: unknown key; did you mean 'partition'?",
        ),
        (["plan", "tiny", "--set", 'slurm.time="8 hours"'], "slurm.time: expected minutes, hours:minutes:seconds"),
        (
            ["run", "tiny", "--set", 'slurm.partition="a\\nb"'],
            "slurm.partition: expected a nonempty string without line",
        ),
        (
            ["prepare", "tiny", "--set", "data.source={kind='files',paths=['']}"],
            'an empty path; use "." for the current',
        ),
        (
            ["status", "tiny", "--runs-dir", "s.txt"],
            "s.txt: not a folder; expected the folder that contains the run directories",
        ),
        (["sweep", "tiny", "--time", "soon"], "slurm.time: expected minutes, hours:minutes:seconds"),
        (
            ["sweep", "tiny", "--gpus-per-node", "4"],
            "each process needs exactly one GPU; try --set resources.processes_per_run=4",
        ),
        (["sweep", "tiny", "--set", "slurm.partion=main"], "slurm.partion: unknown key; did you mean 'partition'?"),
        (
            ["sweep", "tiny", "--cluster", "local", "--time", "soon"],
            "slurm.time: expected minutes, hours:minutes:seconds",
        ),
        (["sweep", "tiny", "--cluster", "debug", "--mem-gb", "-1"], "slurm.mem_gb: input should be greater than 0"),
        (["provenance", "tiny", "", "--step", "0"], "'': no run in study 'tiny'"),
        (["sweep", "tiny", "--cluster", "cloud"], "'slurm', 'local', 'debug'"),
        (["resume", "tiny"], "runs/tiny: no submission found"),
        (["cancel", "tiny"], "cancel: give either the runs to cancel or --all"),
        (
            ["plan", "tiny", "--set", "evaluation.copying_text={file='../blank.txt'}"],
            "evaluation.copying_text: expected text that is not blank, found",
        ),
        (["fit", "runs.csv"], "runs.csv: no law can be fitted; "),
        (
            ["predict", "--params=1M", "--tokens=10M", "--fraction=0.5", "--csv", "runs.csv"],
            "runs.csv: no law can be fitted; ",
        ),
        (["fit", "/dev/null"], "/dev/null: missing column params, tokens, fraction, repeats, loss; found nothing;"),
        (["dev-cluster", "restart"], "dev-cluster: unknown action 'restart'; expected start or stop"),
    ],
)
def test_bad_input_prints_one_line_and_exits_with_code_2(
    workplace: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    for name in ("s.txt", "my study.toml"):
        shutil.copy(workplace / "studies" / "tiny.toml", workplace / name)
    (workplace / "large.toml").write_text("#" * 1_000_001)
    (workplace / "blank.txt").write_text(" \n\n\t\n")
    (workplace / "runs.csv").write_text("params,tokens,fraction,repeats,loss\n1e7,2e8,0,1,3.5\n")
    os.mkfifo(workplace / "pipe.toml")
    with monkeypatch.context() as context, socket.socket(socket.AF_UNIX) as listening:
        context.chdir(workplace)  # the path of a socket can be at most 107 bytes long
        listening.bind("socket.toml")
    before = sorted(path for path in workplace.rglob("*") if path.is_file())
    ended = invoke(*arguments, cwd=workplace)
    assert ended.returncode == 2
    assert message in ended.stderr and ended.stderr.count("\n") == 1, ended.stderr
    assert len(ended.stderr) < 2_000
    assert sorted(path for path in workplace.rglob("*") if path.is_file()) == before


def test_a_real_process_prints_one_line_and_exits_with_code_2(workplace: Path) -> None:
    ended = call("plan", "nothing", cwd=workplace)
    assert ended.returncode == 2 and not ended.stdout
    assert (
        ended.stderr.startswith("repeat-study: studies/nothing.toml: no such study") and ended.stderr.count("\n") == 1
    )


def test_a_study_nested_a_thousand_deep_is_refused(workplace: Path, invoke: Invoke) -> None:
    for number, text in enumerate(
        ("x = " + "[" * 1000 + "]" * 1000, "[" + "a." * 1000 + "a]", "x = " + "{a=" * 20 + "1" + "}" * 20)
    ):
        (workplace / f"deep{number}.toml").write_text(text)
        ended = invoke("plan", f"deep{number}.toml", cwd=workplace)
        assert ended.returncode == 2 and ended.stderr.count("\n") == 1
        assert f"deep{number}.toml: tables or lists are nested too deeply; expected at most 12" in ended.stderr


def test_a_grid_of_millions_of_points_is_refused_quickly(workplace: Path, invoke: Invoke) -> None:
    many = str(list(range(2000)))
    start = time.monotonic()
    ended = invoke("plan", "tiny", "--set", f"grid.0.seed={many}", "--set", f"grid.0.pool_seed={many}", cwd=workplace)
    assert ended.returncode == 2 and "grid: 8,000,000 points found; expected at most 10,000" in ended.stderr
    assert time.monotonic() - start < 60  # declaring so many runs would take hours


def test_without_a_home_folder_a_path_in_it_is_refused(workplace: Path) -> None:
    code = (
        "import os, pwd, sys; os.environ.pop('HOME', None); pwd.getpwuid = lambda uid: {}[uid];"
        " sys.argv = ['repeat-study', 'plan', 'tiny', '--set', 'data.tokenizer=~/t.json'];"
        " import repeat_study_cli; repeat_study_cli.main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=workplace, capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1, ended.stderr
    assert "~/t.json: the home folder of ~ is unknown (data.tokenizer)" in ended.stderr


def test_a_study_file_may_end_in_upper_case_and_its_name_key_replaces_an_unsuitable_file_name(
    workplace: Path, invoke: Invoke
) -> None:
    text = (workplace / "studies" / "tiny.toml").read_text()
    (workplace / "tiny.TOML").write_text(text)
    (workplace / "my study.toml").write_text('name = "mine"\n' + text)
    assert invoke("plan", "tiny.TOML", cwd=workplace).returncode == 0
    assert "mine: 2 runs" in invoke("plan", "my study.toml", cwd=workplace).stdout


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_closed_standard_stream_does_not_change_the_exit_code(workplace: Path, closed: str) -> None:
    for arguments, code in (("plan tiny", 0), ("plan nothing", 2)):
        script = f"{sys.executable} -m repeat_study_cli {arguments} {closed}"
        ended = subprocess.run(["bash", "-c", script], cwd=workplace, capture_output=True, text=True)
        assert ended.returncode == code and "Traceback" not in ended.stderr, ended.stderr


def test_an_unknown_command_or_option_is_bad_input(workplace: Path, invoke: Invoke) -> None:
    for arguments, message in ((["plann"], "No such command 'plann'. Did you mean 'plan'?"), (["plan", "--x"], "--x")):
        ended = invoke(*arguments, cwd=workplace)
        assert ended.returncode == 2 and message in ended.stderr and ended.stderr.count("\n") == 1


def test_a_table_and_a_text_may_come_from_a_pipe(workplace: Path) -> None:
    """As in `repeat-study fit <(...)`: the command reads them once."""
    script = f"{sys.executable} -m repeat_study_cli fit <(echo params,tokens,repeated_fraction,repeats,loss)"
    ended = subprocess.run(["bash", "-c", script], cwd=workplace, capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 2 and "missing column fraction" in ended.stderr, ended.stderr


def test_stopping_a_cluster_that_is_not_running_says_so(tmp_path: Path, invoke: Invoke) -> None:
    ended = invoke("dev-cluster", "stop", cwd=tmp_path)
    assert ended.returncode == 0 and ended.stdout == f"{tmp_path}/dev-cluster: no cluster is running here\n"
    assert not list(tmp_path.iterdir())


def test_a_home_folder_that_is_not_writable_causes_no_warning() -> None:
    """Matplotlib cannot create its cache in this folder."""
    home = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), "/proc/nothing")
    ended = subprocess.run(
        [sys.executable, "-c", "import repeat_study_cli, matplotlib.figure"],
        env=os.environ | home,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0 and ended.stderr == ""


@pytest.mark.parametrize("command", [["run"], ["status"], ["report"], ["sweep", "--cluster", "debug"]])
def test_finished_runs_in_each_others_folders_are_refused(
    trained: Path, tmp_path: Path, invoke: Invoke, command: list[str]
) -> None:
    workplace = Path(shutil.copytree(trained, tmp_path / "swapped", symlinks=True))
    first, second = sorted(path.parent for path in workplace.glob("runs/tiny/*/spec.json"))
    first.rename(workplace / "other")
    second.rename(first)
    (workplace / "other").rename(second)
    ended = invoke(*command, "tiny", cwd=workplace)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert (
        f"runs/tiny/{first.name}/spec.json: " in ended.stderr or f"runs/tiny/{second.name}/spec.json: " in ended.stderr
    )


def test_a_file_in_the_place_of_a_folder_is_named(trained: Path, tmp_path: Path, invoke: Invoke) -> None:
    workplace = Path(shutil.copytree(trained, tmp_path / "blocked", symlinks=True))
    shutil.rmtree(workplace / "runs" / "tiny" / "figures", ignore_errors=True)  # another test may have written a report
    (workplace / "runs" / "tiny" / "figures").write_text("")
    ended = invoke("report", "tiny", cwd=workplace)
    assert ended.returncode == 2
    assert ended.stderr == "repeat-study: runs/tiny/figures: exists but is not a folder; move or delete it\n"
    directory = RunDirectory(workplace / "runs" / "tiny" / "1x16-clean-s0-00000000")
    directory.path.mkdir()
    directory.checkpoint.parent.write_text("")
    with pytest.raises(InputError, match=r"checkpoints: cannot be created as a folder: File exists; move or delete it"):
        directory.make()
