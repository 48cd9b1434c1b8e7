"""Damage to what a run has written: every flipped bit, altered record and forged file gives one line."""

import random
import shutil
from pathlib import Path

import pytest
import torch

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.checkpoints.checksum import COMMENT_BYTES, LABEL, check_checksum
from repeat_study.checkpoints.files import read_weights
from repeat_study.config.resources import Resources
from repeat_study.config.run import Run
from repeat_study.probes.checkpoint_probe import load_trained
from repeat_study.records.outcome import Outcome
from repeat_study.records.run_directory import RunDirectory
from repeat_study.training.trainer import train, train_bundle


def interrupted(run: Run, store: TokenStore, folder: Path, after: int = 39) -> RunDirectory:
    steps_left = iter(range(after))
    resources = Resources(keep_checkpoints="all")
    stopped = train(run, store, folder, should_stop=lambda: next(steps_left, None) is None, resources=resources)
    assert stopped is Outcome.INTERRUPTED
    return RunDirectory(folder / run.name)


@pytest.fixture(scope="module")
def stopped(study, store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:  # type: ignore[no-untyped-def]
    """A run that was stopped half-way, with all weights kept."""
    return interrupted(study.runs(store.fingerprint)[1], store, tmp_path_factory.mktemp("stopped"))


@pytest.fixture
def damaged(stopped: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy of it to damage."""
    return RunDirectory(Path(shutil.copytree(stopped.path, tmp_path / stopped.path.name)))


def flip_bit(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << (position % 8)
    path.write_bytes(content)


def test_a_flipped_bit_anywhere_in_a_checkpoint_is_noticed(
    damaged: RunDirectory, runs: list[Run], store: TokenStore
) -> None:
    intact = damaged.checkpoint.read_bytes()
    positions = [*random.Random(0).sample(range(len(intact)), 60), 0, len(intact) - 1, len(intact) - COMMENT_BYTES - 1]
    for position in positions:
        damaged.checkpoint.write_bytes(intact)
        flip_bit(damaged.checkpoint, position)
        with pytest.raises(InputError, match=r"last.ckpt: damaged \(.*\)") as caught:
            read_weights(damaged.checkpoint, runs[1])
        assert "\n" not in str(caught.value)


def test_a_damaged_checkpoint_is_refused_at_resume_and_by_probe(
    damaged: RunDirectory, runs: list[Run], store: TokenStore, data_dir: Path
) -> None:
    flip_bit(damaged.checkpoint, damaged.checkpoint.stat().st_size // 2)
    rows = damaged.metrics.read_bytes()
    message = r"last.ckpt: damaged \(it does not match its checksum\)"
    with pytest.raises(InputError, match=f"{message}; delete it to train the run from its start"):
        train(runs[1], store, damaged.path.parent)
    assert damaged.metrics.read_bytes() == rows, "nothing is changed"
    with pytest.raises(InputError, match=message):
        load_trained(damaged.path, data_dir)
    kept = damaged.weights_at(8)
    flip_bit(kept, kept.stat().st_size // 2)
    with pytest.raises(InputError, match=r"step-000000008.pt: damaged \(it does not match its checksum\)"):
        load_trained(damaged.path, data_dir, 8)


def test_checkpoints_without_a_checksum_are_accepted_and_their_records_checked(
    damaged: RunDirectory, runs: list[Run], store: TokenStore
) -> None:
    """As earlier versions wrote them: torch's zip file, whose CRC-32 torch does not look at."""
    sealed = damaged.checkpoint.read_bytes()
    assert sealed[-COMMENT_BYTES:].startswith(LABEL)
    torch.save(torch.load(damaged.checkpoint, weights_only=True), damaged.checkpoint)
    assert LABEL not in damaged.checkpoint.read_bytes()
    without = damaged.checkpoint.read_bytes()
    weight = torch.load(damaged.checkpoint, weights_only=True)["state_dict"]["model.embedding"]
    flip_bit(damaged.checkpoint, without.index(weight.numpy().tobytes()))
    with pytest.raises(InputError, match=r"damaged \(its record .*data/\d+ does not match its checksum\)"):
        train(runs[1], store, damaged.path.parent)
    damaged.checkpoint.write_bytes(without)
    assert train(runs[1], store, damaged.path.parent) is Outcome.DONE
    check_checksum(damaged.checkpoint)
    assert damaged.checkpoint.read_bytes()[-COMMENT_BYTES:].startswith(LABEL), "the next checkpoint has one"


def test_a_damaged_checkpoint_stops_its_own_lane_only(runs: list[Run], store: TokenStore, tmp_path: Path) -> None:
    bundle = [run for run in runs if run.model == "1x16"]
    steps_left = iter(range(20))
    train_bundle(bundle, store, tmp_path, should_stop=lambda: next(steps_left, None) is None)
    checkpoint = RunDirectory(tmp_path / bundle[0].name).checkpoint
    flip_bit(checkpoint, checkpoint.stat().st_size // 2)
    endings = train_bundle(bundle, store, tmp_path)
    assert "does not match its checksum" in str(endings[bundle[0].name])
    assert [endings[run.name] for run in bundle[1:]] == [Outcome.DONE] * 2
