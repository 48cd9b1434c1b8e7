"""Copying: the loss on each of several copies of a paragraph [H22, fig. 5].

The null shuffles every copy anew. The same tokens come back in it, but not their order, so what a model gains there from one
copy to the next it gains without copying. Only gains are compared: shuffled text has a high loss for any model.
"""

import re
from collections.abc import Sequence
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
from repeat_study.probes.probe import Evaluation, Probe, Subject
from repeat_study.probes.texts import sample_test_split
from repeat_study.records.tables import Columns

COPIES = 11  # [H22, section 4]
FEWEST_COPIES = 4  # if 11 whole paragraphs do not fit the context, the paragraphs are cut until 4 fit
FEWEST_TOKENS = 8  # of a user's paragraph
MOST_TOKENS = 256  # of a paragraph; longer ones are cut
MOST_PARAGRAPHS = 64


@dataclass(frozen=True)
class CopyingLosses:
    """Losses in nats on copied sequences and on their null, shape [sequences, copies, length] each."""

    copied: Tensor
    shuffled: Tensor

    def row(self, name: str) -> dict[str, Any]:
        """Loss on the second and later copies, the gain from the first copy to those, the gain of the null, their
        intervals over sequences, and the loss on every copy."""
        per_copy, null_per_copy = self.copied.double().mean(dim=-1), self.shuffled.double().mean(dim=-1)
        return {
            **numbers(f"{name}_loss", later_copies(per_copy)),
            **numbers(f"{name}_gain", per_copy[:, 0] - later_copies(per_copy)),
            **numbers(f"{name}_gain_null", null_per_copy[:, 0] - later_copies(null_per_copy)),
            f"{name}_loss_per_copy": per_copy.mean(dim=0).tolist(),
        }


def later_copies(per_copy: Tensor) -> Tensor:
    """Mean over the second and later copies, [..., copies] to [...]."""
    return per_copy[..., 1:].mean(dim=-1)


