"""Exported folders load with transformers, compute our logits, and appear only when they are complete."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.export import exported_folder
from repeat_study.export.exported_folder import export, kept_steps, load_step, write_folder
from repeat_study.probes.checkpoint_probe import TrainedModel
from repeat_study.records.run_directory import RunDirectory
from tests.repeat_study.export.conftest import FAMILIES, randomize

Exported = Callable[[str], tuple[Any, TrainedModel]]


@pytest.fixture(scope="module")
def exported(families: dict[str, RunDirectory], data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Export a family's model with random weights, and load the folder with transformers. Returns both models."""

    def load(model: str) -> tuple[Any, TrainedModel]:
        directory = families[model]
        trained = load_step(directory, data_dir, None)
        randomize(trained.model)
        target = export(trained, directory, tmp_path_factory.mktemp("exported"))
        loaded, info = AutoModelForCausalLM.from_pretrained(target, trust_remote_code=True, output_loading_info=True)
        assert not any(info.values()), info  # no missing and no unexpected weights
        return loaded.eval(), trained

    return load


def sequences(store: TokenStore, count: int, length: int) -> Tensor:
    return torch.from_numpy(store.test[: count * length].astype("int64")).view(count, length)


@pytest.mark.parametrize("model", FAMILIES)
@torch.no_grad()
def test_transformers_computes_the_same_logits_loss_and_continuation(
    model: str, exported: Exported, store: TokenStore
) -> None:
    loaded, trained = exported(model)
    inputs = sequences(store, 4, 32)
    ours = trained.model(inputs[None])[0]
    result = loaded(inputs, labels=inputs)
    assert ours.abs().max() > 1
    torch.testing.assert_close(result.logits, ours, rtol=0, atol=1e-5)
    loss = torch.nn.functional.cross_entropy(ours[:, :-1].flatten(0, 1), inputs[:, 1:].flatten())
    torch.testing.assert_close(result.loss, loss)

    continued = inputs[:, :10]
    for _ in range(6):
        continued = torch.cat([continued, trained.model(continued[None])[0][:, -1:].argmax(dim=-1)], dim=1)
    padding = torch.zeros(4, 3, dtype=torch.int64)
    padded = torch.cat([padding, inputs[:, :10]], dim=1)
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": -1, "pad_token_id": 0}
    generated = loaded.generate(padded, attention_mask=torch.cat([padding, padding.new_ones(4, 10)], dim=1), **options)
    assert torch.equal(generated[:, 3:], continued)


