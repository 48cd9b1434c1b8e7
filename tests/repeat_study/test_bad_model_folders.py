"""Bad models end in one line that names the file, what was found and what is accepted."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.model_sizes import shape_of
from repeat_study.model.decoder import Decoder
from repeat_study.probes.path_probe import ProbeOptions, probe_path
from tests.repeat_study.hugging_face_models import SMALL_GPT2, VOCABULARY, save_transformer, write_decoder

INDEX = "model.safetensors.index.json"
KEY = "model.layers.0.self_attn.k_proj.weight"


def change_config(**changes: Any) -> Callable[[Path], object]:
    """A function that changes entries of config.json."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def remove_config(key: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        del content[key]
        (folder / "config.json").write_text(json.dumps(content))

    return change


def change_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    return write


def write(name: str, content: object) -> Callable[[Path], object]:
    text = content if isinstance(content, str) else json.dumps(content)
    return lambda folder: (folder / name).write_text(text)


def narrow(name: str) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda weights: weights.update({name: weights[name][:, :4].contiguous()})


def key_of(weights: dict[str, torch.Tensor]) -> str:
    return KEY if KEY in weights else "transformer.h.0.attn.c_attn.weight"


def quantize(weights: dict[str, torch.Tensor]) -> None:
    weights[key_of(weights)] = weights[key_of(weights)].to(torch.int8)


def spoil(weights: dict[str, torch.Tensor]) -> None:
    weights[key_of(weights)][1, 2] = torch.nan


def without_metadata(folder: Path) -> None:
    write(INDEX, {"weight_map": dict.fromkeys(load_file(folder / "model.safetensors"), "model.safetensors")})(folder)


def split(folder: Path) -> None:
    """An index that lists two files, of which only one exists."""
    names = dict.fromkeys(load_file(folder / "model.safetensors"), "a.safetensors")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    write(INDEX, {"weight_map": names | {KEY: "b.safetensors"}})(folder)


def incomplete(folder: Path) -> None:
    names = dict.fromkeys(load_file(folder / "model.safetensors"), "model.safetensors")
    write(INDEX, {"weight_map": names | {"more": "model.safetensors"}})(folder)


