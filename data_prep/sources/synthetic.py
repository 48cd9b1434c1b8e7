"""A synthetic language of known entropy: Zipf-Markov words, and passages copied in context.

The lowest possible loss has a closed form, and so does the share of the loss that only copying can remove. So damage to
copying can be told apart from damage to memorized statistics.
"""

from collections.abc import Iterator
from itertools import count
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from data_prep.permutation import permute, stream_key
from data_prep.sources.document import Document
from data_prep.sources.source import Source

COPY, END = "=", ";"
Floats = npt.NDArray[np.float64]
# The probability that two documents are equal must be below 2^-64: then none repeats in practice, and the stream never ends.
FEWEST_BITS = 64.0


class Synthetic(Source):
    """The language and its documents. Lengths are in words, without markers.

    A document is `passages` passages. A passage has l fresh words, l uniform over shortest..longest, and ends with `;`.
    With `copy_probability`, `=` and a copy of these l words come before the `;`. Each word w has its own permutation of
    all words; the fresh word after w is the one at rank r of it, with P(r) proportional to r^-zipf_exponent. The last
    fresh word of a passage determines the first of the next; a start state begins the document.
    """

    kind: Literal["synthetic"] = "synthetic"
    seed: int = 0
    words: int = Field(500, ge=2, le=4096)  # the transition table takes 2·words² bytes
    zipf_exponent: float = Field(1.0, ge=0, allow_inf_nan=False)
    copy_probability: float = Field(0.5, ge=0, le=1)
    shortest: int = Field(8, ge=1)
    longest: int = Field(24, le=100_000)
    passages: int = Field(16, ge=1, le=100_000)

    @model_validator(mode="after")
    def _documents_differ(self) -> Self:
        if self.longest < self.shortest:
            raise ValueError(f"longest = {self.longest} is less than shortest = {self.shortest}")
        if (bits := _collision_bits(self)) < FEWEST_BITS:
            raise ValueError(
                f"documents this short repeat by chance (two are equal with probability 2^-{bits:.0f}, at most 2^-64 is"
                " accepted); set more passages, longer ones or more words"
            )
        return self

    def read(self) -> Iterator[Document]:
        """Documents synthetic:0, synthetic:1, ... without end; document i is a function of the fields and i alone."""
        words = words_of(self)[: self.words]
        after = transitions(self).ravel().data
        cumulative = np.cumsum(zipf(self))
        cumulative[-1] = 1.0
        for number in count():
            yield Document.of(f"synthetic:{number}", _text(self, number, words, after, cumulative))

    @property
    def bad_row_limit(self) -> int:
        """No document may be too long: all have about the same length, so skipping them would not end."""
        return 0

    def fixed_vocabulary(self) -> list[str]:
        """All words and markers."""
        return words_of(self)


def words_of(spec: Synthetic) -> list[str]:
    """All words of the language, markers last. Texts are these words separated by single spaces."""
    return [*(f"w{number}" for number in range(spec.words)), COPY, END]


def zipf(spec: Synthetic) -> Floats:
    """Probability of each rank of a fresh word, most frequent first, shape [words]."""
    weight = np.arange(1, spec.words + 1, dtype=np.float64) ** -spec.zipf_exponent
    return weight / weight.sum()


def transitions(spec: Synthetic) -> npt.NDArray[np.uint16]:
    """Fresh word at each rank after each word, shape [words + 1, words]; the last row is the start of a document."""
    key = stream_key("synthetic language", spec.seed)
    rows = np.empty((spec.words + 1, spec.words), np.uint16)
    ranks = np.arange(spec.words)
    for word in range(spec.words + 1):  # row by row: permute needs many times the memory of its output
        rows[word] = permute(ranks, spec.words, key, stream=word)
    return rows


def tokens_per_document(spec: Synthetic) -> float:
    """Expected words of a document, including markers and one end-of-text token."""
    length = (spec.shortest + spec.longest) / 2
    return spec.passages * (length + 1 + spec.copy_probability * (length + 1)) + 1


def entropy_per_word(spec: Synthetic) -> float:
    """Lowest possible mean loss, nats per word: that of a predictor that knows the language and its seed.

    Each passage makes three random choices, and everything else follows from them. The number of fresh words costs
    log(longest - shortest + 1) nats. Each fresh word costs H nats, the entropy of `zipf`, because its rank is
    independent of all others. Copying or not costs h(copy_probability) nats. Copied words, the `;` after them and the
    end of text (the number of passages is known) cost nothing. So

        entropy_per_word = passages·(E[l]·H + log(longest - shortest + 1) + h) / tokens_per_document

    where the end of text counts as one word of each document. This assumes one token per word and a context that
    reaches back to the start of the document; with a shorter context the loss is higher.
    """
    length = (spec.shortest + spec.longest) / 2
    choices = spec.longest - spec.shortest + 1
    copy = np.array([spec.copy_probability, 1 - spec.copy_probability])
    per_passage = length * _entropy(zipf(spec)) + np.log(choices) + _entropy(copy)
    return float(spec.passages * per_passage / tokens_per_document(spec))


def _text(spec: Synthetic, number: int, words: list[str], after: memoryview, cumulative: Floats) -> str:
    # A counter-based generator starts any document directly, and numpy keeps its raw output stable across versions.
    key = stream_key("synthetic documents", spec.seed)
    generator = np.random.Philox(key=key + (number << 64))
    shape = _uniform(generator, 2 * spec.passages)
    choices = spec.longest - spec.shortest + 1
    lengths = spec.shortest + (shape[: spec.passages] * choices).astype(np.int64)
    copied = shape[spec.passages :] < spec.copy_probability
    ends = np.cumsum(lengths)
    ranks = np.searchsorted(cumulative, _uniform(generator, int(ends[-1])), side="right")
    word, types = spec.words, spec.words
    fresh = [words[word := after[word * types + rank]] for rank in ranks.tolist()]
    passages = (
        " ".join(fresh[end - length : end]) for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)
    )
    return " ".join(
        f"{passage} {COPY} {passage} {END}" if copy else f"{passage} {END}"
        for passage, copy in zip(passages, copied.tolist(), strict=True)
    )


def _uniform(generator: np.random.Philox, size: int) -> Floats:
    """Uniform numbers in [0, 1) with 53 random bits, shape [size]."""
    return (generator.random_raw(size) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _entropy(probability: Floats) -> float:
    """Entropy in nats."""
    positive = probability[probability > 0]
    return float(-(positive * np.log(positive)).sum())


def _collision_bits(spec: Synthetic) -> float:
    """-log2 of the probability that two documents agree in all lengths, all fresh words and all copy choices."""
    same_word = float((zipf(spec) ** 2).sum())
    lengths = np.arange(spec.shortest, spec.longest + 1)
    same_copy = spec.copy_probability**2 + (1 - spec.copy_probability) ** 2
    same_passage = float((same_word**lengths).sum()) / lengths.size**2 * same_copy
    return float("inf") if same_passage == 0 else -spec.passages * float(np.log2(same_passage))
