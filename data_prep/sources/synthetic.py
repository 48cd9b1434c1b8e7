"""A synthetic language of known entropy: words from a Zipf-Markov process, and passages that are copied in context.

Closed-form expressions exist for the lowest possible loss and for the share of the loss that only copying can remove.
With them, damage to copying can be distinguished from damage to memorized statistics.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import count
from math import inf
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from data_prep.permutation import permute, stream_key
from data_prep.sources.document import Document
from data_prep.sources.source import Chunk, Source

COPY, END = "=", ";"
Floats = npt.NDArray[np.float64]
# The probability that two documents are equal must be at most 2^-64, so in practice no document repeats.
FEWEST_BITS = 64.0
BYTES_PER_WORD = 4.5  # approximate, including the space
MOST_CHUNKS = 100_000


class Synthetic(Source):
    """An endless series of documents in a synthetic language. Lengths are in words, not counting the markers `=` and `;`.

    A document consists of `passages` passages. A passage consists of l fresh words and a final `;`, where l is drawn
    uniformly from shortest..longest. With probability `copy_probability`, `=` and a copy of the l words are inserted
    before the `;`. Each word has its own ranking of all words. The fresh word that follows it has rank r in this ranking
    with a probability proportional to r^-zipf_exponent. The first fresh word in a passage depends in the same way on the
    last fresh word in the previous passage or, at the start of the document, on a start state.
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
                f"documents this short repeat by chance (two are equal with probability 2^-{bits:.0f}; the limit is 2^-64);"
                " use more passages, longer passages or more words"
            )
        return self

    def read(self) -> Iterator[Document]:
        """Yield the documents synthetic:0, synthetic:1, ... without end. Document i depends only on i and the spec."""
        return self.read_chunk(Chunk())

    def read_chunk(self, chunk: Chunk) -> Iterator[Document]:
        """Yield the documents chunk.first..chunk.last (exclusive)."""
        words = words_of(self)[: self.words]
        after = transitions(self).ravel().data
        cumulative = np.cumsum(zipf(self))
        cumulative[-1] = 1.0
        for number in count(chunk.first) if chunk.last is None else range(chunk.first, chunk.last):
            yield Document.of(f"synthetic:{number}", _text(self, number, words, after, cumulative))

    def text_bytes(self) -> float:
        """Infinite, because the series has no end."""
        return inf

    def chunks(self, size: int, most_tokens: int) -> list[Chunk]:
        """As many documents as the build can need, and then all others."""
        per_chunk = max(1, int(size / BYTES_PER_WORD / tokens_per_document(self)))
        shortest = self.passages * (self.shortest + 1) + 1
        count_of_chunks = min(most_tokens // shortest // per_chunk + 1, MOST_CHUNKS)
        starts = [number * per_chunk for number in range(count_of_chunks)]
        chunks = [Chunk((), start, start + per_chunk, text_bytes=size) for start in starts]
        return [*chunks, Chunk((), count_of_chunks * per_chunk, text_bytes=0)]

    @property
    def bad_row_limit(self) -> int:
        """Zero: all documents are about equally long, so if they were too long, the source would skip documents forever."""
        return 0

    def fixed_vocabulary(self) -> list[str]:
        """All words and markers."""
        return words_of(self)


def words_of(spec: Synthetic) -> list[str]:
    """All words in the language, then the markers. A text consists of these, separated by single spaces."""
    return [*(f"w{number}" for number in range(spec.words)), COPY, END]


def zipf(spec: Synthetic) -> Floats:
    """Probability of each rank for a fresh word, shape [words]."""
    weight = np.arange(1, spec.words + 1, dtype=np.float64) ** -spec.zipf_exponent
    return weight / weight.sum()


@lru_cache(maxsize=1)  # for the chunks that a process reads one after another
def transitions(spec: Synthetic) -> npt.NDArray[np.uint16]:
    """Each word's ranking of all words, shape [words + 1, words]. The last row is the ranking at the start of a document."""
    key = stream_key("synthetic language", spec.seed)
    rows = np.empty((spec.words + 1, spec.words), np.uint16)
    ranks = np.arange(spec.words)
    for word in range(spec.words + 1):  # row by row, because permute needs many times the memory of its output
        rows[word] = permute(ranks, spec.words, key, stream=word)
    return rows


def tokens_per_document(spec: Synthetic) -> float:
    """Expected number of tokens in a document, including markers and one end-of-text token."""
    length = (spec.shortest + spec.longest) / 2
    return spec.passages * (length + 1 + spec.copy_probability * (length + 1)) + 1


def entropy_per_word(spec: Synthetic) -> float:
    """Lowest possible mean loss in nats per word: the loss of a predictor that knows the language and its seed.

    Each passage involves three random choices, and everything else follows from them:
    - the number of fresh words, with an entropy of log(longest - shortest + 1) nats;
    - the fresh words, with an entropy of H nats each, the entropy of `zipf`, because their ranks are independent;
    - whether they are copied, with an entropy of h(copy_probability) nats.
    Copied words, the `;` after them and the end of text can be predicted with certainty. Therefore

        entropy_per_word = passages·(E[l]·H + log(longest - shortest + 1) + h) / tokens_per_document

    where the end of text counts as one word of each document. This assumes one token per word and a context that
    includes the start of the document. With a shorter context, the loss is higher.
    """
    length = (spec.shortest + spec.longest) / 2
    choices = spec.longest - spec.shortest + 1
    copy = np.array([spec.copy_probability, 1 - spec.copy_probability])
    per_passage = length * _entropy(zipf(spec)) + np.log(choices) + _entropy(copy)
    return float(spec.passages * per_passage / tokens_per_document(spec))


def _text(spec: Synthetic, number: int, words: list[str], after: memoryview, cumulative: Floats) -> str:
    # A counter-based generator can start at any document. Its raw output is the same in all versions of numpy.
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
    """Uniform random numbers in [0, 1) with 53 random bits, shape [size]."""
    return (generator.random_raw(size) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _entropy(probability: Floats) -> float:
    """Entropy of a distribution, in nats."""
    positive = probability[probability > 0]
    return float(-(positive * np.log(positive)).sum())


def _collision_bits(spec: Synthetic) -> float:
    """-log2 of the probability that two documents agree in all lengths, all fresh words and all copy choices."""
    same_word = float((zipf(spec) ** 2).sum())
    lengths = np.arange(spec.shortest, spec.longest + 1)
    same_copy = spec.copy_probability**2 + (1 - spec.copy_probability) ** 2
    same_passage = float((same_word**lengths).sum()) / lengths.size**2 * same_copy
    return float("inf") if same_passage == 0 else -spec.passages * float(np.log2(same_passage))
