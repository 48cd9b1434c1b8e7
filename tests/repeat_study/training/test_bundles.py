"""On a CPU, runs trained in lockstep have bit for bit the same results as alone, even after kills, stops and failures."""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.checkpoints.files import checkpointed_step
from repeat_study.config.corpora import StudyTexts
from repeat_study.config.resources import Keep, Resources
from repeat_study.config.run import Run
from repeat_study.records.outcome import Outcome, Progress
from repeat_study.records.run_directory import RunDirectory, Status
from repeat_study.training.bundles import SATURATING_TOKENS, bundle_key, max_lanes, pack_bundles
from repeat_study.training.divergence import Diverged
from repeat_study.training.lightning_module import same_recipe
from repeat_study.training.trainer import train, train_bundle
from tests.repeat_study.training.test_trainer import assert_same_result
from tests.waiting import PATIENCE

# The fields in which the lanes differ.
LANES: tuple[dict[str, Any], ...] = (
    {"repeats": 1},
    {"repeats": 4, "repeated_fraction": 0.5, "seed": 1, "learning_rate": 1e-2, "gradient_clip": 0.1},
    {"repeats": 16, "repeated_fraction": 0.5, "spacing": "uniform", "weight_decay": 1.0, "warmup_fraction": 0.2},
    {"repeats": 32, "repeated_fraction": 0.25, "pool_seed": 3, "final_learning_rate_fraction": 0.5},
)


@pytest.fixture(scope="module")
def lanes(study: Any, store: TokenStore) -> list[Run]:
    template = study.runs(StudyTexts(store.fingerprint))[-1]
    fields = template.model_dump() | {"evaluation": template.evaluation, "model": "2x16", "gradient_clip": 0.3}
    return [Run.model_validate(fields | lane) for lane in LANES]


