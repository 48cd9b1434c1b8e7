"""Copying: the loss on each of several copies of a paragraph [H22, fig. 5].

In the null, every copy is shuffled independently. The copies then contain the same tokens in different orders, so a model cannot
improve from one copy to the next by copying. Only gains are compared with the null, because any model has a high loss on
shuffled text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.config.copying_text import shipped_text
from repeat_study.model.decoder import Decoder
from repeat_study.probes.intervals import numbers
from repeat_study.probes.probe import Evaluation, Probe, Subject
from repeat_study.probes.texts import sample_test_split
from repeat_study.records.tables import Columns

COPIES = 11  # [H22, section 4]
MIN_COPIES = 4  # paragraphs are cut if the context is too short for this many copies
MIN_TOKENS = 8  # minimum length of a user's paragraph
MAX_TOKENS = 256  # maximum length of a paragraph; longer ones are cut
MAX_PARAGRAPHS = 64


class CopyingTextError(InputError):
    """The text to copy has no paragraphs or too many, or a paragraph is too short or cannot be encoded."""


@dataclass(frozen=True)
class CopyingLosses:
    """Losses in nats on copied sequences and on their null, each of shape [sequences, copies, length]."""

    copied: Tensor
    shuffled: Tensor

    def row(self, name: str) -> dict[str, Any]:
        """Numbers for metrics.jsonl: means with intervals over sequences, and the mean loss on each copy.

        `_loss` is the mean loss on the second and later copies. `_gain` is the loss on the first copy minus `_loss`, and
        `_gain_null` is the same difference in the null.
        """
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
    """The sequences on which copying is measured; all runs in a study use the same ones.

    sequences: one sequence per paragraph, followed by one null sequence per paragraph, shape [2·paragraphs, 1 + copies·length].
        Each consists of the start token followed by `copies` copies of a `length`-token paragraph.
    """

    sequences: Tensor
    copies: int
    length: int

    @property
    def copied(self) -> Tensor:
        """The sequences with copied paragraphs, without their null, shape [paragraphs, 1 + copies·length]."""
        return self.sequences[: len(self.sequences) // 2]

    def __call__(self, model: Decoder) -> CopyingLosses:
        """Losses of the first lane."""
        return self.measure_lanes(model)[0]

    @torch.no_grad()
    def measure_lanes(self, model: Decoder) -> list[CopyingLosses]:
        """Losses of every lane, on the CPU."""
        sequences_lbs = self.sequences.to(model.embedding.device).expand(len(model.embedding), -1, -1)
        return [self.losses(losses_bt) for losses_bt in model.token_losses(sequences_lbs).cpu()]

    def losses(self, losses_bt: Tensor) -> CopyingLosses:
        """Separate the losses on all sequences, [2·paragraphs, copies·length]."""
        return CopyingLosses(*losses_bt.unflatten(1, (self.copies, self.length)).chunk(2))


def copying_probe(
    tokenizer: Tokenizer | None, end_of_text: int, context: int, text: str | None = None, fallback: Tensor | None = None
) -> CopyingProbe:
    """Make the probe for a context length, with 11 copies of every paragraph in `text`, or as many as fit.

    All paragraphs are cut to the length of the shortest one, or even shorter if 4 copies would not otherwise fit. Without `text`,
    the paragraphs come from Alice's Adventures in Wonderland (Carroll 1865, public domain). If there is no tokenizer or if it
    cannot encode them, for example because it was made for a synthetic language, sequences from `fallback`, shape [paragraphs,
    time], are copied instead. Raises InputError if `text` has no paragraphs or too many, if a paragraph is too short, or if one
    cannot be encoded and there is no fallback.
    """
    if text is not None:
        if tokenizer is None:
            raise CopyingTextError("copying text: the data has no tokenizer to encode it; set data.tokenizer")
        paragraphs = _encode_users_text(tokenizer, text)
    else:
        shipped = split_paragraphs(shipped_text())
        paragraphs = [_encode(tokenizer, paragraph) if tokenizer else [] for paragraph in shipped]
        if not all(paragraphs):
            if fallback is None:
                raise CopyingTextError("the tokenizer cannot encode the text of the copying probe and decode it again")
            paragraphs = fallback[: len(paragraphs)].tolist()
    length = min(max(1, context // MIN_COPIES), MAX_TOKENS, *map(len, paragraphs))
    copies = min(COPIES, context // length)
    random = np.random.default_rng(0)
    cut = [np.array(paragraph[:length]) for paragraph in paragraphs]
    copied = [np.tile(paragraph, copies) for paragraph in cut]
    shuffled = [np.concatenate([random.permutation(paragraph) for _ in range(copies)]) for paragraph in cut]
    start = np.full((2 * len(cut), 1), end_of_text)
    return CopyingProbe(torch.from_numpy(np.hstack([start, np.stack(copied + shuffled)])), copies, length)


def copying_probe_of(subject: Subject) -> CopyingProbe:
    """Make the probe for a run. Raises the same InputErrors as `copying_probe`."""
    run, store = subject.run, subject.store
    fallback = sample_test_split(run, store)
    return copying_probe(store_tokenizer(store), store.end_of_text, run.context, run.evaluation.copying_text, fallback)


def store_tokenizer(store: TokenStore) -> Tokenizer | None:
    """The store's tokenizer; None if it has none."""
    return store.tokenizer() if store.has_tokenizer else None


