"""Copying loss: a paragraph again and again, the loss of every copy [H22 fig. 5]."""

import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from data_prep.errors import InputError
from repeat_study.model.decoder import Decoder
from repeat_study.probes.intervals import numbers

COPIES = 11  # [H22 section 4]
FEWEST_COPIES = 4  # where the context is too short for 11 whole paragraphs, the paragraph is cut until this many fit
FEWEST_TOKENS = 8  # of a user's paragraph
MOST_TOKENS = 256  # of a paragraph; longer ones are cut
MOST_PARAGRAPHS = 64


@dataclass(frozen=True)
class Copying:
    """Losses in nats of copied sequences, and of a null beside them."""

    tokens: Tensor  # of every token of every copy, shape [sequences, copies, length]
    shuffled: Tensor  # the null: the same where the order is not repeated

    def row(self, name: str) -> dict[str, Any]:
        """Mean loss on copies 2 onwards, how much lower that is than on the first copy (the gain), the same gain on the
        null, with their intervals, and the loss of every copy."""
        per_copy, per_null = self.tokens.double().mean(dim=-1), self.shuffled.double().mean(dim=-1)
        return {
            **numbers(f"{name}_loss", later(per_copy)),
            **numbers(f"{name}_gain", per_copy[:, 0] - later(per_copy)),
            **numbers(f"{name}_gain_null", per_null[:, 0] - later(per_null)),
            f"{name}_loss_per_copy": per_copy.mean(dim=0).tolist(),
        }


def later(per_copy: Tensor) -> Tensor:
    """Mean over copies 2 onwards, [..., copies] to [...]."""
    return per_copy[..., 1:].mean(dim=-1)


@dataclass(frozen=True)
class CopyingProbe:
    """The probe's input, the same for every run of a study.

    sequences: the start token and `copies` copies of each paragraph, shape [paragraphs, 1 + copies·length]; then as many
    for the null. There every copy is a fresh shuffle of the paragraph's tokens: which tokens come is repeated, their
    order is not, so what a model gains here from one copy to the next it gains without copying. Its loss itself is no
    null, since shuffled text is hard for any model; its gain is.
    """

    sequences: Tensor
    copies: int
    length: int  # tokens per copy

    @property
    def copied(self) -> Tensor:
        """The sequences with copies, shape [paragraphs, 1 + copies·length]."""
        return self.sequences[: len(self.sequences) // 2]

    def __call__(self, model: Decoder) -> Copying:
        """Losses of the first lane."""
        return self.of_lanes(model)[0]

    @torch.no_grad()
    def of_lanes(self, model: Decoder) -> list[Copying]:
        """Losses of every lane."""
        sequences_lbs = self.sequences.to(model.embedding.device).expand(len(model.embedding), -1, -1)
        losses_lb = model.token_losses(sequences_lbs).unflatten(2, (self.copies, self.length))
        return [Copying(*losses.chunk(2)) for losses in losses_lb]


def copying_probe(
    tokenizer: Tokenizer, end_of_text: int, context: int, text: str | None = None, fallback: Tensor | None = None
) -> CopyingProbe:
    """The probe for a context: 11 copies of every paragraph of `text`, or as many as fit, the paragraphs cut to their
    shortest and so that at least 4 copies fit (in a context of 4 or more).

    Without a text it is the opening of Alice's Adventures in Wonderland (Carroll 1865), public domain and shipped; a
    tokenizer that cannot spell that, as a synthetic language's, gets the tokens of `fallback`, [paragraphs, time].
    Raises InputError where a paragraph of `text` is too short or holds what the tokenizer cannot spell.
    """
    if text is not None:
        paragraphs = _of_user(tokenizer, text)
    else:
        shipped = files("repeat_study.probes").joinpath("paragraphs.txt").read_text(encoding="utf-8")
        paragraphs = [_spelled(tokenizer, paragraph) for paragraph in paragraphs_of(shipped)]
        if not all(paragraphs):
            assert fallback is not None, "a tokenizer that cannot spell the shipped text needs another"
            paragraphs = fallback[: len(paragraphs)].tolist()
    length = min(max(1, context // FEWEST_COPIES), MOST_TOKENS, *map(len, paragraphs))
    copies = min(COPIES, context // length)
    random = np.random.default_rng(0)
    cut = [np.array(paragraph[:length]) for paragraph in paragraphs]
    copied = [np.tile(paragraph, copies) for paragraph in cut]
    shuffled = [np.concatenate([random.permutation(paragraph) for _ in range(copies)]) for paragraph in cut]
    start = np.full((2 * len(cut), 1), end_of_text)
    return CopyingProbe(torch.from_numpy(np.hstack([start, np.stack(copied + shuffled)])), copies, length)


def paragraphs_of(text: str) -> list[str]:
    """What blank lines separate; line breaks and indentation inside a paragraph are its own."""
    blocks = re.split(r"\n[^\S\n]*\n", text.replace("\r\n", "\n"))
    return [block.strip("\n").rstrip() for block in blocks if block.strip()]


def _of_user(tokenizer: Tokenizer, text: str) -> list[list[int]]:
    found = []
    for number, paragraph in enumerate(paragraphs_of(text), start=1):
        ids = _spelled(tokenizer, paragraph)
        if not ids:
            raise InputError(
                f"copying text, paragraph {number} ({paragraph[:30]!r}): holds what the study's tokenizer cannot spell"
            )
        if len(ids) < FEWEST_TOKENS:
            raise InputError(
                f"copying text, paragraph {number} ({paragraph[:30]!r}): {len(ids)} tokens; accepted are {FEWEST_TOKENS}"
                " or more"
            )
        found.append(ids)
    if not 1 <= len(found) <= MOST_PARAGRAPHS:
        raise InputError(
            f"copying text: {len(found) or 'no'} paragraphs; accepted are 1 to {MOST_PARAGRAPHS}, separated by blank lines"
        )
    return found


def pieces(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    """The text of each token where it stands: with the space that a tokenizer of words puts between two."""
    whole = [tokenizer.decode(ids[:count]) for count in range(len(ids) + 1)]
    return [
        after[len(before) :] if after.startswith(before) else tokenizer.decode([token])
        for before, after, token in zip(whole, whole[1:], ids, strict=False)
    ]


def _spelled(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text, none where they would not give it back."""
    try:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
    except Exception:  # the library raises plain Exception for a word it does not know
        return []
    return ids if tokenizer.decode(ids) == text else []
