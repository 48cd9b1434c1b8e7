"""Probes on the checkpoint of a run after training."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.corpora import StudyTexts
from repeat_study.config.resources import Resources
from repeat_study.config.run import Run
from repeat_study.probes.checkpoint_probe import load_trained, probe
from repeat_study.records.evaluations import heads_of
from repeat_study.records.run_directory import RunDirectory
from repeat_study.training.trainer import train
from repeat_study_cli.probe_tables import tables_of


@pytest.fixture(scope="module")
def trained(study: Any, store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run = study.runs(StudyTexts(store.fingerprint))[3]
    folder = tmp_path_factory.mktemp("trained")
    train(run, store, folder, resources=Resources(keep_checkpoints="log"))
    return RunDirectory(folder / run.name)


@pytest.fixture
def copy_of_run(trained: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy of the run that a test may damage."""
    return RunDirectory(Path(shutil.copytree(trained.path, tmp_path / trained.path.name)))


@pytest.mark.parametrize("step", [None, 8])
def test_probing_a_checkpoint_reproduces_its_evaluation(
    step: int | None, trained: RunDirectory, data_dir: Path
) -> None:
    probed = probe(load_trained(trained.path, data_dir, step))
    row = next(row for row in trained.rows() if row["step"] == (step or 64))
    assert probed.source["step"] == row["step"]
    assert probed.trained.row == {key: value for key, value in row.items() if key in probed.trained.row}
    heads = heads_of(trained, [row])[0]
    measured = probed.trained.tables["heads"]
    assert measured == {key: heads[key] for key in measured}
    first = trained.rows()[0]
    assert probed.untrained.row == {key: value for key, value in first.items() if key in probed.untrained.row}


def test_every_number_is_printed_and_written(trained: RunDirectory, data_dir: Path, capsys: Any) -> None:
    from rich.console import Console

    probed = probe(load_trained(trained.path, data_dir), "A paragraph of the user's, to be copied again and again.")
    console = Console(width=300, record=True)
    for table in tables_of(probed):
        console.print(table)
    output = console.export_text()
    assert "4 copies of 1 paragraph, 8 tokens each; the paper's 11 copies do not fit a context of 32" in output
    assert "L0H0" in output and "L1H0" in output and "prefix matching" in output
    assert "heads: 4 copies of 8 random tokens" in output
    assert "± " not in output.split("Attention heads: value")[1].partition("\n")[2], "no sign without an interval"
    record = json.loads(json.dumps(probed.record(), allow_nan=False))
    assert record["copies_and_tokens"] == {"copying": [4, 8], "heads": [4, 8]}
    assert record["heads"]["ablation_copying_gain_ci"] == [None, None]
    assert record["row"]["copying_loss_ci"] is None, "one paragraph has no interval"
    assert record["row"]["copying_loss"] != trained.rows()[-1]["copying_loss"]


def test_another_runs_weights_are_refused(copy_of_run: RunDirectory, data_dir: Path) -> None:
    with pytest.raises(InputError, match=r"step-000000003.pt: no such checkpoint; weights of steps 1, 8, 64 were kept"):
        load_trained(copy_of_run.path, data_dir, 3)
    weights = torch.load(copy_of_run.weights_at(8), weights_only=True)
    torch.save(weights | {"run": "0" * 64}, copy_of_run.weights_at(8))
    with pytest.raises(InputError, match=r"step-000000008.pt: belongs to another spec \(00000000\), not"):
        load_trained(copy_of_run.path, data_dir, 8)
    torch.save(weights | {"model": {"embedding": torch.zeros(1)}}, copy_of_run.weights_at(8))
    with pytest.raises(InputError, match=r"weights do not fit a 2x16 model with a vocabulary of 320"):
        load_trained(copy_of_run.path, data_dir, 8)
    copy_of_run.checkpoint.write_bytes(b"PK")
    with pytest.raises(InputError, match=r"last.ckpt: damaged"):
        load_trained(copy_of_run.path, data_dir)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2 found; this version reads"),
        ({"learning_rate": 0.5}, "altered since it was written"),
        ({"learning_rate": "fast"}, "spec.json: learning_rate: input should be a valid number"),
    ],
)
def test_a_spec_of_another_version_or_edited_by_hand_is_refused(
    changes: dict[str, Any], message: str, copy_of_run: RunDirectory, data_dir: Path
) -> None:
    copy_of_run.spec.write_text(json.dumps(json.loads(copy_of_run.spec.read_text()) | changes))
    with pytest.raises(InputError, match=message):
        load_trained(copy_of_run.path, data_dir)


def test_a_missing_store_is_reported(copy_of_run: RunDirectory, store: TokenStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"no token store {store.fingerprint}, .* stores in this folder: none"):
        load_trained(copy_of_run.path, tmp_path)


def test_a_context_too_short_for_the_heads_probe_is_refused(
    runs: list[Run], store: TokenStore, data_dir: Path, tmp_path: Path
) -> None:
    run = runs[0].model_copy(update={"context": 7, "tokens": 7 * 8 * 64})
    train(run, store, tmp_path)
    with pytest.raises(InputError, match="a context of 7 tokens is too short; the heads probe needs 8 or more"):
        probe(load_trained(tmp_path / run.name, data_dir))
