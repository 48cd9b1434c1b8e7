"""Runs with a named pool and a mixture of sources: unchanged text, exact counts and exact resumes."""

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_prep.data_spec import DataSpec
from data_prep.errors import InputError
from data_prep.files import read_record
from data_prep.mixture import Stream
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run
from repeat_study.config.study import Study
from repeat_study.preparation import PreparedStudy, prepare_study
from repeat_study.records.outcome import Outcome
from repeat_study.records.run_directory import RunDirectory
from repeat_study.training.bundles import bundle_key
from repeat_study.training.dataset import mixture_dataset, tokens_on_device
from repeat_study.training.trainer import train, train_bundle
from tests.repeat_study.training.test_bundles import kill_at, run_in_process
from tests.repeat_study.training.test_trainer import assert_same_result

ARMS = [
    {"model": "1x16", "repeats": [0, 1, 4], "repeated_fraction": 0.25},
    {"model": "1x16", "repeats": [1, 3], "pool_tokens": 1024, "spacing": ["passes", "uniform"]},
    {"model": "1x16", "repeats": [1, 5], "pool_tokens": 640, "hold_fixed": "fresh"},
]


def packages(*names: str) -> dict[str, Any]:
    return {"kind": "files", "paths": [str(Path(os.__file__).parent / name) for name in names]}


@pytest.fixture(scope="module")
def declared(study: Study, data_spec: DataSpec) -> dict[str, Any]:
    """The fields of a study with a named pool, on the token store of all tests."""
    evaluation = {"even_points": 4, "log_points": 1, "test_sequences": 8, "pool_sequences": 4, "seen_sequences": 4}
    return {
        "name": "pools",
        "data": data_spec,
        "pool": {"source": packages("ctypes", "concurrent"), "max_tokens": 10**6},
        "training": study.training.model_dump() | {"tokens": 32 * 8 * 32},
        "evaluation": evaluation,
        "grid": ARMS,
    }


@pytest.fixture(scope="module")
def prepared(declared: dict[str, Any], data_dir: Path) -> PreparedStudy:
    return prepare_study(Study.model_validate(declared), data_dir)


@pytest.fixture(scope="module")
def mixed(declared: dict[str, Any], data_spec: DataSpec, data_dir: Path) -> PreparedStudy:
    """The same pool inside a mixture of three sources."""
    sources = {
        "main": data_spec.source.model_dump(),
        "library": packages("multiprocessing", "importlib"),
        "encodings": packages("encodings"),
    }
    mix = [
        {"name": name, "source": source, "share": share}
        for (name, source), share in zip(sources.items(), (0.5, 0.3, 0.2), strict=True)
    ]
    data = {"mix": mix, "vocabulary": 320, "max_tokens": 10**9, "test_fraction": 0.1}
    return prepare_study(Study.model_validate(declared | {"data": DataSpec.model_validate(data)}), data_dir)


@pytest.fixture(scope="module")
def lanes(prepared: PreparedStudy) -> list[Run]:
    """Three runs in a bundle: clean, with a fixed fraction, and with a pool of fixed size."""
    runs = prepared.runs(Path("runs"))
    return [
        run
        for run in runs
        if run.repeats in (0, 4) or (run.repeats, run.spacing, run.hold_fixed) == (3, "uniform", "total")
    ]


