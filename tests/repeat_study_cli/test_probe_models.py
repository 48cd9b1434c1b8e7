"""`probe --table`: many models, one table and two figures."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from data_prep.token_store import TokenStore
from repeat_study.config.model_sizes import shape_of
from repeat_study.model.decoder import Decoder
from repeat_study.probes import saved_scores
from tests.repeat_study.hugging_face_models import VOCABULARY, write_decoder
from tests.repeat_study_cli.conftest import Invoke

HEADER = "path,params,tokens,fraction,repeats,seed\n"
FIGURES = ("copying_along_repeats", "prefix_matching_along_repeats")


@pytest.fixture
def table(store: TokenStore, trained: Path, tmp_path: Path) -> Path:
    """Two folders and one run directory."""
    for seed in range(2):
        write_decoder(tmp_path / f"m{seed}", Decoder(shape_of("1x16-qwen"), VOCABULARY, 64, [seed]), store)
    run = next((trained / "runs" / "tiny").glob("1x16-clean-*"))
    lines = ["m0,10k,1M,0.5,10,0", "m1,10k,1M,0.5,100,0", f"{run},10k,1M,0,1,0"]
    (tmp_path / "models.csv").write_text(HEADER + "\n".join(lines) + "\n")
    return tmp_path / "models.csv"


def test_a_table_of_models_is_measured_once(
    table: Path, trained: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = table.parent
    command = ("probe", "--table", table.name, "--data-dir", trained / "data")
    done = invoke(*command, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "models: 3; measured: 3; unchanged since the last call: 0" in done.stdout
    out = folder / "models"
    scores = pd.read_csv(out / "models.csv")
    assert scores.repeats.tolist() == [10, 100, 1] and scores[["prefix_matching", "copying_loss"]].notna().all(
        axis=None
    )
    assert scores.test_loss.notna().tolist() == [False, False, True], "only the run has its own texts"
    for figure in FIGURES:
        assert all((out / "figures" / f"{figure}.{form}").stat().st_size for form in ("png", "svg", "pdf"))
        assert (out / "tables" / f"{figure}.csv").is_file()

    weights = folder / "m0" / "model.safetensors"
    os.utime(folder / "m1" / "model.safetensors", ns=(0, 0))  # another time, but the same content
    weights.write_bytes((folder / "m1" / "model.safetensors").read_bytes())
    measured = []
    original = saved_scores.probe_path
    monkeypatch.setattr(
        saved_scores, "probe_path", lambda path, options: measured.append(path) or original(path, options)
    )
    again = invoke(*command, cwd=folder)
    assert "models: 3; measured: 1; unchanged since the last call: 2" in again.stdout
    assert [path.name for path in measured] == ["m0"], "only its weights have changed"
    first, second = (pd.read_csv(out / "models.csv").drop(columns=["path", "repeats"]).iloc[row] for row in (0, 1))
    assert first.equals(second), "now both folders contain the same model"


def test_an_interrupted_call_keeps_the_scores_of_finished_models(table: Path, trained: Path, invoke: Invoke) -> None:
    folder = table.parent
    tokenizer = folder / "m1" / "tokenizer.json"
    content = tokenizer.read_bytes()
    tokenizer.write_text("{}")  # found only after the first model was measured
    command = ("probe", "--table", table.name, "--data-dir", trained / "data", "--out", "scores of models")
    failed = invoke(*command, cwd=folder)
    assert failed.returncode == 2 and failed.stderr.startswith("repeat-study: models.csv, line 3: ")
    assert "not a tokenizer.json" in failed.stderr and failed.stderr.count("\n") == 1
    assert len(list((folder / "scores of models" / "scores").glob("m0-*.json"))) == 1
    tokenizer.write_bytes(content)
    assert "measured: 2; unchanged since the last call: 1" in invoke(*command, cwd=folder).stdout
    saved = json.loads(next((folder / "scores of models" / "scores").glob("m0-*.json")).read_text())
    assert saved["scores"]["model"] == "m0" and saved["files"]["model.safetensors"][2]


def test_bad_models_are_reported_before_anything_is_measured(table: Path, invoke: Invoke) -> None:
    with table.open("a") as file:
        file.write("missing,10k,1M,0.5,1000,0\n")
    refused = invoke("probe", "--table", table.name, cwd=table.parent)
    assert refused.returncode == 2 and "models.csv, line 5: missing: no such folder" in refused.stderr
    assert not (table.parent / "models").exists()
    for arguments in (("m0", "--table", table.name), ("--table", table.name, "--step", "3"), (), ("m0", "--out", "x")):
        assert invoke("probe", *arguments, cwd=table.parent).returncode == 2
