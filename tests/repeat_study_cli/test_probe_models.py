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
TWO_SEEDS = HEADER + "m0,10k,1M,0.5,10,0\nm1,10k,1M,0.5,10,1\n"
FIGURES = ("copying_along_repeats", "prefix_matching_along_repeats")


@pytest.fixture
def folder(store: TokenStore, tmp_path: Path) -> Path:
    """A folder with the models m0 and m1, and a table of both."""
    for seed in range(2):
        write_decoder(tmp_path / f"m{seed}", Decoder(shape_of("1x16-qwen"), VOCABULARY, 64, [seed]), store)
    (tmp_path / "models.csv").write_text(TWO_SEEDS)
    return tmp_path


def test_folders_and_runs_are_measured_and_drawn_along_r(folder: Path, trained: Path, invoke: Invoke) -> None:
    run = next((trained / "runs" / "tiny").glob("1x16-clean-*"))
    (folder / "models.csv").write_text(f"{HEADER}m0,10k,1M,0.5,10,0\nm1,10k,1M,0.5,100,0\n{run},10k,1M,0,1,0\n")
    done = invoke("probe", "--table", "models.csv", "--data-dir", trained / "data", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "models: 3; measured: 3; unchanged since the last call: 0" in done.stdout
    out = folder / "models"
    scores = pd.read_csv(out / "models.csv")
    assert scores.path.tolist() == ["m0", "m1", str(run)] and scores.repeats.tolist() == [10, 100, 1]
    assert scores[["prefix_matching", "copying_loss"]].notna().all(axis=None)
    assert scores.test_loss.notna().tolist() == [False, False, True], "only the run has its own texts"
    for figure in FIGURES:
        assert all((out / "figures" / f"{figure}.{form}").stat().st_size for form in ("png", "svg", "pdf"))
        assert (out / "tables" / f"{figure}.csv").is_file()


def test_models_are_measured_again_only_if_they_have_changed(
    folder: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = folder / "m1" / "tokenizer.json"
    content = tokenizer.read_bytes()
    tokenizer.write_text("{}")  # detected only after the first model was measured
    command = ("probe", "--table", "models.csv", "--out", "my scores")
    failed = invoke(*command, cwd=folder)
    assert failed.returncode == 2 and failed.stderr.startswith("repeat-study: models.csv, line 3: ")
    assert "not a tokenizer.json" in failed.stderr and failed.stderr.count("\n") == 1
    tokenizer.write_bytes(content)
    repaired = invoke(*command, cwd=folder)
    assert "measured: 1; unchanged since the last call: 1" in repaired.stdout
    assert f"no figure {FIGURES[0]}: needs models with two or more values of R" in repaired.stdout
    saved = json.loads(next((folder / "my scores" / "scores").glob("m0-*.json")).read_text())
    assert saved["scores"]["model"] == "m0" and "model.safetensors" in saved["files"]

    os.utime(folder / "m1" / "model.safetensors", ns=(0, 0))  # another time, but the same content
    (folder / "m0" / "model.safetensors").write_bytes((folder / "m1" / "model.safetensors").read_bytes())
    measured = []
    original = saved_scores.probe_path
    monkeypatch.setattr(
        saved_scores,
        "probe_path",
        lambda path, options, report: measured.append(path.name) or original(path, options, report=report),
    )
    assert "measured: 1; unchanged since the last call: 1" in invoke(*command, cwd=folder).stdout
    assert measured == ["m0"], "only its weights have changed"
    first, second = (
        pd.read_csv(folder / "my scores" / "models.csv").drop(columns=["path", "seed"]).iloc[row] for row in (0, 1)
    )
    assert first.equals(second), "now both folders contain the same model"
    invoke(*command, "--context", "32", cwd=folder)
    assert measured == ["m0", "m0", "m1"], "another context gives other scores"


def test_bad_models_are_reported_before_anything_is_measured(folder: Path, invoke: Invoke) -> None:
    with (folder / "models.csv").open("a") as file:
        file.write("missing,10k,1M,0.5,1000,0\n")
    refused = invoke("probe", "--table", "models.csv", cwd=folder)
    assert refused.returncode == 2 and "models.csv, line 4: missing: no such folder" in refused.stderr
    assert not (folder / "models").exists()
    for arguments in (
        ("m0", "--table", "models.csv"),
        ("--table", "models.csv", "--step", "3"),
        (),
        ("m0", "--out", "x"),
    ):
        assert invoke("probe", *arguments, cwd=folder).returncode == 2
