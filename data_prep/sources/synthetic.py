"""A language whose entropy is known: Zipf-Markov words, and passages that are copied in context.

The loss of a model trained on it has a floor in closed form, and the part of that loss that only copying can remove is
known too, so damage to copying is not mistaken for damage to memory.
"""

from collections.abc import Iterator
from itertools import count
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_prep.permutation import permute, stream_key
from data_prep.sources.document import Document

COPY, END = "=", ";"
Floats = npt.NDArray[np.float64]
FEWEST_BITS = (
    64.0  # two documents are equal with probability below 2^-64: none is in practice, and the stream never dries
)


class Synthetic(BaseModel):
    """The language and its documents; lengths in words, markers not counted.

    A document is `passages` passages. A passage is l fresh words, l uniform over shortest..longest, then `;`, or, with
    `copy_probability`, `=`, the same l words once more, and `;`. The fresh word after word w (of this passage or the
    last; a start state opens the document) is the one at rank r of a permutation of all words that belongs to w alone,
    and P(r) is proportional to r^-zipf_exponent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["synthetic"] = "synthetic"
    seed: int = 0
    words: int = Field(500, ge=2, le=4096)  # the transitions take 2·words² bytes
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
                f"documents this short repeat by chance (two are equal with probability 2^-{bits:.0f}, 2^-64 accepted);"
                " ask for more passages, longer ones or more words"
            )
        return self


def words_of(spec: Synthetic) -> list[str]:
    """All words of the language, markers last; texts are these separated by single spaces."""
    return [*(f"w{number}" for number in range(spec.words)), COPY, END]


def zipf(spec: Synthetic) -> Floats:
    """Probability of each rank of a fresh word, most frequent first, shape [words]."""
    weight = np.arange(1, spec.words + 1, dtype=np.float64) ** -spec.zipf_exponent
    return weight / weight.sum()


def transitions(spec: Synthetic) -> npt.NDArray[np.uint16]:
    """Number of the fresh word at each rank after each word, shape [words + 1, words]; the last row opens a document."""
    key = stream_key("synthetic language", spec.seed)
    rows = np.empty((spec.words + 1, spec.words), np.uint16)
    ranks = np.arange(spec.words)
    for word in range(spec.words + 1):  # a row at a time: permute's scratch is many times its output
        rows[word] = permute(ranks, spec.words, key, stream=word)
    return rows


def tokens_per_document(spec: Synthetic) -> float:
    """Expected words of a document, markers and one end of text included."""
    length = (spec.shortest + spec.longest) / 2
    return spec.passages * (length + 1 + spec.copy_probability * (length + 1)) + 1


def entropy_per_word(spec: Synthetic) -> float:
    """Least possible mean loss, nats per word: what a predictor that knows the language and the seed of it reaches.

    Per passage there are three choices, and everything else follows from them: how many fresh words, log(longest -
    shortest + 1) nats; which, H nats each, H the entropy of `zipf`, since after any word the next is one rank drawn
    afresh; copy or not, h(copy_probability) nats. Copied words, the `;` after them and the end of text (the number of
    passages is known) cost nothing. So

        entropy_per_word = passages·(E[l]·H + log(longest - shortest + 1) + h) / tokens_per_document

    with the end of text counted as one word of each document. It assumes one token per word and a context that
    reaches back to the start of the document: a model that cannot see it pays more.
    """
    length = (spec.shortest + spec.longest) / 2
    choices = spec.longest - spec.shortest + 1
    copy = np.array([spec.copy_probability, 1 - spec.copy_probability])
    per_passage = length * _entropy(zipf(spec)) + np.log(choices) + _entropy(copy)
    return float(spec.passages * per_passage / tokens_per_document(spec))


def read(spec: Synthetic) -> Iterator[Document]:
    """Documents synthetic:0, synthetic:1, ... without end; document i is a function of the spec and i alone."""
    words = words_of(spec)[: spec.words]
    after = transitions(spec).ravel().data
    cumulative = np.cumsum(zipf(spec))
    cumulative[-1] = 1.0
    key = stream_key("synthetic documents", spec.seed)
    for number in count():
        yield Document.of(f"synthetic:{number}", _text(spec, key, number, words, after, cumulative))


def _text(spec: Synthetic, key: int, number: int, words: list[str], after: memoryview, cumulative: Floats) -> str:
    # Raw words of a counter-based generator: numpy promises the same ones in every version, and each document's start
    # is found without making the ones before it.
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
    """Numbers in [0, 1) of 53 bits."""
    return (generator.random_raw(size) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _entropy(probability: Floats) -> float:
    """Nats."""
    positive = probability[probability > 0]
    return float(-(positive * np.log(positive)).sum())


def _collision_bits(spec: Synthetic) -> float:
    """-log2 of the probability that two documents are equal: all lengths, all fresh words and all copy choices."""
    same_word = float((zipf(spec) ** 2).sum())
    lengths = np.arange(spec.shortest, spec.longest + 1)
    same_copy = spec.copy_probability**2 + (1 - spec.copy_probability) ** 2
    same_passage = float((same_word**lengths).sum()) / lengths.size**2 * same_copy
    return float("inf") if same_passage == 0 else -spec.passages * float(np.log2(same_passage))