@torch.no_grad()
def test_our_modeling_file_returns_attention_patterns_and_hidden_states(exported: Exported, store: TokenStore) -> None:
    loaded, trained = exported("2x32")
    inputs = sequences(store, 2, 20)
    result = loaded(inputs, output_attentions=True, output_hidden_states=True)
    recorded = []

    def record(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scores = (query @ key.mT) / query.shape[-1] ** 0.5
        recorded.append(scores.masked_fill(~torch.ones(20, 20, dtype=torch.bool).tril(), -torch.inf).softmax(dim=-1))
        return recorded[-1] @ value

    final = trained.model.residual(inputs[None], record)[0]
    torch.testing.assert_close(torch.stack(result.attentions), torch.stack(recorded), rtol=0, atol=1e-5)
    torch.testing.assert_close(result.hidden_states[-1], final, rtol=0, atol=1e-5)
    assert len(result.hidden_states) == trained.run.shape.layers + 1
    with pytest.raises(ValueError, match="33 tokens given, but the model's context is 32 tokens"):
        loaded(torch.zeros(1, 33, dtype=torch.int64))


def test_the_tokenizer_encodes_as_the_store_does(
    families: dict[str, RunDirectory], data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the store's tokenizer adds a token to every text by default."""
    trained = load_step(families["2x32"], data_dir, None)
    plain, adding = trained.store.tokenizer(), trained.store.tokenizer()
    adding.post_processor = TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    monkeypatch.setattr(TokenStore, "tokenizer", lambda store: adding)
    loaded = AutoTokenizer.from_pretrained(export(trained, families["2x32"], tmp_path), trust_remote_code=True)
    ids = sequences(trained.store, 1, 200)[0].tolist()
    text = plain.decode([number for number in ids if number != trained.store.end_of_text])
    assert loaded(text).input_ids == plain.encode(text).ids
    assert loaded.decode(loaded(text).input_ids) == text
    assert loaded.eos_token_id == trained.store.end_of_text


def test_every_kept_step_is_exported_with_its_own_weights_and_losses(
    families: dict[str, RunDirectory], data_dir: Path, tmp_path: Path
) -> None:
    directory = families["2x32-qwen"]
    steps = kept_steps(directory)
    assert steps == [1, 3, 8]
    rows = {row["step"]: row for row in directory.rows()}
    weights = set()
    for step in steps:
        target = export(load_step(directory, data_dir, step), directory, tmp_path)
        assert target == tmp_path / f"step-{step}"
        card = (target / "README.md").read_text()
        identity = json.loads(directory.spec.read_text())["identity"]
        for line in (
            f"| hash of the run's spec | `{identity}` |",
            f"| step | {step} of 8 |",
            f"| tokens trained on so far | {step * 256:,} of 2,048 |",
            "| repeats R | 2 over the entire run |",
            "| repeated fraction f | 0.5 of all tokens |",
            f"| test loss | {rows[step]['test_loss']:.4f} | on held-out text |",
            f'model = AutoModelForCausalLM.from_pretrained("PATH/step-{step}")',
        ):
            assert line in card.splitlines()
        assert (target / "spec.json").read_bytes() == directory.spec.read_bytes()
        weights.add((target / "model.safetensors").read_bytes())
    assert len(weights) == 3


@pytest.mark.parametrize("model", ["2x32", "2x32-qwen"])
def test_the_same_model_gives_the_same_bytes(
    model: str, families: dict[str, RunDirectory], data_dir: Path, tmp_path: Path
) -> None:
    first, second = (
        {
            path.name: path.read_bytes()
            for path in export(load_step(families[model], data_dir, 3), families[model], parent).iterdir()
        }
        for parent in (tmp_path / "a", tmp_path / "b")
    )
    assert first == second
    assert ("modeling_repeat_study.py" in first) == (model == "2x32")


def test_an_existing_folder_is_kept(families: dict[str, RunDirectory], data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "step-8").mkdir()
    target = export(load_step(families["2x32"], data_dir, 8), families["2x32"], tmp_path)  # an empty folder is replaced
    (target / "mine.txt").write_text("mine")
    names = sorted(path.name for path in target.iterdir())
    with pytest.raises(
        InputError, match=r"step-8: already exists, with other content; delete it or export to another folder"
    ):
        export(load_step(families["2x32"], data_dir, 8), families["2x32"], tmp_path)
    assert sorted(path.name for path in target.iterdir()) == names


def test_what_a_killed_export_left_behind_is_deleted(tmp_path: Path) -> None:
    files = {"config.json": b"{}", "model.safetensors": bytes(100)}
    code = (
        "import os, signal, sys, pathlib; from repeat_study.export.exported_folder import write_folder;"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL);"
        "write_folder(pathlib.Path(sys.argv[1]), {'config.json': b'{}'})"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "step-1"], check=False)
    (abandoned,) = tmp_path.iterdir()
    assert abandoned.name.startswith(".step-1.") and abandoned.name.endswith(".tmp")
    alive = tmp_path / ".step-1.1.tmp"  # of an export that is running
    alive.mkdir()
    with exported_folder._locked(alive):
        write_folder(tmp_path / "step-1", files)
    assert sorted(path.name for path in tmp_path.iterdir()) == [alive.name, "step-1"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "step-1").iterdir()} == files


def test_a_full_disk_leaves_nothing(small_disk: Path) -> None:
    files = {"config.json": b"{}", "model.safetensors": bytes(2_000_000)}
    with pytest.raises(InputError, match=r"exported/step-1: cannot be written: No space left on device"):
        write_folder(small_disk / "exported" / "step-1", files)
    assert not list(small_disk.iterdir())


def test_an_interrupted_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exported_folder.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "a" / "b" / "step-1", {"config.json": b"{}"})
    assert not list(tmp_path.iterdir())