def split_paragraphs(text: str) -> list[str]:
    """Split text at blank lines. Line breaks and indentation within a paragraph are kept."""
    blocks = re.split(r"\n[^\S\n]*\n", text.replace("\r\n", "\n"))
    return [block.strip("\n").rstrip() for block in blocks if block.strip()]


def token_texts(tokenizer: Tokenizer | None, ids: list[int]) -> list[str]:
    """Each token's text within the decoded sequence, including the space that a word tokenizer inserts between tokens.

    Without a tokenizer, the text of a token is a space and its id.
    """
    if tokenizer is None:
        return [f" {token}" for token in ids]
    prefixes = [tokenizer.decode(ids[:count]) for count in range(len(ids) + 1)]
    return [
        longer[len(shorter) :] if longer.startswith(shorter) else tokenizer.decode([token])
        for shorter, longer, token in zip(prefixes, prefixes[1:], ids, strict=False)
    ]


def _encode_users_text(tokenizer: Tokenizer, text: str) -> list[list[int]]:
    encoded = []
    for number, paragraph in enumerate(split_paragraphs(text), start=1):
        ids = _encode(tokenizer, paragraph)
        where = f"copying text, paragraph {number} ({paragraph[:30]!r})"
        if not ids:
            raise CopyingTextError(f"{where}: the tokenizer cannot encode it")
        if len(ids) < MIN_TOKENS:
            raise CopyingTextError(f"{where}: {len(ids)} tokens; expected {MIN_TOKENS} or more")
        encoded.append(ids)
    if not 1 <= len(encoded) <= MAX_PARAGRAPHS:
        raise CopyingTextError(
            f"copying text: {len(encoded) or 'no'} paragraphs; expected 1 to {MAX_PARAGRAPHS}, separated by blank lines"
        )
    return encoded


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of a text; an empty list if the text cannot be encoded, or if the ids do not decode to it."""
    try:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
    except Exception:  # the library raises a plain Exception for an unknown word
        return []
    return ids if tokenizer.decode(ids) == text else []


@dataclass(frozen=True)
class CopyingInputs:
    """The probe, and the text of each token in its first paragraph."""

    probe: CopyingProbe
    paragraph: list[str]

    def paragraph_columns(self, losses: Tensor) -> Columns:
        """Make the columns of paragraph.parquet from the first paragraph's losses in nats, [copies, length]."""
        copies, length = losses.shape
        return {
            "copy": [copy for copy in range(1, copies + 1) for _ in range(length)],
            "token": self.paragraph * copies,
            "loss": losses.flatten().tolist(),
        }


def prepare(subject: Subject) -> CopyingInputs:
    """Encode the study's copying text. Raises the same InputErrors as `copying_probe`."""
    probe = copying_probe_of(subject)
    paragraph = token_texts(store_tokenizer(subject.store), probe.copied[0, 1 : 1 + probe.length].tolist())
    return CopyingInputs(probe, paragraph)


def measure(inputs: Sequence[CopyingInputs | None], model: Decoder, step: int) -> list[Evaluation]:
    """Measure losses and gains on all paragraphs, and the loss on every token of the first paragraph."""
    shared = inputs[0]
    assert shared
    return [
        Evaluation(losses.row("copying"), {"paragraph": shared.paragraph_columns(losses.copied[0])})
        for losses in shared.probe.measure_lanes(model)
    ]


PROBE = Probe(prepare, measure)
