"""Small models in Hugging Face folders, among them a GPT-2 with a hand-built induction circuit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from data_prep.token_store import TokenStore
from repeat_study.export.conversion import configuration, weights
from repeat_study.model.decoder import Decoder
from repeat_study.probes.probed_model import ProbedModel

VOCABULARY, CONTEXT = 320, 128  # the vocabulary of the store's tokenizer
SPECIAL = {"bos_token_id": 0, "eos_token_id": 0}
SMALL_GPT2 = {"vocab_size": VOCABULARY, "n_positions": CONTEXT, "n_layer": 2, "n_head": 2, **SPECIAL}


def write_decoder(folder: Path, model: Decoder, store: TokenStore | None, **changes: Any) -> Path:
    """Write a decoder's folder, with the store's tokenizer if a store is given. `changes`: entries of config.json."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(configuration(model) | {"eos_token_id": 0} | changes))
    save_file(weights(model), folder / "model.safetensors", {"format": "pt"})
    if store:
        copy_tokenizer(store, folder)
    return folder


def copy_tokenizer(store: TokenStore, folder: Path) -> None:
    (folder / "tokenizer.json").write_bytes((store.folder / "tokenizer.json").read_bytes())


def save_transformer(folder: Path, model: Any, store: TokenStore | None) -> Path:
    """Save a model of transformers, with the store's tokenizer if a store is given."""
    model.save_pretrained(folder)
    if store:
        copy_tokenizer(store, folder)
    return folder


@torch.no_grad()
def gpt2_with_induction_circuit() -> Any:
    """A GPT-2 with one previous-token head and one induction head; the other heads do nothing.

    The residual stream has three groups of dimensions: the token, its position, and the previous token. Head 0 of layer 0 attends
    to the previous position and writes the token there to the third group. Head 0 of layer 1 attends where the third group
    matches the current token, and predicts the token there.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    width, code = 256, 64
    token, position, previous = slice(0, 64), slice(64, 128), slice(128, 192)
    config = GPT2Config(**SMALL_GPT2, n_embd=width)
    model = GPT2LMHeadModel(config)
    for name, parameter in model.named_parameters():
        if ".ln_" not in name:
            parameter.zero_()
    generator = torch.Generator().manual_seed(0)
    signs = torch.stack([torch.randperm(code, generator=generator) for _ in range(VOCABULARY)]) % 2 * 2.0 - 1
    model.transformer.wte.weight[:, token] = signs / code**0.5  # unit vectors that are almost orthogonal
    rates = 10_000.0 ** (-torch.arange(0, code, 2) / code)
    angles = torch.arange(CONTEXT)[:, None] * rates
    places = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1) / (code / 2) ** 0.5
    model.transformer.wpe.weight[:, position] = places
    before, induction = (block.attn for block in model.transformer.h)
    # LayerNorm scales a residual stream of n unit vectors by (width / n)^0.5.
    two, three = ((width / vectors) ** 0.5 for vectors in (2, 3))

    query, key, value = before.c_attn.weight.split(width, dim=1)
    turn = torch.block_diag(*[torch.tensor([[rate.cos(), -rate.sin()], [rate.sin(), rate.cos()]]) for rate in rates])
    query[position, :code] = 80 * turn.T  # rotate the query back by one position
    key[position, :code] = torch.eye(code)
    value[token, :code] = torch.eye(code)
    before.c_proj.weight[:code, previous] = torch.eye(code) / two

    query, key, value = induction.c_attn.weight.split(width, dim=1)
    query[token, :code] = 8 * torch.eye(code)
    key[previous, :code] = torch.eye(code)
    value[token, :code] = torch.eye(code)
    induction.c_proj.weight[:code, token] = 20 * torch.eye(code) / three
    return model


def numbers(probed: ProbedModel) -> dict[str, Any]:
    """All numbers, flattened: the rows and every column of the table of heads."""
    evaluations = {"trained": probed.trained, "untrained": probed.untrained}
    flat: dict[str, Any] = {}
    for name, evaluation in evaluations.items():
        flat |= {f"{name} {key}": value for key, value in evaluation.row.items()}
        flat |= {f"{name} head {key}": value for key, value in evaluation.tables["heads"].items()}
    return flat


def assert_close(actual: dict[str, Any], expected: dict[str, Any], relative: float = 0.0) -> None:
    """All numbers agree within 1e-5, or within the given share of large numbers."""
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        assert actual[key] == (value if value is None else pytest.approx(value, abs=1e-5, rel=relative, nan_ok=True)), (
            key
        )