@dataclass(frozen=True)
class CopyingProbe:
    """The sequences to measure on, the same for every run of a study.

    sequences: the start token, then `copies` copies of a paragraph of `length` tokens: one sequence per paragraph, then as
        many of the null. Shape [2·paragraphs, 1 + copies·length].
    """

    sequences: Tensor
    copies: int
    length: int

    @property
    def copied(self) -> Tensor:
        """The sequences without the null, shape [paragraphs, 1 + copies·length]."""
        return self.sequences[: len(self.sequences) // 2]

    def __call__(self, model: Decoder) -> CopyingLosses:
        """Losses of the first lane."""
        return self.of_lanes(model)[0]

    @torch.no_grad()
    def of_lanes(self, model: Decoder) -> list[CopyingLosses]:
        """Losses of every lane."""
        sequences_lbs = self.sequences.to(model.embedding.device).expand(len(model.embedding), -1, -1)
        losses_lb = model.token_losses(sequences_lbs).unflatten(2, (self.copies, self.length))
        return [CopyingLosses(*losses.chunk(2)) for losses in losses_lb]


def copying_probe(
    tokenizer: Tokenizer, end_of_text: int, context: int, text: str | None = None, fallback: Tensor | None = None
) -> CopyingProbe:
    """The probe for a context: 11 copies of every paragraph of `text`, or as many as fit.

    All paragraphs are cut to the length of the shortest one, and further until 4 copies fit. Without a text, they are the
    opening of Alice's Adventures in Wonderland (Carroll 1865, public domain); if the tokenizer cannot encode that, like the
    tokenizer of a synthetic language, they are sequences of `fallback`, tokens [paragraphs, time].
    Raises InputError if a paragraph of `text` is too short or cannot be encoded.
    """
    if text is not None:
        paragraphs = _encode_users_text(tokenizer, text)
    else:
        shipped = files("repeat_study.probes").joinpath("paragraphs.txt").read_text(encoding="utf-8")
        paragraphs = [_encode(tokenizer, paragraph) for paragraph in paragraphs_of(shipped)]
        if not all(paragraphs):
            assert fallback is not None, "the tokenizer cannot encode the shipped text"
            paragraphs = fallback[: len(paragraphs)].tolist()
    length = min(max(1, context // FEWEST_COPIES), MOST_TOKENS, *map(len, paragraphs))
    copies = min(COPIES, context // length)
    random = np.random.default_rng(0)
    cut = [np.array(paragraph[:length]) for paragraph in paragraphs]
    copied = [np.tile(paragraph, copies) for paragraph in cut]
    shuffled = [np.concatenate([random.permutation(paragraph) for _ in range(copies)]) for paragraph in cut]
    start = np.full((2 * len(cut), 1), end_of_text)
    return CopyingProbe(torch.from_numpy(np.hstack([start, np.stack(copied + shuffled)])), copies, length)


def copying_probe_of(subject: Subject) -> CopyingProbe:
    """The probe for a run. Raises InputError as `copying_probe` does."""
    run, store = subject.run, subject.store
    fallback = sample_test_split(run, store)
    return copying_probe(store.tokenizer(), store.end_of_text, run.context, run.evaluation.copying_text, fallback)


def paragraphs_of(text: str) -> list[str]:
    """Split at blank lines; line breaks and indentation within a paragraph are kept."""
    blocks = re.split(r"\n[^\S\n]*\n", text.replace("\r\n", "\n"))
    return [block.strip("\n").rstrip() for block in blocks if block.strip()]


def token_texts(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    """The text of each token in its place: with the space that a word tokenizer puts between two tokens."""
    prefixes = [tokenizer.decode(ids[:count]) for count in range(len(ids) + 1)]
    return [
        longer[len(shorter) :] if longer.startswith(shorter) else tokenizer.decode([token])
        for shorter, longer, token in zip(prefixes, prefixes[1:], ids, strict=False)
    ]


def _encode_users_text(tokenizer: Tokenizer, text: str) -> list[list[int]]:
    encoded = []
    for number, paragraph in enumerate(paragraphs_of(text), start=1):
        ids = _encode(tokenizer, paragraph)
        where = f"copying text, paragraph {number} ({paragraph[:30]!r})"
        if not ids:
            raise InputError(f"{where}: the study's tokenizer cannot encode it")
        if len(ids) < FEWEST_TOKENS:
            raise InputError(f"{where}: {len(ids)} tokens; expected {FEWEST_TOKENS} or more")
        encoded.append(ids)
    if not 1 <= len(encoded) <= MOST_PARAGRAPHS:
        raise InputError(
            f"copying text: {len(encoded) or 'no'} paragraphs; expected 1 to {MOST_PARAGRAPHS}, separated by blank lines"
        )
    return encoded


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text; none if decoding them does not give the text back."""
    try:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
    except Exception:  # the library raises plain Exception for an unknown word
        return []
    return ids if tokenizer.decode(ids) == text else []


@dataclass(frozen=True)
class CopyingInputs:
    """The probe, and the tokens of its first paragraph as text."""

    probe: CopyingProbe
    paragraph: list[str]

    def paragraph_columns(self, losses: Tensor) -> Columns:
        """Columns of paragraph.parquet from the first paragraph's losses in nats, [copies, length]."""
        copies, length = losses.shape
        return {
            "copy": [copy for copy in range(1, copies + 1) for _ in range(length)],
            "token": self.paragraph * copies,
            "loss": losses.flatten().tolist(),
        }


def prepare(subject: Subject) -> CopyingInputs:
    """Encode the study's copying text. Raises InputError as `copying_probe` does."""
    probe = copying_probe_of(subject)
    paragraph = token_texts(subject.store.tokenizer(), probe.copied[0, 1 : 1 + probe.length].tolist())
    return CopyingInputs(probe, paragraph)


def measure(inputs: Sequence[CopyingInputs | None], model: Decoder, step: int) -> list[Evaluation]:
    """Losses, gains and the first paragraph's losses, token by token."""
    shared = inputs[0]
    assert shared
    return [
        Evaluation(losses.row("copying"), {"paragraph": shared.paragraph_columns(losses.copied[0])})
        for losses in shared.probe.of_lanes(model)
    ]


PROBE = Probe(prepare, measure)
