"""The weights that TransformerLens gets. Logits are compared in benchmarks/interoperability.py, because it is not installed here."""

from pathlib import Path

import pytest
import torch

from data_prep.errors import InputError
from repeat_study.config.model_sizes import shape_of
from repeat_study.export.conversion import configuration, weights
from repeat_study.export.transformer_lens import _renamed, exported_config, hooked_transformer
from repeat_study.model.decoder import Decoder
from tests.repeat_study.export.conftest import FAMILIES, randomize


@pytest.mark.parametrize("model", FAMILIES)
@torch.no_grad()
def test_every_head_reads_and_writes_as_in_the_decoder(model: str) -> None:
    decoder = randomize(Decoder(shape_of(model), 64, 16, [0]))
    exported = weights(decoder)
    renamed = dict(_renamed(configuration(decoder), exported))
    assert len(renamed) == len(exported)
    x_lbtd = torch.randn(1, 2, 5, 32, generator=torch.Generator().manual_seed(0))
    for layer, block in enumerate(decoder.blocks):
        attention = block.attention
        queries, keys = attention.query_key(x_lbtd).unflatten(-1, (2, decoder.shape.heads, -1)).unbind(3)
        values = attention.value(x_lbtd).unflatten(-1, (decoder.shape.heads, -1))
        for head in range(decoder.shape.heads):
            for name, projected in {"Q": queries, "K": keys, "V": values}.items():
                by_head = x_lbtd @ renamed[f"blocks.{layer}.attn.W_{name}"][head]
                torch.testing.assert_close(by_head, projected[..., head, :])
        output = torch.einsum("lbthk,hkd->lbtd", values, renamed[f"blocks.{layer}.attn.W_O"])
        torch.testing.assert_close(output, attention.out(values.flatten(3)))


def test_a_folder_that_was_not_exported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config.json here; expected a folder like DIR/step-N"):
        hooked_transformer(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(InputError, match=r"config.json: not from `repeat-study export`"):
        exported_config(tmp_path)
