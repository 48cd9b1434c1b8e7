"""Probes of models in Hugging Face folders."""

import math
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.model_sizes import shape_of
from repeat_study.hugging_face.decoders import decoder_config, trained_decoder
from repeat_study.hugging_face.folder import open_folder
from repeat_study.model.decoder import Decoder
from repeat_study.probes import folder_probe
from repeat_study.probes.folder_probe import probe_folder
from repeat_study.records.metrics import METRICS
from tests.repeat_study.hugging_face_models import (
    CONTEXT,
    SMALL_GPT2,
    SPECIAL,
    VOCABULARY,
    assert_close,
    gpt2_with_induction_circuit,
    numbers,
    save_transformer,
    write_decoder,
)

SHORT_TEXT = "The cat sat on the mat, and the dog lay down.\n\nAnother cat ran over the wall, and nobody saw it."


def perturbed(decoder: Decoder) -> Decoder:
    """A decoder whose attention is not uniform, and whose gains are not 1."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(2.5).add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return decoder


@pytest.mark.parametrize(("tied", "own_head"), [(False, True), (True, False), (True, True)])
def test_qwen3_models_with_shared_keys_and_embeddings_are_converted(tied: bool, own_head: bool, tmp_path: Path) -> None:
    """Transformers uses the folder's lm_head.weight even if config.json declares tied embeddings."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        **{"vocab_size": 120, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 12},
        **{"num_attention_heads": 6, "num_key_value_heads": 2, "rms_norm_eps": 1e-3, "tie_word_embeddings": tied},
        **{"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}, "max_position_embeddings": 64},
        **SPECIAL,
    )
    torch.manual_seed(0)
    theirs = Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(3.0).add_(0.05 * torch.randn(parameter.shape))
    path = save_transformer(tmp_path / "qwen", theirs, None)
    if tied and own_head:
        head = torch.randn(120, 32, generator=torch.Generator().manual_seed(2))
        weights = load_file(path / "model.safetensors") | {"lm_head.weight": head}
        save_file(weights, path / "model.safetensors", {"format": "pt"})
        theirs = Qwen3ForCausalLM.from_pretrained(path).eval()
        assert torch.equal(theirs.lm_head.weight, head)
    folder = open_folder(path)
    settings = decoder_config(folder)
    assert settings
    tokens = torch.randint(0, 120, (3, 64), generator=torch.Generator().manual_seed(1))
    expected = theirs(tokens).logits
    ours = trained_decoder(folder, settings, 64)(tokens[None])[0]
    assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_converted_model_has_the_scores_that_transformers_gives(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = replace(shape_of("2x32-qwen"), rotary_base=300.0, norm_epsilon=1e-4)
    decoder = perturbed(Decoder(shape, VOCABULARY, CONTEXT, [3]))
    folder = write_decoder(tmp_path / "qwen", decoder, store)
    converted = probe_folder(folder, tmp_path, SHORT_TEXT, 64)
    monkeypatch.setattr(folder_probe, "decoder_config", lambda folder: None)
    other = probe_folder(folder, tmp_path, SHORT_TEXT, 64)
    theirs = numbers(replace(other, untrained=other.trained))
    ours = numbers(replace(converted, untrained=converted.trained))
    assert max(theirs["trained head prefix_matching"]) > 1.2 * min(theirs["trained head prefix_matching"])
    assert_close({key: ours[key] for key in theirs}, theirs, relative=1e-5)
    assert "trained head attribution" in ours and "trained head attribution" not in theirs
    missing = " ".join(other.notes)
    heads = [metric.name for metric in METRICS if metric.column not in ("", "prefix_matching", "previous_token")]
    assert all(name in missing for name in heads) and "copying loss," not in missing


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox"])
def test_the_scores_of_random_models_are_at_their_nulls(family: str, store: TokenStore, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(1)  # not the seed of the untrained model
    neox = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = (
        GPT2LMHeadModel(GPT2Config(**SMALL_GPT2, n_embd=32))
        if family == "gpt2"
        else GPTNeoXForCausalLM(GPTNeoXConfig(**neox, intermediate_size=64, max_position_embeddings=CONTEXT, **SPECIAL))
    )
    probed = probe_folder(save_transformer(tmp_path / family, model, store), tmp_path, SHORT_TEXT)
    row = probed.trained.row
    for score in ("prefix_matching", "previous_token"):
        assert row[score] == pytest.approx(row[f"{score}_null"], abs=0.01)
    for gain in ("copying_gain", "random_copying_gain"):
        assert row[gain] == pytest.approx(row[f"{gain}_null"], abs=0.05)
    assert row["in_context_score"] == pytest.approx(0, abs=0.1)
    again = probe_folder(tmp_path / family, tmp_path, SHORT_TEXT)
    assert again.record() == probed.record(), "the untrained model has a fixed seed"
    assert probed.untrained.row["copying_loss"] != row["copying_loss"]


def test_a_built_induction_head_in_gpt2_has_the_highest_scores(store: TokenStore, tmp_path: Path) -> None:
    folder = save_transformer(tmp_path / "built", gpt2_with_induction_circuit(), store)
    probed = probe_folder(folder, tmp_path)
    heads = probed.trained.tables["heads"]
    named = list(zip(heads["layer"], heads["head"], strict=True))
    assert heads["prefix_matching"][named.index((1, 0))] >= 0.95
    assert heads["previous_token"][named.index((0, 0))] >= 0.95
    assert max(heads["prefix_matching"][index] for index in range(4) if named[index] != (1, 0)) < 0.05
    row = probed.trained.row
    assert row["prefix_matching"] >= 0.95 and row["prefix_matching_null"] < 0.05
    assert row["random_copying_gain"] > 5 and abs(row["random_copying_gain_null"]) < 1
    assert probed.untrained.row["prefix_matching"] < 0.05


def test_ablation_can_be_switched_off(store: TokenStore, tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "qwen", Decoder(shape_of("1x16-qwen"), VOCABULARY, CONTEXT, [0]), store)
    complete, quick = (probe_folder(folder, tmp_path, SHORT_TEXT, ablation=ablation) for ablation in (True, False))
    rest = {key: value for key, value in numbers(complete).items() if "ablation" not in key}
    assert_close(numbers(quick), rest)
    assert len(rest) < len(numbers(complete)) and any(
        "skipped because of --no-ablation" in note for note in quick.notes
    )


def test_the_heads_with_the_highest_prefix_matching_are_ablated(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = perturbed(Decoder(replace(shape_of("2x32-qwen"), heads=4), VOCABULARY, CONTEXT, [0]))
    folder = write_decoder(tmp_path / "qwen", decoder, store)
    every = probe_folder(folder, tmp_path, SHORT_TEXT, 64)
    stages: list[str] = []
    monkeypatch.setattr(folder_probe, "MOST_ABLATED", 3)
    some = probe_folder(folder, tmp_path, SHORT_TEXT, 64, report=stages.append)
    heads = every.trained.tables["heads"]
    best = sorted(range(8), key=lambda head: heads["prefix_matching"][head])[-3:]
    for column, values in some.trained.tables["heads"].items():
        expected = [value if head in best else math.nan for head, value in enumerate(heads[column])]
        assert values == pytest.approx(
            expected if column.startswith("ablation") else heads[column], nan_ok=True, abs=1e-6
        )
    cost = max(heads["ablation_copying_gain"][head] for head in best)
    assert some.trained.row["ablation_copying_gain"] == pytest.approx(cost, abs=1e-6)
    for probed, which in ((every, "all"), (some, "the 3 with the highest prefix matching")):
        assert f"ablated: {which} of the trained model's 8 heads; none of the untrained model's" in probed.notes
        assert "ablation_copying_gain" not in probed.untrained.row
    assert any(stage.endswith("; ablating heads of layer 1 of 2") for stage in stages)
    assert stages[-1].startswith(f"{folder}: qwen3, ") and stages[-1].endswith(" in the untrained model")


def test_weights_that_overflow_are_refused(tmp_path: Path) -> None:
    decoder = Decoder(shape_of("1x16-qwen"), VOCABULARY, CONTEXT, [0])
    with torch.no_grad():
        decoder.unembedding.weight.fill_(3e38)
    with pytest.raises(InputError, match="the model's losses are NaN or infinite in float32"):
        probe_folder(write_decoder(tmp_path / "qwen", decoder, None), tmp_path, context=16)


def test_without_a_tokenizer_only_random_tokens_are_measured(tmp_path: Path) -> None:
    decoder = Decoder(shape_of("1x16-qwen"), VOCABULARY, CONTEXT, [0])
    folder = write_decoder(tmp_path / "qwen", decoder, None)
    probed = probe_folder(folder, tmp_path)
    assert probed.copying is None and "random_copying_loss" in probed.trained.row
    assert {"attribution", "copying", "ov_copying"} <= probed.trained.tables["heads"].keys()
    assert any("copying loss" in note and "the folder has no tokenizer.json" in note for note in probed.notes)
    with pytest.raises(InputError, match=r"no tokenizer to encode the text with; expected a tokenizer.json"):
        probe_folder(folder, tmp_path, SHORT_TEXT)
    with pytest.raises(InputError, match=r"--context: 256 found; .* accepts up to 128 tokens"):
        probe_folder(folder, tmp_path, context=256)


def test_nothing_is_downloaded_to_read_a_tokenizer_in_another_format(
    store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    def connect(*_: object) -> None:
        raise AssertionError("a network connection was opened")

    monkeypatch.setattr(socket.socket, "connect", connect)
    folder = save_transformer(tmp_path / "gpt2", GPT2LMHeadModel(GPT2Config(**SMALL_GPT2, n_embd=16)), None)
    store.tokenizer().model.save(str(folder))
    assert {"vocab.json", "merges.txt"} <= {path.name for path in folder.iterdir()}
    probed = probe_folder(folder, tmp_path, SHORT_TEXT)
    assert probed.copying and store.tokenizer().decode(probed.copying.copied[0, 1:8].tolist()) in SHORT_TEXT


def test_random_tokens_are_ordinary_tokens_from_the_middle_of_the_vocabulary(store: TokenStore, tmp_path: Path) -> None:
    decoder = Decoder(shape_of("1x16-qwen"), VOCABULARY + 40, CONTEXT, [0])  # more embeddings than tokens
    probed = probe_folder(write_decoder(tmp_path / "qwen", decoder, store, bos_token_id=0), tmp_path, SHORT_TEXT)
    assert (probed.heads.sequences[:, 0] == 0).all()
    drawn = probed.heads.sequences[:, 1:]
    ordinary = VOCABULARY - 1  # without the end-of-text token
    assert 1 + ordinary // 4 <= drawn.min() and drawn.max() <= VOCABULARY - ordinary // 4


def test_every_order_of_the_paragraphs_begins_with_another_one(store: TokenStore, tmp_path: Path) -> None:
    decoder = Decoder(shape_of("1x16-qwen"), VOCABULARY, CONTEXT, [0])
    folder = write_decoder(tmp_path / "qwen", decoder, store)
    texts = folder_probe.model_texts(
        folder_probe.read_vocabulary(open_folder(folder), VOCABULARY), CONTEXT, SHORT_TEXT
    ).paragraphs
    assert texts
    decoded = [store.tokenizer().decode(row.tolist()) for row in texts.rotations]
    assert [text[:12] for text in decoded] == ["The cat sat ", "Another cat "]
    assert (texts.rotations[:, 0] == 0).all() and texts.rotations.shape[1] <= CONTEXT + 1
