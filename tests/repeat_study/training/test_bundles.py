"""Runs trained in lockstep, beside the same runs alone: the same to the bit on a CPU, whatever happens to them."""

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
from repeat_study.config.resources import Accelerator, Keep, Precision, Resources
from repeat_study.config.run import Run
from repeat_study.records.outcome import Outcome, Progress
from repeat_study.records.run_directory import RunDirectory, Status
from repeat_study.training.bundles import SATURATING_TOKENS, bundle_key, max_lanes, pack_bundles
from repeat_study.training.callback import Diverged
from repeat_study.training.lightning_module import same_recipe
from repeat_study.training.trainer import train, train_bundle
from tests.repeat_study.training.test_trainer import assert_same_result

# R, f, spacing, seed, pool, learning rate and its schedule, decay and clipping of each lane.
LANES: tuple[dict[str, Any], ...] = (
    {"repeats": 1},
    {"repeats": 4, "repeated_fraction": 0.5, "seed": 1, "learning_rate": 1e-2, "gradient_clip": 0.1},
    {"repeats": 16, "repeated_fraction": 0.5, "spacing": "uniform", "weight_decay": 1.0, "warmup_fraction": 0.2},
    {"repeats": 32, "repeated_fraction": 0.25, "pool_seed": 3, "final_learning_rate_fraction": 0.5},
)


@pytest.fixture(scope="module")
def lanes(study: Any, store: TokenStore) -> list[Run]:
    template = study.runs(store.fingerprint)[-1]
    fields = template.model_dump() | {"evaluation": template.evaluation, "model": "2x16", "gradient_clip": 0.3}
    return [Run.model_validate(fields | lane) for lane in LANES]