@pytest.fixture(scope="module")
def folders(store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3-style model and a GPT-2."""
    from transformers import GPT2Config, GPT2LMHeadModel

    parent = tmp_path_factory.mktemp("models")
    write_decoder(parent / "qwen", Decoder(shape_of("1x16-qwen"), VOCABULARY, 64, [0]), store)
    save_transformer(parent / "gpt2", GPT2LMHeadModel(GPT2Config(**SMALL_GPT2, n_embd=16)), None)
    return parent


@pytest.mark.parametrize(
    ("model", "damage", "message"),
    [
        ("qwen", lambda folder: (folder / "config.json").unlink(), r"not a run directory \(no spec.json\) and not a model's"),
        ("qwen", write("config.json", "{"), "config.json: not valid JSON"),
        ("qwen", write("config.json", [1]), "config.json: expected a JSON object, found list"),
        ("qwen", change_config(model_type=None), "config.json: model_type: None found; expected a string"),
        ("qwen", change_config(num_hidden_layers="two"), "config.json: num_hidden_layers: input should be a valid integer"),
        ("qwen", remove_config("hidden_size"), r"config.json: hidden_size: required, but missing$"),
        ("qwen", change_config(rope_scaling={"rope_type": "yarn"}), "Qwen3-style models with rope_scaling are not supported"),
        ("qwen", change_config(use_sliding_window=True), "models with sliding windows are not supported"),
        ("qwen", change_config(attention_bias=True), "models with attention_bias are not supported"),
        ("qwen", change_config(hidden_act="gelu"), "models with hidden_act 'gelu' are not supported"),
        ("qwen", change_config(num_attention_heads=6, num_key_value_heads=4), "num_key_value_heads: 4 found; expected a divisor"),
        ("qwen", change_config(num_hidden_layers=10**9), r"no tensor model.layers.999999999\..*, which a qwen3 model needs"),
        ("qwen", change_config(num_attention_heads=10**6, head_dim=10**6), r"q_proj.weight has the shape \[16, 16\]; expected"),
        ("qwen", change_config(rope_parameters={"partial_rotary_factor": 0.5}), "models with partial_rotary_factor are not"),
        ("qwen", change_weights(lambda weights: weights.update(bias=torch.zeros(1))), "bias is not part of a qwen3 model"),
        ("qwen", change_config(num_hidden_layers=2), r"no tensor model.layers.1\..*, which a qwen3 model needs"),
        ("qwen", change_config(vocab_size=10**9), r"model.embed_tokens.weight has the shape \[320, 16\]; expected \[1000000000, 16\]"),
        ("qwen", change_config(vocab_size=300), r"has the shape \[320, 16\]; expected \[300, 16\], as in config.json"),
        ("qwen", change_config(bos_token_id=None, eos_token_id=None), "neither bos_token_id nor eos_token_id"),
        ("qwen", change_weights(narrow(KEY)), r"k_proj.weight has the shape \[16, 4\]; expected \[16, 16\]"),
        ("qwen", change_weights(lambda weights: weights.pop(KEY)), "no tensor model.layers.0.self_attn.k_proj.weight"),
        ("qwen", change_weights(quantize), "k_proj.weight has the type I8; expected F32, BF16"),
        ("qwen", change_weights(spoil), r"k_proj.weight has 1 weights that are NaN or infinite in float32; expected finite weights"),
        ("qwen", change_config(quantization_config={}), "quantization_config: quantized models are not supported"),
        ("qwen", lambda folder: (folder / "model.safetensors").unlink(), "no weights; expected model.safetensors, or model"),
        ("qwen", lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "pytorch_model.bin may contain code"),
        ("qwen", lambda folder: (folder / "model.safetensors").write_bytes(b"\1" * 20), "damaged, or not a safetensors file"),
        ("qwen", split, f"b.safetensors: missing, but {INDEX} lists it"),
        ("qwen", incomplete, f"no tensor more, which {INDEX} lists for this file"),
        ("qwen", write(INDEX, {"weight_map": {"a": "../b"}}), f"{INDEX}: weight_map: expected a table"),
        ("qwen", write("tokenizer.json", "{}"), "tokenizer.json: not a tokenizer.json"),
        ("gpt2", change_config(model_type="perceptron"), "model_type: 'perceptron' found; expected a causal language model that"),
        ("gpt2", change_config(auto_map={"AutoModelForCausalLM": "code.Model"}), "auto_map: this gpt2 model needs code from its"),
        ("gpt2", change_config(n_layer="two"), "cannot load it: .*n_layer"),
        ("gpt2", change_config(n_layer=3), r"no tensor transformer.h.2.attn.c_attn.bias, which a gpt2 model needs"),
        ("gpt2", change_config(n_layer=10**9), "num_hidden_layers: 1,000,000,000 found, but the weights have only 28 tensors"),
        ("gpt2", change_config(n_layer=1), r"transformer.h.1.attn.c_attn.weight is not part of a gpt2 model with this config.json"),
        ("gpt2", change_config(n_head=-2), "num_attention_heads: -2 found; expected 1 or more"),
        ("gpt2", change_config(vocab_size=2 * 10**9), r"wte.weight has the shape \[320, 16\]; expected \[2000000000, 16\]"),
        ("gpt2", change_weights(quantize), "c_attn.weight has the type I8; expected F32, BF16"),
        ("gpt2", change_weights(spoil), r"c_attn.weight has 1 weights that are NaN or infinite"),
        ("gpt2", without_metadata, f"{INDEX}: no metadata, which transformers needs"),
        ("gpt2", change_weights(narrow("transformer.wte.weight")), r"wte.weight has the shape \[320, 4\]; expected \[320, 16\]"),
    ],
)  # fmt: skip
def test_bad_folders_are_refused(
    model: str, damage: Callable[[Path], object], message: str, folders: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folders / model, tmp_path / "copy"))
    damage(folder)
    with pytest.raises(InputError, match=message) as raised:
        probe_path(folder, ProbeOptions(tmp_path))
    assert str(folder) in str(raised.value)


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(store: TokenStore, tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "small", Decoder(shape_of("1x16-qwen"), 300, 64, [0]), store)
    with pytest.raises(InputError, match="token ids up to 319, but the model's vocabulary has 300 tokens"):
        probe_path(folder, ProbeOptions(tmp_path))


def test_causal_masks_of_older_versions_are_not_weights(folders: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders / "gpt2", tmp_path / "copy"))
    mask = torch.ones(64, 64).tril().bool()[None, None]
    masks = {"transformer.h.0.attn.bias": mask, "transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}
    change_weights(lambda weights: weights.update(masks))(folder)
    options = ProbeOptions(tmp_path, context=32)
    assert probe_path(folder, options).trained.row == probe_path(folders / "gpt2", options).trained.row


def test_models_that_need_transformers_are_refused_without_it(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)  # as if it were not installed
    with pytest.raises(
        InputError, match=r"a gpt2 model needs the transformers library; run pip install 'repeat-study\[models\]'"
    ):
        probe_path(folders / "gpt2", ProbeOptions(folders))
    assert probe_path(folders / "qwen", ProbeOptions(folders, context=32)).trained.row["copying_loss"] > 0


def test_options_that_do_not_apply_are_refused(folders: Path) -> None:
    with pytest.raises(InputError, match=r"--step: .*qwen contains one model"):
        probe_path(folders / "qwen", ProbeOptions(folders), step=3)
    with pytest.raises(InputError, match="--device: 'tpu' found; expected cpu or cuda"):
        probe_path(folders / "qwen", ProbeOptions(folders, device="tpu"))
    with pytest.raises(InputError, match="not a model's folder"):
        probe_path(folders, ProbeOptions(folders))