@pytest.fixture(scope="module")
def alone(lanes: list[Run], prepared: PreparedStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "pools"
    for run in lanes:
        assert train(run, prepared.store, folder) is Outcome.DONE
    return folder


def test_a_pool_from_the_training_source_has_the_same_text_as_an_unnamed_pool(
    declared: dict[str, Any], data_spec: DataSpec, data_dir: Path
) -> None:
    pool = {"source": data_spec.source.model_dump(), "max_tokens": data_spec.max_tokens}
    grid = [
        {"model": "1x16", "repeats": [4, 16], "repeated_fraction": 0.5, "pool_seed": [0, 1]}
        | {"spacing": ["passes", "uniform"], "unit": ["sequence", "document"]}
    ]
    named = prepare_study(Study.model_validate(declared | {"pool": pool, "grid": grid}), data_dir)
    unnamed = prepare_study(Study.model_validate(declared | {"pool": None, "grid": grid}), data_dir)
    assert named.store.fingerprint == unnamed.store.fingerprint and not named.further_tests
    pairs = list(zip(named.runs(Path("runs")), unnamed.runs(Path("runs")), strict=True))
    assert len(pairs) == 16
    for ours, before in pairs:
        assert ours.label == before.label and ours.identity != before.identity
        batches = [mixture_dataset(run, store.store) for run, store in ((ours, named), (before, unnamed))]
        assert all(torch.equal(batches[0][step], batches[1][step]) for step in range(ours.steps))
    with_size = {key: value for key, value in grid[0].items() if key != "repeated_fraction"} | {"pool_tokens": 1024}
    fixed = Study.model_validate(declared | {"pool": pool, "grid": [with_size | {"repeats": 4}]})
    by_size = prepare_study(fixed, data_dir).runs(Path("runs"))
    by_fraction = [run for run in unnamed.runs(Path("runs")) if run.repeats == 4]
    for ours, before in zip(by_size, by_fraction, strict=True):
        assert ours.pool == before.pool == 32
        batches = [mixture_dataset(run, unnamed.store) for run in (ours, before)]
        assert all(torch.equal(batches[0][step], batches[1][step]) for step in range(ours.steps))


def test_the_counts_of_every_arm_are_exact(prepared: PreparedStudy, mixed: PreparedStudy) -> None:
    for study in (prepared, mixed):
        runs = study.runs(Path("runs"))
        assert len(runs) == 9
        for run in runs:
            mixture, draw = run.mixture(), run.draw(study.store)
            streams = mixture.at(np.arange(mixture.positions))
            slots = Counter(streams.place[streams.stream == Stream.POOL].tolist())
            assert slots == dict.fromkeys(range(run.pool), run.repeats), "each pool sequence exactly R times"
            unique = streams.place[streams.stream == Stream.UNIQUE]
            assert sorted(unique) == list(range(run.positions - run.repeats * run.pool)), "each unique sequence once"
            rows = draw.locate(streams)
            assert len(set(rows[streams.stream == Stream.UNIQUE].tolist())) == len(unique)
            on_device = tokens_on_device([draw], torch.device("cpu"), 10**9)
            assert on_device is not None
            assert np.array_equal(on_device[rows].long().numpy() & 0xFFFF, draw.gather(rows))
        fresh = [run.mixture().unique_positions for run in runs if run.hold_fixed == "fresh"]
        assert fresh == [256 - 4, 256 - 4], "at most one step less than the fresh tokens of the control"
        assert [run.pool for run in runs if run.fixed_pool] == [32] * 4 + [20] * 2
        assert [run.is_clean_control for run in runs] == [True] + [False] * 8


def test_runs_of_a_mixture_record_the_counts_of_its_sources(mixed: PreparedStudy, tmp_path: Path) -> None:
    run = mixed.runs(Path("runs"))[2]
    assert train(run, mixed.store, tmp_path) is Outcome.DONE
    directory = RunDirectory(tmp_path / run.name)
    row, record = directory.rows()[-1], read_record(directory.spec)
    assert row["test_loss_pool_domain"] > 0 and row["test_loss_pool_domain"] != row["test_loss"]
    assert record["unique_sequences_by_source"] == {"main": 96, "library": 58, "encodings": 38}
    assert "pool_sequences_by_source" not in record


def test_a_bundle_with_named_pools_equals_single_runs_even_after_a_kill(
    lanes: list[Run], alone: Path, prepared: PreparedStudy, tmp_path: Path
) -> None:
    assert len(lanes) == 3 and len({bundle_key(run) for run in lanes}) == 1
    killed_at = {lanes[2].name: 16}
    assert run_in_process(lambda: train_bundle(lanes, prepared.store, tmp_path, kill_at(killed_at))) == -9
    assert list(train_bundle(lanes, prepared.store, tmp_path).values()) == [Outcome.DONE] * 3
    for run in lanes:
        assert_same_result(tmp_path / run.name, alone / run.name)
        assert len(RunDirectory(tmp_path / run.name).session_rows()) == 2


def test_runs_of_different_lengths_are_not_bundled(prepared: PreparedStudy) -> None:
    fresh = [run for run in prepared.runs(Path("runs")) if run.hold_fixed == "fresh"]
    assert [run.steps for run in fresh] == [34, 44] and bundle_key(fresh[0]) != bundle_key(fresh[1])


def test_a_missing_pool_store_is_named(prepared: PreparedStudy, lanes: list[Run], tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(prepared.store.folder.parent, data)
    assert prepared.pool
    shutil.rmtree(data / prepared.pool.folder.name)
    store = TokenStore(data / prepared.store.folder.name)
    ending = train_bundle([lanes[1]], store, tmp_path / "runs")[lanes[1].name]
    assert isinstance(ending, InputError) and f"no token store {prepared.pool.fingerprint}" in str(ending)


def test_runs_with_named_pools_can_be_parents_and_children(
    declared: dict[str, Any], lanes: list[Run], alone: Path, prepared: PreparedStudy
) -> None:
    grid = {"model": "1x16", "repeats": [0, 2], "pool_tokens": 512, "parent": ["clean", {"repeats": 4}]}
    data = {"source": packages("multiprocessing", "importlib"), "tokenizer_of": prepared.study.data, "vocabulary": 320}
    data |= {"max_tokens": 10**6, "test_fraction": 0.1}
    fields = {"name": "child", "data": DataSpec.model_validate(data), "grid": [grid], "parent_study": prepared.study}
    child = Study.model_validate(declared | fields | {"finetune": {"from": "pools"}})
    ready = prepare_study(child, prepared.store.folder.parent)
    runs = ready.runs(alone.parent)
    labels = ["from-clean", "from-f0.25-R4", "pool512-R2-from-clean", "pool512-R2-from-f0.25-R4"]
    assert [run.label for run in runs] == [f"1x16-{label}-s0" for label in labels]
    assert train(runs[3], ready.store, alone.parent / "child") is Outcome.DONE
    row = RunDirectory(alone.parent / "child" / runs[3].name).rows()[0]
    last = RunDirectory(alone / lanes[1].name).rows()[-1]
    assert (row["parent_pool_loss"], row["parent_test_loss"]) == (last["pool_loss"], last["test_loss"])
    assert row["test_loss_pool_domain"] == last["test_loss_pool_domain"]
