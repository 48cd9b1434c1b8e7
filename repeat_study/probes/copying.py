"""Copying loss: one paragraph again and again, the loss of every copy [H22 fig. 5]."""

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from repeat_study.model import Decoder, token_losses

COPIES = 11  # [H22 section 4]
FEWEST_COPIES = 4  # where the context is too short for 11 whole paragraphs, the paragraph is cut until this many fit
CONTROLS = 8  # shuffled sequences in the null


@dataclass(frozen=True)
class CopyingProbe:
    """The probe's input, the same for every run of a study.

    copied: the start token and `copies` copies of the paragraph, shape [1, 1 + copies·length].
    shuffled: the null, shape [CONTROLS, 1 + copies·length]. Every copy is a fresh shuffle of the paragraph's tokens:
    token frequencies repeat, order does not, so a model gains here without any copying.
    """

    copied: Tensor
    shuffled: Tensor
    copies: int
    length: int  # tokens per copy

    @torch.no_grad()
    def __call__(self, model: Decoder) -> dict[str, Any]:
        """Loss in nats per token of each copy, the mean over copies 2 onwards, and the same mean on the null."""
        batch = torch.cat([self.copied, self.shuffled])[None].to(model.embedding.device)
        losses = token_losses(model(batch[..., :-1]), batch[..., 1:])[0].double()
        per_copy = losses.view(-1, self.copies, self.length).mean(dim=2)
        return {
            "copying_loss": float(per_copy[0, 1:].mean()),
            "copying_loss_shuffled": float(per_copy[1:, 1:].mean()),
            "copying_loss_per_copy": [float(loss) for loss in per_copy[0]],
        }


def copying_probe(tokenizer: Tokenizer, end_of_text: int, context: int) -> CopyingProbe:
    """The probe for a context: 11 copies of the shipped public-domain paragraph, or as many as fit, but at least 4.

    The paragraph opens Alice's Adventures in Wonderland (Carroll 1865).
    """
    text = files("repeat_study.probes").joinpath("paragraph.txt").read_text(encoding="utf-8").strip()
    paragraph = tokenizer.encode(text).ids[: max(1, context // FEWEST_COPIES)]
    copies = min(COPIES, context // len(paragraph))
    random = np.random.default_rng(0)
    shuffles = [np.concatenate([random.permutation(paragraph) for _ in range(copies)]) for _ in range(CONTROLS)]
    copied = torch.tensor([[end_of_text, *paragraph * copies]])
    start = torch.full((CONTROLS, 1), end_of_text)
    return CopyingProbe(copied, torch.cat([start, torch.from_numpy(np.stack(shuffles))], dim=1), copies, len(paragraph))
