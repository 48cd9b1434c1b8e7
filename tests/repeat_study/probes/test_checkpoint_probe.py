"""Probing a run's checkpoint after training."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.resources import Resources
from repeat_study.config.run import Run
from repeat_study.probes.checkpoint_probe import probe
from repeat_study.probes.checkpoint_probe import trained as load
from repeat_study.records.evaluations import heads_of
from repeat_study.records.run_directory import RunDirectory
from repeat_study.training.trainer import train
from repeat_study_cli.probe_tables import tables_of


@pytest.fixture(scope="module")
def trained(study: Any, store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run = study.runs(store.fingerprint)[3]
    folder = tmp_path_factory.mktemp("trained")
    train(run, store, folder, resources=Resources(keep_checkpoints="log"))
    return RunDirectory(folder / run.name)


@pytest.fixture
def copied(trained: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy of the run that a test may spoil."""
    shutil.copytree(trained.path, tmp_path / "run")
    return RunDirectory(tmp_path / "run")


@pytest.mark.parametrize("step", [None, 8])
def test_a_checkpoint_gives_the_numbers_of_its_evaluation(
    step: int | None, trained: RunDirectory, data_dir: Path
) -> None:
    found = probe(load(trained.path, data_dir, step))
    row = next(row for row in trained.rows() if row["step"] == (step or 64))
    assert found.step == row["step"]
    assert found.found.row == {key: value for key, value in row.items() if key in found.found.row}
    heads = heads_of(trained, [row])[0]
    assert found.found.heads == {key: heads[key] for key in found.found.heads}
    first = trained.rows()[0]
    assert found.untrained.row == {key: value for key, value in first.items() if key in found.untrained.row}


def test_everything_is_shown_and_written(trained: RunDirectory, data_dir: Path, capsys: Any) -> None:
    from rich.console import Console

    found = probe(load(trained.path, data_dir), "A paragraph of the user's, to be copied again and again.")
    console = Console(width=300, record=True)
    for part in tables_of(found):
        console.print(part)
    shown = console.export_text()
    assert "4 copies of 1 paragraphs, 8 tokens each; the paper's 11 copies do not fit a context of 32" in shown
    assert "L0H0" in shown and "L1H0" in shown and "prefix matching" in shown
    assert "heads: 4 copies of 8 random tokens" in shown
    record = json.loads(json.dumps(found.record(), allow_nan=False))
    assert record["copies_and_tokens"] == {"copying": [4, 8], "heads": [4, 8]}
    assert record["heads"]["ablation_copying_gain_ci"] == [None, None]
    assert record["row"]["copying_loss_ci"] is None, "one paragraph has no interval"
    assert record["row"]["copying_loss"] != trained.rows()[-1]["copying_loss"]


def test_weights_that_are_not_the_runs_are_refused(copied: RunDirectory, data_dir: Path) -> None:
    with pytest.raises(InputError, match=r"step-000000003.pt: no such checkpoint; kept are the steps 1, 8, 64"):
        load(copied.path, data_dir, 3)
    weights = torch.load(copied.weights_at(8), weights_only=True)
    torch.save(weights | {"run": "0" * 64}, copied.weights_at(8))
    with pytest.raises(InputError, match=r"step-000000008.pt: a checkpoint of another spec \(00000000\) than"):
        load(copied.path, data_dir, 8)
    torch.save(weights | {"model": {"embedding": torch.zeros(1)}}, copied.weights_at(8))
    with pytest.raises(InputError, match=r"not weights of a 2x16 with a vocabulary of 320"):
        load(copied.path, data_dir, 8)
    copied.checkpoint.write_bytes(b"PK")
    with pytest.raises(InputError, match=r"last.ckpt: damaged"):
        load(copied.path, data_dir)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "of format 2; this version reads"),
        ({"learning_rate": 0.5}, "altered since it was written"),
        ({"learning_rate": "fast"}, "spec.json: learning_rate: input should be a valid number"),
    ],
)
def test_a_spec_that_is_not_this_versions_is_refused(
    changes: dict[str, Any], message: str, copied: RunDirectory, data_dir: Path
) -> None:
    copied.spec.write_text(json.dumps(json.loads(copied.spec.read_text()) | changes))
    with pytest.raises(InputError, match=message):
        load(copied.path, data_dir)


def test_a_store_that_is_not_there_is_named(copied: RunDirectory, store: TokenStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"no token store {store.fingerprint}, .* stores here: none"):
        load(copied.path, tmp_path)


def test_a_context_too_short_for_the_probe_is_one_line(
    runs: list[Run], store: TokenStore, data_dir: Path, tmp_path: Path
) -> None:
    run = runs[0].model_copy(update={"context": 7, "tokens": 7 * 8 * 64})
    train(run, store, tmp_path)
    with pytest.raises(InputError, match="a context of 7 tokens; the probe of heads needs 8 or more"):
        probe(load(tmp_path / run.name, data_dir))