@pytest.fixture(scope="module")
def alone(lanes: list[Run], store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    for run in lanes:
        assert train(run, store, folder, resources=Resources(keep_checkpoints=Keep.LOG)) is Outcome.DONE
    return folder


def killed_at(steps: dict[str, int]) -> Callable[[Progress], None]:
    def watch(seen: Progress) -> None:
        if seen.step >= steps.get(seen.run, 10**9) and not seen.resumed:
            os.kill(os.getpid(), signal.SIGKILL)

    return watch


def in_a_process(work: Callable[[], object]) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(120)
    return process.exitcode


@pytest.mark.parametrize("style", ["2x16", "2x32-qwen", "1x16-attn"])
def test_lanes_end_as_the_same_runs_alone(
    style: str, lanes: list[Run], alone: Path, store: TokenStore, tmp_path: Path
) -> None:
    """Losses, probes of every head, optimiser: whatever differs between lanes, and with clipping at work; with several
    recipes in the optimiser and with one."""
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
    seen: list[Progress] = []
    endings = train_bundle(runs, store, tmp_path, seen.append)
    assert list(endings.values()) == [Outcome.DONE] * 4
    for run in runs:
        assert_same_result(tmp_path / run.name, alone / run.name)
        assert [one.step for one in seen if one.run == run.name] == run.evaluation.steps(run.steps)
    norms = [row["gradient_norm"] for row in RunDirectory(tmp_path / runs[1].name).rows()[1:]]
    assert min(norms) > 0.1, "every step of this lane was clipped"
    assert RunDirectory(tmp_path / runs[0].name).session_rows()[0]["lanes"] == 4


def test_weights_that_are_kept_are_each_runs_own(
    lanes: list[Run], alone: Path, store: TokenStore, tmp_path: Path
) -> None:
    train_bundle(lanes, store, tmp_path, resources=Resources(keep_checkpoints=Keep.LOG))
    for run in lanes:
        kept = sorted((alone / run.name / "checkpoints").glob("step-*.pt"))
        assert len(kept) > 1
        for path in kept:
            own = torch.load(tmp_path / run.name / "checkpoints" / path.name, weights_only=True)
            wanted = torch.load(path, weights_only=True)
            assert (own["run"], own["step"]) == (wanted["run"], wanted["step"])
            assert all(torch.equal(own["model"][name], value) for name, value in wanted["model"].items())
            assert path.stat().st_size * 1.1 > (tmp_path / run.name / "checkpoints" / path.name).stat().st_size


def test_a_lane_that_diverges_is_marked_failed_and_the_others_do_not_notice(
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
        assert [row["lanes"] for row in sessions] == [4, 3], "from the next evaluation on it costs nothing"
    both = train_bundle([ruined.model_copy(update={"seed": seed}) for seed in (5, 6)], store, tmp_path)
    assert all(isinstance(ending, Diverged) for ending in both.values()), "and where none is left, all are told of"


def test_killed_runs_go_on_in_another_packing_and_alone(
    lanes: list[Run], alone: Path, store: TokenStore, tmp_path: Path
) -> None:
    """Killed between the first lane's record and the others', so that lanes stand at different steps; then two of them go on
    together, one alone, and one that was never begun with one that was."""
    first, second, third, fourth = lanes
    code = in_a_process(lambda: train_bundle([first, second, third], store, tmp_path, killed_at({second.name: 24})))
    assert code == -signal.SIGKILL
    code = in_a_process(lambda: train_bundle([second, third], store, tmp_path, killed_at({third.name: 40})))
    assert code == -signal.SIGKILL
    steps = [checkpointed_step(run, RunDirectory(tmp_path / run.name)) for run in lanes]
    assert steps[3] == 0 and len(set(steps)) == 3, steps
    started: list[tuple[str, int]] = []
    endings = train_bundle(lanes, store, tmp_path, lambda seen: started.append((seen.run, seen.step)))
    assert set(endings.values()) == {Outcome.DONE}
    for run in lanes:
        assert_same_result(tmp_path / run.name, alone / run.name)
    assert started[0] == (fourth.name, 0), "the one that is furthest behind goes first, and the others join it"
    bundle_sizes = [row["lanes"] for row in RunDirectory(tmp_path / fourth.name).session_rows()]
    assert bundle_sizes == [1, 2, 4]


def test_lanes_of_one_recipe_are_killed_and_packed_anew_with_one_that_has_another(
    lanes: list[Run], alone: Path, store: TokenStore, tmp_path: Path
) -> None:
    """In the optimiser they are one tensor, then each its own, then one again."""
    one, other = lanes[0], lanes[0].model_copy(update={"seed": 4})
    train(other, store, alone)
    code = in_a_process(lambda: train_bundle([one, other], store, tmp_path, killed_at({other.name: 24})))
    assert code == -signal.SIGKILL
    asked = iter(range(10_000))
    train_bundle(lanes[1:2], store, tmp_path, should_stop=lambda: next(asked) == 15)
    code = in_a_process(lambda: train_bundle([other, *lanes[:2]], store, tmp_path, killed_at({one.name: 48})))
    assert code == -signal.SIGKILL
    assert set(train_bundle([one, other], store, tmp_path).values()) == {Outcome.DONE}
    assert train(lanes[1], store, tmp_path) is Outcome.DONE
    for run in (one, other, lanes[1]):
        assert_same_result(tmp_path / run.name, alone / run.name)


def test_a_bundle_that_is_asked_to_stop_saves_every_run(
    lanes: list[Run], alone: Path, store: TokenStore, tmp_path: Path
) -> None:
    asked = iter(range(10_000))
    endings = train_bundle(lanes, store, tmp_path, should_stop=lambda: next(asked) == 18)
    assert set(endings.values()) == {Outcome.INTERRUPTED}
    assert {checkpointed_step(run, RunDirectory(tmp_path / run.name)) for run in lanes} == {19}
    assert train(lanes[2], store, tmp_path) is Outcome.DONE
    again = train_bundle(lanes, store, tmp_path)
    assert list(again.values()) == [Outcome.DONE, Outcome.DONE, Outcome.ALREADY_DONE, Outcome.DONE]
    for run in lanes:
        assert_same_result(tmp_path / run.name, alone / run.name)


def test_where_lanes_stand_at_different_steps_a_stop_stops_those_too_that_wait(
    lanes: list[Run], alone: Path, store: TokenStore, tmp_path: Path
) -> None:
    shutil.copytree(alone / lanes[0].name, tmp_path / lanes[0].name)
    asked = iter(range(10_000))
    train_bundle(lanes[1:2], store, tmp_path, should_stop=lambda: next(asked) == 30)
    asked = iter(range(10_000))
    endings = train_bundle(lanes, store, tmp_path, should_stop=lambda: next(asked) == 4)
    assert list(endings.values()) == [Outcome.ALREADY_DONE] + [Outcome.INTERRUPTED] * 3
    steps = [checkpointed_step(run, RunDirectory(tmp_path / run.name)) for run in lanes[1:]]
    assert steps == [31, 5, 5]


def test_a_lane_whose_directory_cannot_be_used_stops_no_other(
    lanes: list[Run], alone: Path, store: TokenStore, tmp_path: Path
) -> None:
    """A damaged checkpoint, records that do not reach up to it, and another run's spec in its place."""
    asked = iter(range(10_000))
    train_bundle(lanes, store, tmp_path, should_stop=lambda: next(asked) == 18)
    damaged, short, other, whole = (RunDirectory(tmp_path / run.name) for run in lanes)
    damaged.checkpoint.write_bytes(damaged.checkpoint.read_bytes()[:1000])
    short.metrics.write_text("".join(short.metrics.read_text().splitlines(keepends=True)[:-1]))
    shutil.copy(whole.spec, other.spec)
    endings = train_bundle(lanes, store, tmp_path)
    said = [str(ending) for ending in endings.values()]
    assert all(isinstance(ending, InputError) for ending in list(endings.values())[:3])
    assert "damaged" in said[0] and "lacks evaluations up to step" in said[1] and "made by another spec" in said[2]
    assert endings[lanes[3].name] is Outcome.DONE
    assert_same_result(whole.path, alone / lanes[3].name)
    assert damaged.status() is Status.INTERRUPTED, "no fault of the run's"


@pytest.mark.parametrize("changes", [{"context": 31}, {"sequences_per_step": 7, "context": 37, "model": "2x64"}])
def test_where_tensors_are_not_as_aligned_as_alone_lanes_are_near(
    changes: dict[str, Any], lanes: list[Run], store: TokenStore, tmp_path: Path
) -> None:
    fields = {"repeats": 1, "repeated_fraction": 0.0, "spacing": "passes", "pool_seed": 0, "tokens": 20 * 7 * 37}
    template = lanes[0].model_dump() | {"evaluation": lanes[0].evaluation, **fields, **changes}
    runs = [Run.model_validate(template | {"seed": seed}) for seed in range(3)]
    train_bundle(runs, store, tmp_path / "together")
    for run in runs:
        train(run, store, tmp_path / "alone")
        found, wanted = (RunDirectory(tmp_path / where / run.name).rows() for where in ("together", "alone"))
        losses = [[row["test_loss"], row["pool_loss"], row["copying_loss"]] for row in found]
        expected = [[row["test_loss"], row["pool_loss"], row["copying_loss"]] for row in wanted]
        assert np.array(losses) == pytest.approx(np.array(expected), abs=1e-6)


def test_every_process_that_waits_is_given_something(lanes: list[Run]) -> None:
    packed = pack_bundles(lanes, Resources(lanes=8), 320, gpu=False, workers=3)
    assert [len(bundle) for bundle in packed] == [1, 1, 2] and [run for bundle in packed for run in bundle] == lanes
    assert [len(bundle) for bundle in pack_bundles(lanes, Resources(lanes=8), 320, gpu=False, workers=9)] == [1] * 4


def test_runs_are_packed_by_what_they_have_to_share(lanes: list[Run]) -> None:
    larger = [run.model_copy(update={"model": "2x32"}) for run in lanes]
    longer = lanes[0].model_copy(update={"tokens": 2 * lanes[0].tokens})
    packed = pack_bundles([*lanes, *larger, longer], Resources(lanes=3), 320, gpu=False)
    assert [len(bundle) for bundle in packed] == [2, 2, 2, 2, 1]
    assert [run for bundle in packed for run in bundle] == [*lanes, *larger, longer]
    assert all(len({bundle_key(run) for run in bundle}) == 1 for bundle in packed)
    assert pack_bundles(lanes, Resources(lanes=64), 320, gpu=False) == [lanes]
    alone = [[run] for run in lanes]
    assert pack_bundles(lanes, Resources(lanes="auto"), 320, gpu=False) == alone, "lanes gain nothing on a CPU"
    assert pack_bundles(lanes, Resources(lanes=4, processes_per_run=2), 320, gpu=True) == alone
    assert pack_bundles(lanes, Resources(lanes="auto"), 320, gpu=True) == [lanes]
    assert max_lanes(lanes[0], Resources(lanes="auto", gpu_memory_gb=0.004), 320, gpu=True) in (2, 3), "as many as fit"
    assert max_lanes(lanes[0], Resources(lanes="auto"), 320, gpu=True) == SATURATING_TOKENS // 256, (
        "as many as keep it busy"
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_lanes_end_near_the_same_runs_alone(lanes: list[Run], store: TokenStore, tmp_path: Path) -> None:
    """Its batched kernels may sum in another order; in float32 that is all."""
    resources = Resources(accelerator=Accelerator.CUDA, precision=Precision.FLOAT32)
    together = train_bundle(lanes, store, tmp_path / "together", resources=resources)
    assert set(together.values()) == {Outcome.DONE}
    for run in lanes:
        assert train(run, store, tmp_path / "alone", resources=resources) is Outcome.DONE
        found, wanted = (RunDirectory(tmp_path / where / run.name).rows() for where in ("together", "alone"))
        for row, alone_row in zip(found, wanted, strict=True):
            assert row["test_loss"] == pytest.approx(alone_row["test_loss"], abs=1e-3), row["step"]
