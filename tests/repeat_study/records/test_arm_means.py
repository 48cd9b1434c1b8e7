"""TensorBoard shows one line per arm with the mean over its finished seeds, and no point twice."""

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.util.tensor_util import make_ndarray

from data_prep.token_store import TokenStore
from repeat_study.config.run import Run
from repeat_study.records.evaluations import append_evaluation
from repeat_study.records.run_directory import RunDirectory
from repeat_study.records.spec_record import spec_record
from repeat_study.records.tensorboard.arm_means import write_arm_means


def write(folder: Path, template: Run, store: TokenStore, end: float, **fields: object) -> str:
    """A finished run with three evaluations, which ends at test loss `end`."""
    run = Run.model_validate(template.model_dump() | {"evaluation": template.evaluation} | fields)
    directory = RunDirectory(folder / run.name)
    directory.make()
    directory.spec.write_text(json.dumps(spec_record(run, store)))
    steps = [0, run.steps // 2, run.steps]
    for step, loss in zip(steps, (6.0, 5.0, end), strict=True):
        row = {"step": step, "tokens": step * 256, "train_loss": loss, "test_loss": loss, "pool_loss": loss}
        timing = {"step": step, "time": 100.0 + step, "train_seconds": 1.0, "evaluation_seconds": 0.1}
        append_evaluation(directory, row, timing | {"saving_seconds": 0.0}, {})
    directory.finish(steps)
    return run.name


def shown(folder: Path, tag: str = "loss/test") -> dict[str, list[tuple[int, float]]]:
    """The points that TensorBoard shows for every arm."""
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    return {
        run.removeprefix("arms/"): [
            (event.step, float(make_ndarray(event.tensor_proto))) for event in multiplexer.Tensors(run, tag)
        ]
        for run, tags in multiplexer.PluginRunToTagToContent("scalars").items()
        if run.startswith("arms/") and tag in tags
    }


@pytest.fixture
def names(tmp_path: Path, runs: list[Run], store: TokenStore) -> list[str]:
    """Two seeds of a clean run, and one repeated run."""
    seeds = [write(tmp_path, runs[0], store, 4.0 + seed, repeats=1, seed=seed) for seed in (0, 1)]
    return [*seeds, write(tmp_path, runs[0], store, 4.25, repeats=4, repeated_fraction=0.5)]


def test_every_arm_has_the_mean_of_its_seeds(tmp_path: Path, names: list[str]) -> None:
    paths = write_arm_means(tmp_path, names)
    means = shown(tmp_path)
    assert means == {
        "1x16-clean": [(0, 6.0), (32 * 256, 5.0), (64 * 256, 4.5)],
        "1x16-f0.5-R4": [(0, 6.0), (32 * 256, 5.0), (64 * 256, 4.25)],
    }
    assert len(paths) == 2 and all((tmp_path / path).is_file() for path in paths)


def test_writing_again_changes_nothing_and_a_new_seed_replaces_the_mean(
    tmp_path: Path, names: list[str], runs: list[Run], store: TokenStore
) -> None:
    before = write_arm_means(tmp_path, names)
    stamps = [(tmp_path / path).stat().st_mtime_ns for path in before]
    assert write_arm_means(tmp_path, names) == before
    assert [(tmp_path / path).stat().st_mtime_ns for path in before] == stamps
    new = write(tmp_path, runs[0], store, 6.0, repeats=1, seed=2)
    write_arm_means(tmp_path, [*names, new])
    assert shown(tmp_path)["1x16-clean"] == [(0, 6.0), (32 * 256, 5.0), (64 * 256, 5.0)], "three points, not six"


def test_unfinished_runs_do_not_count_and_arms_without_runs_disappear(tmp_path: Path, names: list[str]) -> None:
    write_arm_means(tmp_path, names)
    (tmp_path / names[1] / "done.json").unlink()
    (tmp_path / names[2] / "done.json").unlink()
    write_arm_means(tmp_path, names)
    assert shown(tmp_path) == {"1x16-clean": [(0, 6.0), (32 * 256, 5.0), (64 * 256, 4.0)]}


def test_arms_with_the_same_label_are_told_apart(
    tmp_path: Path, names: list[str], runs: list[Run], store: TokenStore
) -> None:
    other = write(tmp_path, runs[0], store, 3.0, repeats=1, learning_rate=1e-3)
    write_arm_means(tmp_path, [*names, other])
    ends = {arm: points[-1][1] for arm, points in shown(tmp_path).items()}
    assert ends == {
        "1x16-clean-learning_rate0.003": 4.5,
        "1x16-clean-learning_rate0.001": 3.0,
        "1x16-f0.5-R4": 4.25,
    }
