"""A run has the same losses with several processes, with several passes per step, in bfloat16, and when compiled."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.checkpoints.files import checkpointed_step
from repeat_study.config.corpora import StudyTexts
from repeat_study.config.resources import Resources
from repeat_study.config.run import Run
from repeat_study.local.scheduler import Event, LocalScheduler
from repeat_study.records.outcome import Ended, Outcome
from repeat_study.records.run_directory import RunDirectory
from repeat_study.records.tables import read_table
from repeat_study.training.distributed import ProcessGroup
from repeat_study.training.trainer import check_same_step, train

pytestmark = pytest.mark.usefixtures("preloaded_workers")

CLOSE = 1e-5  # nats; measured: 4e-7 or less


def losses(folder: Path, run: Run) -> list[float]:
    """Every loss of every evaluation."""
    rows = RunDirectory(folder / run.name).rows()
    assert [row["step"] for row in rows] == run.evaluation.steps(run.steps)
    return [row[key] for row in rows for key in ("train_loss", "test_loss", "pool_loss") if row[key] is not None]


def scores(folder: Path, run: Run) -> list[float]:
    """Every head's numbers at every evaluation, without intervals."""
    table = read_table(RunDirectory(folder / run.name).heads)
    return [value for row in table.to_pylist() for key, value in row.items() if not key.endswith("_ci")]


@pytest.fixture(scope="module")
def alone(study: Any, store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    assert train(study.runs(StudyTexts(store.fingerprint))[4], store, folder) is Outcome.DONE
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("sharing", ["ddp", "fsdp"])
def test_two_processes_have_the_same_losses_as_one_process(
    sharing: str, alone: Path, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    resources = Resources(processes_per_run=2, sharing=sharing, micro_sequences=2, keep_checkpoints="log")
    ended = LocalScheduler(store, tmp_path, 2, lambda event: None, resources).train([runs[4]])
    assert ended[runs[4].name] == Ended(runs[4].name, Outcome.DONE)
    assert losses(tmp_path, runs[4]) == pytest.approx(losses(alone, runs[4]), abs=CLOSE)
    assert scores(tmp_path, runs[4]) == pytest.approx(scores(alone, runs[4]), abs=1e-4), (
        "heads with sharded weights have the same scores"
    )


@pytest.mark.slow
@pytest.mark.parametrize("sharing", ["ddp", "fsdp"])
def test_a_run_started_by_two_processes_can_be_finished_by_one(
    sharing: str, alone: Path, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    def listen(event: Event) -> None:
        if not isinstance(event, Ended) and getattr(event, "step", 0) >= 24:
            raise KeyboardInterrupt

    run, resources = runs[4], Resources(processes_per_run=2, sharing=sharing)
    with pytest.raises(KeyboardInterrupt):
        LocalScheduler(store, tmp_path, 2, listen, resources).train([run])
    assert 24 <= RunDirectory(tmp_path / run.name).rows()[-1]["step"] < run.steps
    assert train(run, store, tmp_path) is Outcome.DONE
    assert losses(tmp_path, run) == pytest.approx(losses(alone, run), abs=CLOSE)


class OneStepBehindTheLead(ProcessGroup):
    """The second of two processes, whose lead process sees a checkpoint that is one step newer."""

    def broadcast(self, value: Any) -> Any:
        return value + 1


def test_processes_that_see_different_checkpoints_refuse_to_train(runs: list[Run], tmp_path: Path) -> None:
    directory, process_group = RunDirectory(tmp_path), OneStepBehindTheLead(rank=1, world=2)
    step = checkpointed_step(runs[0], directory)
    with pytest.raises(InputError, match=r"last.ckpt: step 0 on this process, step 1 on the lead process"):
        check_same_step(directory, step, process_group)


def test_accumulating_gradients_over_passes_does_not_change_losses(
    alone: Path, runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    assert train(runs[4], store, tmp_path, resources=Resources(micro_sequences=3)) is Outcome.DONE  # 3 + 3 + 2 of 8
    assert losses(tmp_path, runs[4]) == pytest.approx(losses(alone, runs[4]), abs=CLOSE)


def test_bfloat16_learns_like_float32(alone: Path, runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    assert train(runs[4], store, tmp_path, resources=Resources(precision="bfloat16")) is Outcome.DONE
    actual, expected = losses(tmp_path, runs[4]), losses(alone, runs[4])
    assert actual != expected and actual == pytest.approx(expected, abs=0.02)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.slow
def test_compiling_does_not_change_losses(alone: Path, runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    assert train(runs[4], store, tmp_path, resources=Resources(compile=True)) is Outcome.DONE
    assert losses(tmp_path, runs[4]) == pytest.approx(losses(alone, runs[4]), abs=CLOSE)
    checkpoints = [RunDirectory(folder / runs[4].name).checkpoint for folder in (tmp_path, alone)]
    states = [torch.load(path, weights_only=True)["state_dict"] for path in checkpoints]
    assert states[0].keys() == states[1].keys(), "checkpoints of compiled and uncompiled runs are interchangeable"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_all_model_sizes_trained_in_one_process_are_compiled(
    runs: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    """Compiled graphs accumulate over the runs of a process, and torch silently stops compiling when it reaches a limit."""
    graphs = []
    for model in ("9x16", "2x32", "1x64", "3x16"):
        run = runs[0].model_copy(update={"model": model, "tokens": 4 * 32 * 8})
        torch._dynamo.utils.counters.clear()
        assert train(run, store, tmp_path, resources=Resources(compile=True)) is Outcome.DONE
        counted = torch._dynamo.utils.counters
        assert not counted["recompile_limit"] and not counted["graph_break"]
        graphs.append(counted["stats"]["unique_graphs"])
    assert graphs == [2, 2, 2, 2], "one graph for all blocks and one for the loss, at any depth"
