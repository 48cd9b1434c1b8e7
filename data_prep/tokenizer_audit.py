"""Check what a tokenizer that the user brought does to the text: special tokens, lost and unknown text, determinism."""

import json
import unicodedata
from collections import Counter
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer, decoders

from data_prep.encoding import EncodedBatch
from data_prep.errors import InputError
from data_prep.sources import Document

LARGEST_LOSS = 0.01  # share of the visible characters
ENOUGH_CHARACTERS = 1_000_000  # seen before a build is stopped early for too large a loss
TWICE_CHARACTERS = 100_000  # encoded twice to test determinism
QUOTED = 20  # characters of a lost document in an error


@dataclass(frozen=True)
class TextLoss:
    """How much of the text is not in its tokens. Visible characters: neither spaces, marks nor control characters."""

    characters: int = 0  # visible ones in all documents
    lost: int = 0  # of them, dropped or unknown to the tokenizer
    unknown: int = 0  # unknown tokens
    documents: int = 0  # that lost text
    first: str = ""  # name of the first of them

    def __add__(self, more: "TextLoss") -> "TextLoss":
        return TextLoss(
            self.characters + more.characters,
            self.lost + more.lost,
            self.unknown + more.unknown,
            self.documents + more.documents,
            self.first or more.first,
        )

    def __str__(self) -> str:
        if not self.lost and not self.unknown:
            return "tokenizer: no text is lost or unknown"
        return (
            f"tokenizer: {self.lost:,} of {self.characters:,} visible characters lost or unknown"
            f" ({self.lost / max(1, self.characters):.2%}), {self.unknown:,} unknown tokens, in {self.documents:,}"
            f" documents, the first {self.first}"
        )

    def require_small(self, last: bool) -> None:
        """Raise InputError if more than LARGEST_LOSS is lost; before the `last` document only if enough text was seen."""
        enough = last or self.characters >= ENOUGH_CHARACTERS
        if enough and self.lost > LARGEST_LOSS * self.characters:
            raise InputError(
                f"data.{self}; at most {LARGEST_LOSS:.0%} accepted; use a tokenizer that was trained on such text"
            )


class TokenizerAudit:
    """Checks batches of documents and their tokens."""

    def __init__(self, tokenizer: Tokenizer, end_of_text: int) -> None:
        content = json.loads(tokenizer.to_str())
        self._tokenizer = self._decoder = tokenizer
        self._unknown = _unknown_token(content["model"], tokenizer)
        if self._unknown == end_of_text:  # unknown text would end a document
            self._unknown = None
        special = (number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special)
        self._special = np.array([number for number in special if number != self._unknown], np.int64)
        if content.get("decoder") is None and "ByteLevel" in json.dumps([content.get("pre_tokenizer")]):
            self._decoder = Tokenizer.from_str(tokenizer.to_str())
            self._decoder.decoder = decoders.ByteLevel()
        self._tested_twice = False

    def check(self, batch: EncodedBatch) -> TextLoss:
        """The text that a batch lost.

        Raises InputError if a document contains a special token or comes out empty, or if the tokenizer is random.
        """
        if not self._tested_twice:
            self._require_deterministic(batch.documents[0])
            self._tested_twice = True
        ends = np.cumsum(batch.lengths)
        self._require_no_special_tokens(batch, ends)
        texts = np.split(batch.tokens, ends[:-1])
        unknown = 0
        if self._unknown is not None:
            texts = [tokens[tokens != self._unknown] for tokens in texts]
            unknown = batch.tokens.size - sum(tokens.size for tokens in texts)
        loss = TextLoss(unknown=unknown)
        decoded = self._decoder.decode_batch([tokens.tolist() for tokens in texts], skip_special_tokens=False)
        for document, text, length in zip(batch.documents, decoded, batch.lengths.tolist(), strict=True):
            loss += _loss_of(document, text, length)
        return loss

    def _require_no_special_tokens(self, batch: EncodedBatch, ends: np.ndarray) -> None:
        places = np.flatnonzero(np.isin(batch.tokens, self._special))
        if not places.size:
            return
        token = int(batch.tokens[places[0]])
        document = batch.documents[int(np.searchsorted(ends, places[0], side="right"))]
        raise InputError(
            f"data.tokenizer: {document.name}: its text becomes the special token {self._tokenizer.id_to_token(token)!r}"
            " inside the document, because the tokenizer's model knows it as a piece of text; remove it from the text or"
            " use another tokenizer"
        )

    def _require_deterministic(self, document: Document) -> None:
        text = document.text[:TWICE_CHARACTERS]
        first, second = (self._tokenizer.encode(text, add_special_tokens=False).ids for _ in range(2))
        if first != second:
            raise InputError(
                f"data.tokenizer: encodes the same text ({document.name}) differently each time; switch its sampling off"
            )


def _unknown_token(model: dict[str, object], tokenizer: Tokenizer) -> int | None:
    """Id of the model's token for unknown text; None if it has none."""
    if isinstance(number := model.get("unk_id"), int):
        return number
    name = model.get("unk_token")
    return tokenizer.token_to_id(name) if isinstance(name, str) else None


def _loss_of(document: Document, decoded: str, tokens: int) -> TextLoss:
    """The text that one document lost."""
    before = _visible(document.text)
    characters = before.total()
    if decoded == document.text:
        return TextLoss(characters)
    if characters and not tokens:
        raise InputError(
            f"data.tokenizer: {document.name}: nothing is left of the document, which begins"
            f" {document.text.strip()[:QUOTED]!r}; use a tokenizer that was trained on such text"
        )
    lost = (before - _visible(decoded)).total()
    return TextLoss(characters, lost, 0, int(lost > 0), document.name if lost else "")


def _visible(text: str) -> Counter[str]:
    """How often each visible character occurs, without regard to case, accents and compatibility forms.

    Many tokenizers normalize these, which is no loss of text.
    """
    counts = Counter(unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold()))
    for character in list(counts):
        if unicodedata.category(character)[0] in "CMZ" or character == "▁":  # ▁ stands for a space
            del counts[character]
    return counts