@pytest.fixture(scope="module")
def alone(lanes: list[Run], store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    for run in lanes:
        assert train(run, store, folder, resources=Resources(keep_checkpoints=Keep.LOG)) is Outcome.DONE
    return folder


def kill_at(steps: dict[str, int]) -> Callable[[Progress], None]:
    def watch(progress: Progress) -> None:
        if progress.step >= steps.get(progress.run, 10**9) and not progress.resumed:
            os.kill(os.getpid(), signal.SIGKILL)

    return watch


def run_in_process(work: Callable[[], object]) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(PATIENCE)
    return process.exitcode


@pytest.mark.parametrize(
    "style",
    ["2x16", pytest.param("2x32-qwen", marks=pytest.mark.slow), pytest.param("1x16-attn", marks=pytest.mark.slow)],
)
def test_lanes_have_the_same_results_as_single_runs(
    style: str, lanes: list[Run], alone: Path, store: TokenStore, tmp_path: Path
) -> None:
    """Compare losses, head scores and optimizer state, with active clipping and with one or several optimizer recipes."""
    runs = [run.model_copy(update={"model": style}) for run in lanes]
    if style == "1x16-attn":
        recipe = {
            "learning_rate": 1e-2,
            "weight_decay": 0.1,
            "warmup_fraction": 0.0,
            "final_learning_rate_fraction": 0.1,
        }
        runs = [run.model_copy(update=recipe) for run in runs]
    assert same_recipe(runs) == (style == "1x16-attn")
    if style != "2x16":
        alone = tmp_path / "alone"
        for run in runs:
            train(run, store, alone)
    reports: list[Progress] = []
    endings = train_bundle(runs, store, tmp_path, reports.append)
    assert list(endings.values()) == [Outcome.DONE] * 4
    for run in runs:
        assert_same_result(tmp_path / run.name, alone / run.name)
        assert [report.step for report in reports if report.run == run.name] == run.evaluation.steps(run.steps)
    norms = [row["gradient_norm"] for row in RunDirectory(tmp_path / runs[1].name).rows()[1:]]
    assert min(norms) > 0.1, "every step of this lane was clipped"
    assert RunDirectory(tmp_path / runs[0].name).session_rows()[0]["lanes"] == 4


def test_each_run_of_a_bundle_keeps_its_own_weights(
    lanes: list[Run], alone: Path, store: TokenStore, tmp_path: Path
) -> None:
    train_bundle(lanes, store, tmp_path, resources=Resources(keep_checkpoints=Keep.LOG))
    for run in lanes:
        kept = sorted((alone / run.name / "checkpoints").glob("step-*.pt"))
        assert len(kept) > 1
        for path in kept:
            actual = torch.load(tmp_path / run.name / "checkpoints" / path.name, weights_only=True)
            expected = torch.load(path, weights_only=True)
            assert (actual["run"], actual["step"]) == (expected["run"], expected["step"])
            assert all(torch.equal(actual["model"][name], value) for name, value in expected["model"].items())
            assert path.stat().st_size * 1.1 > (tmp_path / run.name / "checkpoints" / path.name).stat().st_size


def test_a_lane_that_diverges_is_marked_as_failed_and_the_others_are_unaffected(
    lanes: list[Run], alone: Path, store: TokenStore, tmp_path: Path
) -> None:
    ruined = lanes[1].model_copy(update={"learning_rate": 1e30, "gradient_clip": 1e30})
    endings = train_bundle([lanes[0], ruined, *lanes[2:]], store, tmp_path)
    assert isinstance(endings[ruined.name], Diverged)
    directory = RunDirectory(tmp_path / ruined.name)
    assert directory.status() is Status.FAILED and "Diverged: " in directory.failure()
    assert all(row["test_loss"] == row["test_loss"] for row in directory.rows())
    for run in (lanes[0], *lanes[2:]):
        assert endings[run.name] is Outcome.DONE
        assert_same_result(tmp_path / run.name, alone / run.name)
        sessions = RunDirectory(tmp_path / run.name).session_rows()
        assert [row["lanes"] for row in sessions] == [4, 3], (
            "the diverged lane leaves the bundle at the next evaluation"
        )
    both = train_bundle([ruined.model_copy(update={"seed": seed}) for seed in (5, 6)], store, tmp_path)
    assert all(isinstance(ending, Diverged) for ending in both.values()), (
        "every run is reported even if no lane is left"
    )


@pytest.mark.slow
def test_killed_runs_resume_in_other_bundles_and_alone(
    lanes: list[Run], alone: Path, store: TokenStore, tmp_path: Path
) -> None:
    """A bundle of three runs is killed when only two of them have recorded their evaluation.

    Two of the runs resume as a bundle, which is killed too. Finally, all three runs train in a
    bundle with a run that was never started.
    """
    first, second, third, fourth = lanes
    code = run_in_process(lambda: train_bundle([first, second, third], store, tmp_path, kill_at({second.name: 24})))
    assert code == -signal.SIGKILL
    code = run_in_process(lambda: train_bundle([second, third], store, tmp_path, kill_at({third.name: 40})))
    assert code == -signal.SIGKILL
    steps = [checkpointed_step(run, RunDirectory(tmp_path / run.name)) for run in lanes]
    assert steps[3] == 0 and len(set(steps)) == 3, steps
    started: list[tuple[str, int]] = []
    endings = train_bundle(lanes, store, tmp_path, lambda progress: started.append((progress.run, progress.step)))
    assert set(endings.values()) == {Outcome.DONE}
    for run in lanes:
        assert_same_result(tmp_path / run.name, alone / run.name)
    assert started[0] == (fourth.name, 0), "the run that is furthest behind goes first, and the others join it"
    bundle_sizes = [row["lanes"] for row in RunDirectory(tmp_path / fourth.name).session_rows()]
    assert bundle_sizes == [1, 2, 4]


@pytest.mark.slow
def test_lanes_can_move_between_bundles_with_one_and_with_several_recipes(
    lanes: list[Run], alone: Path, store: TokenStore, tmp_path: Path
) -> None:
    """The optimizer first updates all lanes as one tensor, then each lane as its own tensor, then all as one tensor again."""
    first, second = lanes[0], lanes[0].model_copy(update={"seed": 4})
    train(second, store, alone)
    code = run_in_process(lambda: train_bundle([first, second], store, tmp_path, kill_at({second.name: 24})))
    assert code == -signal.SIGKILL
    calls = iter(range(10_000))
    train_bundle(lanes[1:2], store, tmp_path, should_stop=lambda: next(calls) == 15)
    code = run_in_process(lambda: train_bundle([second, *lanes[:2]], store, tmp_path, kill_at({first.name: 48})))
    assert code == -signal.SIGKILL
    assert set(train_bundle([first, second], store, tmp_path).values()) == {Outcome.DONE}
    assert train(lanes[1], store, tmp_path) is Outcome.DONE
    for run in (first, second, lanes[1]):
        assert_same_result(tmp_path / run.name, alone / run.name)


@pytest.mark.slow
def test_a_bundle_asked_to_stop_saves_every_run(
    lanes: list[Run], alone: Path, store: TokenStore, tmp_path: Path
) -> None:
    calls = iter(range(10_000))
    endings = train_bundle(lanes, store, tmp_path, should_stop=lambda: next(calls) == 18)
    assert set(endings.values()) == {Outcome.INTERRUPTED}
    assert {checkpointed_step(run, RunDirectory(tmp_path / run.name)) for run in lanes} == {19}
    assert train(lanes[2], store, tmp_path) is Outcome.DONE
    again = train_bundle(lanes, store, tmp_path)
    assert list(again.values()) == [Outcome.DONE, Outcome.DONE, Outcome.ALREADY_DONE, Outcome.DONE]
    for run in lanes:
        assert_same_result(tmp_path / run.name, alone / run.name)


def test_a_stop_applies_to_lanes_that_wait_at_a_later_step(
    lanes: list[Run], alone: Path, store: TokenStore, tmp_path: Path
) -> None:
    shutil.copytree(alone / lanes[0].name, tmp_path / lanes[0].name)
    calls = iter(range(10_000))
    train_bundle(lanes[1:2], store, tmp_path, should_stop=lambda: next(calls) == 30)
    calls = iter(range(10_000))
    endings = train_bundle(lanes, store, tmp_path, should_stop=lambda: next(calls) == 4)
    assert list(endings.values()) == [Outcome.ALREADY_DONE] + [Outcome.INTERRUPTED] * 3
    steps = [checkpointed_step(run, RunDirectory(tmp_path / run.name)) for run in lanes[1:]]
    assert steps == [31, 5, 5]


def test_an_unusable_directory_stops_only_its_own_run(
    lanes: list[Run], alone: Path, store: TokenStore, tmp_path: Path
) -> None:
    """The three unusable runs have a damaged checkpoint, records that end before the checkpoint, and another run's spec."""
    calls = iter(range(10_000))
    train_bundle(lanes, store, tmp_path, should_stop=lambda: next(calls) == 18)
    damaged, short, swapped, intact = (RunDirectory(tmp_path / run.name) for run in lanes)
    damaged.checkpoint.write_bytes(damaged.checkpoint.read_bytes()[:1000])
    short.metrics.write_text("".join(short.metrics.read_text().splitlines(keepends=True)[:-1]))
    shutil.copy(intact.spec, swapped.spec)
    endings = train_bundle(lanes, store, tmp_path)
    messages = [str(ending) for ending in endings.values()]
    assert all(isinstance(ending, InputError) for ending in list(endings.values())[:3])
    assert "damaged" in messages[0] and "evaluations up to the checkpoint at step" in messages[1]
    assert "contains another spec" in messages[2]
    assert endings[lanes[3].name] is Outcome.DONE
    assert_same_result(intact.path, alone / lanes[3].name)
    assert damaged.status() is Status.INTERRUPTED, "the run did not fail"


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"context": 31}, {"sequences_per_step": 7, "context": 37, "model": "2x64"}])
def test_lanes_with_misaligned_tensors_have_nearly_the_same_results_as_single_runs(
    changes: dict[str, Any], lanes: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    fields = {"repeats": 1, "repeated_fraction": 0.0, "spacing": "passes", "pool_seed": 0, "tokens": 20 * 7 * 37}
    template = lanes[0].model_dump() | {"evaluation": lanes[0].evaluation, **fields, **changes}
    runs = [Run.model_validate(template | {"seed": seed}) for seed in range(3)]
    train_bundle(runs, store, tmp_path / "together")
    for run in runs:
        train(run, store, tmp_path / "alone")
        actual, expected = (
            np.array([[row["test_loss"], row["pool_loss"], row["copying_loss"]] for row in RunDirectory(path).rows()])
            for path in (tmp_path / "together" / run.name, tmp_path / "alone" / run.name)
        )
        assert actual == pytest.approx(expected, abs=1e-6)


def test_bundles_are_split_until_every_worker_has_one(lanes: list[Run]) -> None:
    packed = pack_bundles(lanes, Resources(lanes=8), 320, gpu=False, workers=3)
    assert [len(bundle) for bundle in packed] == [1, 1, 2] and [run for bundle in packed for run in bundle] == lanes
    assert [len(bundle) for bundle in pack_bundles(lanes, Resources(lanes=8), 320, gpu=False, workers=9)] == [1] * 4


def test_bundles_contain_runs_with_equal_keys_in_order_and_at_most_one_run_per_lane(lanes: list[Run]) -> None:
    larger = [run.model_copy(update={"model": "2x32"}) for run in lanes]
    longer = lanes[0].model_copy(update={"tokens": 2 * lanes[0].tokens})
    packed = pack_bundles([*lanes, *larger, longer], Resources(lanes=3), 320, gpu=False)
    assert [len(bundle) for bundle in packed] == [2, 2, 2, 2, 1]
    assert [run for bundle in packed for run in bundle] == [*lanes, *larger, longer]
    assert all(len({bundle_key(run) for run in bundle}) == 1 for bundle in packed)
    assert pack_bundles(lanes, Resources(lanes=64), 320, gpu=False) == [lanes]
    alone = [[run] for run in lanes]
    assert pack_bundles(lanes, Resources(lanes="auto"), 320, gpu=False) == alone, "auto is one lane on a CPU"
    assert pack_bundles(lanes, Resources(lanes=4, processes_per_run=2), 320, gpu=True) == alone
    assert pack_bundles(lanes, Resources(lanes="auto"), 320, gpu=True) == [lanes]
    assert max_lanes(lanes[0], Resources(lanes="auto", gpu_memory_gb=0.004), 320, gpu=True) in (2, 3), (
        "limited by memory"
    )
    assert max_lanes(lanes[0], Resources(lanes="auto"), 320, gpu=True) == SATURATING_TOKENS // 256, (
        "limited by tokens per step"
    )
