"""Fixtures to call commands in the test process, and a study that is trained once."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from data_prep.token_store import TokenStore
from repeat_study.config.corpora import StudyTexts
from repeat_study.config.study import Study, load_study
from repeat_study.records.outcome import Outcome
from repeat_study.training.trainer import train_bundle
from repeat_study_cli import main
from tests.conftest import make_workplace

Invoke = Callable[..., CompletedProcess[str]]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Invoke]:
    """Like tests.command.call, but in this process: `invoke("plan", "tiny", cwd=folder)`."""
    handler = signal.getsignal(signal.SIGTERM)  # commands that train replace it

    def run(*arguments: object, cwd: Path) -> CompletedProcess[str]:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["repeat-study", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        code = ended.value.code
        return CompletedProcess(sys.argv, code if isinstance(code, int) else 0, output.out, output.err)

    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, store: TokenStore, study: Study) -> Path:
    """A folder in which all runs of the study `tiny` are done. Tests must not change it."""
    folder = make_workplace(tmp_path_factory.mktemp("trained"), store, study)
    runs = load_study(folder / "studies" / "tiny.toml").runs(StudyTexts(store.fingerprint))
    assert set(train_bundle(runs, store, folder / "runs" / "tiny").values()) == {Outcome.DONE}
    return folder


def on_a_terminal(command: list[str], cwd: Path) -> tuple[int, str]:
    """Exit code and output of a real process on a real terminal of 80 columns."""
    our_end, child_end = os.openpty()
    environment = os.environ | {"COLUMNS": "80", "TERM": "xterm"}
    process = subprocess.Popen(command, cwd=cwd, stdout=child_end, stderr=child_end, env=environment)
    os.close(child_end)
    output = b""
    with suppress(OSError):  # Linux reports the end of a terminal as an error
        while chunk := os.read(our_end, 4096):
            output += chunk
    os.close(our_end)
    return process.wait(), output.decode()
