import math

import pytest
import torch

from data_prep.token_store import TokenStore
from repeat_study.ladder import shape_of
from repeat_study.model import Decoder
from repeat_study.probes.copying import CONTROLS, COPIES, copying_probe


class Copier(Decoder):
    """Predicts that the token after this one is what followed its last occurrence; knows nothing on first sight."""

    def forward(self, tokens_lbt: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*tokens_lbt.shape, self.vocabulary)
        period = self.period
        for t in range(period, tokens_lbt.shape[-1]):
            logits[0, torch.arange(tokens_lbt.shape[1]), t, tokens_lbt[0, :, t - period + 1]] = 20.0
        return logits

    period = 0


@pytest.mark.parametrize("context", [16, 64, 2048])
def test_as_many_copies_as_fit_and_the_probe_says_how_many(store: TokenStore, context: int) -> None:
    probe = copying_probe(store.tokenizer(), store.end_of_text, context)
    assert probe.copied.shape == (1, 1 + probe.copies * probe.length)
    assert 4 <= probe.copies <= COPIES and probe.copies * probe.length <= context
    assert (probe.copies + 1) * probe.length > context or probe.copies == COPIES
    assert probe.copied[0, 0] == store.end_of_text
    copies = probe.copied[0, 1:].view(probe.copies, probe.length)
    assert (copies == copies[0]).all()
    if context == 2048:
        assert store.tokenizer().decode(copies[0].tolist()).endswith('pictures or conversations?"')


def test_the_null_shuffles_every_copy(store: TokenStore) -> None:
    probe = copying_probe(store.tokenizer(), store.end_of_text, 64)
    shuffled = probe.shuffled[:, 1:].view(CONTROLS, probe.copies, probe.length)
    assert (shuffled.sort(dim=-1).values == shuffled[0, 0].sort().values).all()
    assert not (shuffled == shuffled[:, :1]).all(dim=-1)[:, 1:].any()


def test_a_copier_scores_zero_loss_on_copies_and_not_on_the_null(store: TokenStore) -> None:
    probe = copying_probe(store.tokenizer(), store.end_of_text, 64)
    model = Copier(shape_of("1x16"), 320, 64, [0])
    model.period = probe.length
    numbers = probe(model)
    assert numbers["copying_loss"] < 1e-3
    assert numbers["copying_loss_per_copy"][0] == pytest.approx(math.log(320), abs=1e-3)
    assert len(numbers["copying_loss_per_copy"]) == probe.copies
    assert numbers["copying_loss_shuffled"] > math.log(320)


def test_an_untrained_model_sits_at_the_null(store: TokenStore) -> None:
    numbers = copying_probe(store.tokenizer(), store.end_of_text, 64)(Decoder(shape_of("1x16"), 320, 64, [0]))
    for key in ("copying_loss", "copying_loss_shuffled"):
        assert numbers[key] == pytest.approx(math.log(320), abs=0.05)
