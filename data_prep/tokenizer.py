"""Byte-level BPE: train one on the corpus, save it, load it back."""

import os
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from data_prep.errors import InputError

END_OF_TEXT = "<|endoftext|>"
SMALLEST_VOCABULARY = 257  # 256 bytes and the end of text


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train a byte-level BPE with GPT-2's word split; the end of text is token 0, any text round-trips.

    Raises InputError when the texts are too few to fill the vocabulary.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != vocabulary:
        raise InputError(
            f"data.vocabulary: {vocabulary} tokens asked for, but the corpus has pairs for only"
            f" {tokenizer.get_vocab_size()}; ask for that many or give more text"
        )
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """Load a tokenizer.json; raises InputError when it is missing or malformed."""
    if not path.is_file():
        raise InputError(f"{path}: no such tokenizer file")
    try:
        tokenizer = Tokenizer.from_file(os.fspath(path))
    except Exception as error:  # the library raises plain Exception
        raise InputError(f"{path}: not a tokenizer.json ({error})") from error
    # Left over from whatever the file was saved for; a store holds whole documents and nothing else.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def vocabulary_of(tokenizer: Tokenizer) -> int:
    """The number a model needs rows for: the largest id and one; a vocabulary may have gaps."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def special_token(tokenizer: Tokenizer, token: str) -> int:
    """The id of a special token; raises InputError where it is no token or one that plain text can hold."""
    number = tokenizer.token_to_id(token)
    added = tokenizer.get_added_tokens_decoder()
    if number is None or number not in added or not added[number].special:
        known = ", ".join(repr(other.content) for other in added.values() if other.special) or "none"
        raise InputError(
            f"data.end_of_text: {token!r} is no special token of the tokenizer; its special tokens: {known}"
        )
    return int(number)


def word_tokenizer(words: list[str]) -> Tokenizer:
    """A tokenizer with one token per word of text separated by spaces; the end of text is token 0.

    For synthetic languages, whose entropy is known per word.
    """
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate([END_OF_TEXT, *words])}))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer
