"""Check whether an existing tokenizer produces special tokens from text, loses text or encodes text randomly."""

import json
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from tokenizers import Tokenizer, decoders

from data_prep.encoding import EncodedBatch
from data_prep.errors import CannotResume
from data_prep.permutation import Ints
from data_prep.sources import Document

LARGEST_LOSS = 0.01  # share of the visible characters that may be lost
ENOUGH_CHARACTERS = 1_000_000  # the audit can stop the build only after this much text
TWICE_CHARACTERS = 100_000  # this much text is encoded twice to check that the result is the same
QUOTED = 20  # number of characters that an error quotes from a document


@dataclass(frozen=True)
class TextLoss:
    """Amount of text lost in encoding. All characters except spaces, marks and control characters count as visible."""

    characters: int = 0  # visible characters in all documents
    lost: int = 0  # visible characters that the tokenizer dropped or did not know
    unknown: int = 0  # number of unknown tokens
    documents: int = 0  # number of documents with lost text
    first: str = ""  # name of the first document with lost text

    def add(self, losses: Ints, names: list[str]) -> "TextLoss":
        """Add the loss of more documents. losses: as returned by `TokenizerAudit.check`; names: of the documents."""
        lossy = np.flatnonzero(losses[:, 1])
        return TextLoss(
            self.characters + int(losses[:, 0].sum()),
            self.lost + int(losses[:, 1].sum()),
            self.unknown + int(losses[:, 2].sum()),
            self.documents + len(lossy),
            self.first or (names[lossy[0]] if len(lossy) else ""),
        )

    def __str__(self) -> str:
        if not self.lost and not self.unknown:
            return "tokenizer: no text is lost or unknown"
        return (
            f"tokenizer: {self.lost:,} of {self.characters:,} visible characters lost or unknown"
            f" ({self.lost / max(1, self.characters):.2%}), {self.unknown:,} unknown tokens, in {self.documents:,}"
            f" documents (first: {self.first})"
        )

    def is_large(self, last: bool) -> bool:
        """Whether more than LARGEST_LOSS of the text is lost.

        last: whether this is the final check. Earlier checks do nothing until ENOUGH_CHARACTERS characters have been read.
        """
        enough = last or self.characters >= ENOUGH_CHARACTERS
        return enough and self.lost > LARGEST_LOSS * self.characters

    def require_small(self, last: bool) -> None:
        """Raise CannotResume if `is_large`."""
        if self.is_large(last):
            raise CannotResume(
                f"data.{self}; at most {LARGEST_LOSS:.0%} is accepted; use a tokenizer that was trained on similar text"
            )


class TokenizerAudit:
    """Checks a tokenizer on batches of documents and their tokens."""

    def __init__(self, tokenizer: Tokenizer, end_of_text: int) -> None:
        content = json.loads(tokenizer.to_str())
        self._tokenizer = self._decoder = tokenizer
        self._unknown = _unknown_token(content["model"], tokenizer)
        if self._unknown == end_of_text:  # treat it as a special token, which no text may contain
            self._unknown = None
        special = (number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special)
        self._special = np.array([number for number in special if number != self._unknown], np.int64)
        if content.get("decoder") is None and "ByteLevel" in json.dumps([content.get("pre_tokenizer")]):
            self._decoder = Tokenizer.from_str(tokenizer.to_str())
            self._decoder.decoder = decoders.ByteLevel()
        self._tested_twice = False
        decoder = json.loads(self._decoder.to_str()).get("decoder") or {}
        self._bytes_of = _bytes_of_tokens(tokenizer) if decoder.get("type") == "ByteLevel" else None

    def check(self, batch: EncodedBatch) -> Ints:
        """Measure how much text was lost: visible characters, lost characters and unknown tokens, shape [documents, 3].

        Raises CannotResume if the encoding of a document is empty or contains a special token, or if encoding is not deterministic.
        """
        if not self._tested_twice:
            self._require_deterministic(batch.documents[0])
            self._tested_twice = True
        ends = np.cumsum(batch.lengths)
        self._require_no_special_tokens(batch, ends)
        texts = np.split(batch.tokens, ends[:-1])
        losses = np.zeros((len(texts), 3), np.int64)
        if self._unknown is not None:
            texts = [tokens[tokens != self._unknown] for tokens in texts]
            losses[:, 2] = batch.lengths - [tokens.size for tokens in texts]
        for number, (document, tokens) in enumerate(zip(batch.documents, texts, strict=True)):
            ids = tokens.tolist()
            if self._bytes_of and b"".join([self._bytes_of[token] for token in ids]) == document.text.encode():
                losses[number, 0] = visible_characters(document.text)  # nothing is lost
                continue
            decoded = self._decoder.decode(ids, skip_special_tokens=False)
            losses[number, :2] = _loss_of(document, decoded, int(batch.lengths[number]))
        return losses

    def _require_no_special_tokens(self, batch: EncodedBatch, ends: np.ndarray) -> None:
        places = np.flatnonzero(np.isin(batch.tokens, self._special))
        if not places.size:
            return
        token = int(batch.tokens[places[0]])
        document = batch.documents[int(np.searchsorted(ends, places[0], side="right"))]
        raise CannotResume(
            f"data.tokenizer: {document.name}: part of its text is encoded as the special token"
            f" {self._tokenizer.id_to_token(token)!r}; remove it from the text or use another tokenizer"
        )

    def _require_deterministic(self, document: Document) -> None:
        text = document.text[:TWICE_CHARACTERS]
        first, second = (self._tokenizer.encode(text, add_special_tokens=False).ids for _ in range(2))
        if first != second:
            raise CannotResume(
                f"data.tokenizer: the same text ({document.name}) is encoded differently each time; disable random sampling"
            )


def _unknown_token(model: dict[str, object], tokenizer: Tokenizer) -> int | None:
    """Id of the model's token for unknown text, or None if it has no such token."""
    if isinstance(number := model.get("unk_id"), int):
        return number
    name = model.get("unk_token")
    return tokenizer.token_to_id(name) if isinstance(name, str) else None


def _bytes_of_tokens(tokenizer: Tokenizer) -> list[bytes]:
    """The bytes that a byte-level decoder produces for each token. Joining them takes a quarter of the time of decoding."""
    # The library's alphabet: printable bytes stand for themselves, and the others for the characters from 256 on.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    table = [b""] * (max(vocabulary.values()) + 1)
    for token, number in vocabulary.items():
        table[number] = (
            bytes(byte_of[character] for character in token)
            if all(map(byte_of.__contains__, token))
            else token.encode()
        )
    return table


def _loss_of(document: Document, decoded: str, tokens: int) -> tuple[int, int]:
    """Number of visible characters in a document, and how many of them were lost."""
    characters = visible_characters(document.text)
    if decoded == document.text:
        return characters, 0
    if characters and not tokens:
        raise CannotResume(
            f"data.tokenizer: {document.name}: the tokenizer drops all of its text, which begins with"
            f" {document.text.strip()[:QUOTED]!r}; use a tokenizer that was trained on similar text"
        )
    return characters, (_visible(document.text) - _visible(decoded)).total()


_ASCII = re.compile(r"[\x00-\x7f]+")
_INVISIBLE_ASCII = bytes([*range(33), 127])


def visible_characters(text: str) -> int:
    """The total of `_visible`. Normalization does not depend on neighboring characters, so the characters are counted one by one."""
    if text.isascii():
        return len(text.encode().translate(None, _INVISIBLE_ASCII))
    others = _ASCII.sub("", text)
    in_ascii = len(text.encode("ascii", "ignore").translate(None, _INVISIBLE_ASCII))
    return in_ascii + sum(map(_visible_in, others))


@lru_cache(maxsize=10_000)
def _visible_in(character: str) -> int:
    return _visible(character).total()


def _visible(text: str) -> Counter[str]:
    """Count each visible character, ignoring case, accents and compatibility forms.

    Many tokenizers normalize these, which does not count as lost text.
    """
    counts = Counter(unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold()))
    for character in list(counts):
        if unicodedata.category(character)[0] in "CMZ" or character == "▁":  # ▁ stands for a space
            del counts[character]
    return counts
