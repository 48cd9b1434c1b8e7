"""Copying loss: one paragraph again and again, the loss of every copy [H22 fig. 5]."""

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from repeat_study.model import Decoder

COPIES = 11  # [H22 section 4]
FEWEST_COPIES = 4  # where the context is too short for 11 whole paragraphs, the paragraph is cut until this many fit
CONTROLS = 8  # shuffled sequences in the null


@dataclass(frozen=True)
class CopyingProbe:
    """The probe's input, the same for every run of a study.

    copied: the start token and `copies` copies of the paragraph, shape [1, 1 + copies·length].
    shuffled: the null, shape [CONTROLS, 1 + copies·length]. Every copy is a fresh shuffle of the paragraph's tokens:
    which tokens come is repeated, their order is not, so what a model gains here from one copy to the next it gains
    without copying. Its loss itself is no null, since shuffled text is hard for any model; its gain is.
    """

    copied: Tensor
    shuffled: Tensor
    copies: int
    length: int  # tokens per copy

    @torch.no_grad()
    def __call__(self, model: Decoder) -> dict[str, Any]:
        """Loss in nats per token: of each copy, the mean over copies 2 onwards, how much lower that mean is than the
        first copy's loss (the gain), and the same gain on the null."""
        batch = torch.cat([self.copied, self.shuffled])[None].to(model.embedding.device)
        losses = model.token_losses(batch)[0].double()
        per_copy = losses.view(-1, self.copies, self.length).mean(dim=2)
        later = per_copy[:, 1:].mean(dim=1)
        gain = per_copy[:, 0] - later
        return {
            "copying_loss": float(later[0]),
            "copying_gain": float(gain[0]),
            "copying_gain_null": float(gain[1:].mean()),
            "copying_loss_per_copy": per_copy[0].tolist(),
        }


def copying_probe(tokenizer: Tokenizer, end_of_text: int, context: int, fallback: list[int]) -> CopyingProbe:
    """The probe for a context: 11 copies of a paragraph, or as many as fit, the paragraph cut so that at least 4 do
    (in a context of 4 or more).

    The paragraph opens Alice's Adventures in Wonderland (Carroll 1865), public domain and shipped; a tokenizer that
    cannot spell it, as a synthetic language's, gets the tokens of `fallback` instead.
    """
    text = files("repeat_study.probes").joinpath("paragraph.txt").read_text(encoding="utf-8").strip()
    paragraph = _spelled(tokenizer, text) or fallback
    paragraph = paragraph[: max(1, context // FEWEST_COPIES)]
    copies = min(COPIES, context // len(paragraph))
    random = np.random.default_rng(0)
    shuffles = [np.concatenate([random.permutation(paragraph) for _ in range(copies)]) for _ in range(CONTROLS)]
    copied = torch.tensor([[end_of_text, *paragraph * copies]])
    start = torch.full((CONTROLS, 1), end_of_text)
    return CopyingProbe(copied, torch.cat([start, torch.from_numpy(np.stack(shuffles))], dim=1), copies, len(paragraph))


def _spelled(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text, none where they would not give it back."""
    try:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
    except Exception:  # the library raises plain Exception for a word it does not know
        return []
    return ids if tokenizer.decode(ids) == text else []
