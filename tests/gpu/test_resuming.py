"""Runs that were killed on a GPU resume from their checkpoints and end with the same losses."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from data_prep.token_store import TokenStore
from repeat_study.checkpoints.files import checkpointed_step
from repeat_study.config.resources import Resources
from repeat_study.config.run import Run
from repeat_study.records.outcome import Outcome, Progress
from repeat_study.records.run_directory import RunDirectory
from repeat_study.training.trainer import train, train_bundle
from tests.gpu.conftest import STEPS
from tests.gpu.records import CLOSE, CLOSE_SCORES, assert_close_heads, assert_close_losses

pytestmark = pytest.mark.gpu


def train_until_killed(runs: list[Run], store: Path, folder: Path, resources: Resources) -> None:
    """Train a bundle, and kill this process when the last run has been evaluated for the last time but not yet saved."""

    def kill(progress: Progress) -> None:
        if progress.run == runs[-1].name and progress.step == STEPS:
            os.kill(os.getpid(), signal.SIGKILL)

    train_bundle(runs, TokenStore(store), folder, kill, resources=resources)


def test_killed_runs_resume_in_a_bundle_and_alone(
    lanes: list[Run], singles: Path, store: TokenStore, resources: Resources, tmp_path: Path
) -> None:
    """A bundle of three runs with different recipes is killed. Then two runs resume as a bundle, and one resumes alone."""
    runs = lanes[1:]
    # A forked process could not use the GPU after this one has used it.
    process = multiprocessing.get_context("spawn").Process(
        target=train_until_killed, args=(runs, store.folder, tmp_path, resources)
    )
    process.start()
    process.join(240)
    assert process.exitcode == -signal.SIGKILL
    directories = [RunDirectory(tmp_path / run.name) for run in runs]
    assert [checkpointed_step(*of_run) for of_run in zip(runs, directories, strict=True)] == [STEPS // 2] * 3
    resumed: list[Progress] = []
    endings = train_bundle(runs[:2], store, tmp_path, resumed.append, resources=resources)
    assert set(endings.values()) == {Outcome.DONE} and resumed[0].resumed and resumed[0].step == STEPS // 2
    assert train(runs[2], store, tmp_path, resources=resources) is Outcome.DONE
    for run in runs:
        assert_close_losses(tmp_path, singles, run, CLOSE)
        assert_close_heads(tmp_path, singles, run, CLOSE_SCORES)
        assert len(RunDirectory(tmp_path / run.name).session_rows()) == 2
