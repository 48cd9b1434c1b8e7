"""Tokenizers: train a byte-level BPE on the corpus, or load a tokenizer.json."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from data_prep.errors import InputError
from data_prep.files import read_text

END_OF_TEXT = "<|endoftext|>"
SMALLEST_VOCABULARY = 257  # 256 bytes and the end-of-text token


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train a byte-level BPE with GPT-2's pre-tokenization. End of text is token 0; every text round-trips.

    Raises InputError if there is too little text to fill the vocabulary.
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
            f"data.vocabulary: {vocabulary} tokens requested, but the corpus has enough pairs for only"
            f" {tokenizer.get_vocab_size()}; request that many or give more text"
        )
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """Load a tokenizer.json, without truncation, padding and BPE dropout. Raises InputError if it is missing or malformed."""
    if not path.is_file():
        raise InputError(f"{path}: no such tokenizer file")
    try:
        tokenizer = Tokenizer.from_str(read_text(path))
    except InputError:
        raise
    except Exception as error:  # the library raises plain Exception
        raise InputError(f"{path}: not a tokenizer.json ({error})") from error
    # A saved tokenizer may truncate or pad; a store holds whole documents, unpadded.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if getattr(tokenizer.model, "dropout", None) is not None:
        tokenizer.model.dropout = None  # it makes every encoding of a text a different one
    return tokenizer


def vocabulary_of(tokenizer: Tokenizer) -> int:
    """Rows a model needs: the largest token id + 1. It exceeds the number of tokens if the ids have gaps."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def special_token(tokenizer: Tokenizer, token: str) -> int:
    """Id of a special token. Raises InputError if `token` is not in the vocabulary or not special (plain text may hold it)."""
    number = tokenizer.token_to_id(token)
    added = tokenizer.get_added_tokens_decoder()
    if number is None or number not in added or not added[number].special:
        known = ", ".join(repr(entry.content) for entry in added.values() if entry.special) or "none"
        raise InputError(
            f"data.end_of_text: {token!r} is not a special token of the tokenizer; its special tokens: {known}"
        )
    return int(number)


def word_tokenizer(words: list[str]) -> Tokenizer:
    """A tokenizer with one token per space-separated word, for synthetic languages. End of text is token 0."""
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate([END_OF_TEXT, *words])}))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer
