"""Train a byte-level BPE tokenizer on the corpus, or load one from a tokenizer.json file."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from data_prep.errors import InputError
from data_prep.files import read_text

END_OF_TEXT = "<|endoftext|>"
SMALLEST_VOCABULARY = 257  # 256 bytes and the end-of-text token


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train a byte-level BPE tokenizer with GPT-2's pre-tokenization. Its encoding is lossless. Token 0 marks the end of text.

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
            f"data.vocabulary: {vocabulary} tokens requested, but the corpus yields only"
            f" {tokenizer.get_vocab_size()}; request that many or provide more text"
        )
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """Load a tokenizer.json file, and disable truncation, padding and BPE dropout. Raises InputError if loading fails."""
    if not path.is_file():
        raise InputError(f"{path}: no such tokenizer file")
    try:
        tokenizer = Tokenizer.from_str(read_text(path))
    except InputError:
        raise
    except Exception as error:  # the library raises plain Exception
        raise InputError(f"{path}: not a tokenizer.json ({error})") from error
    # The file may enable truncation or padding, but a store contains whole, unpadded documents.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if getattr(tokenizer.model, "dropout", None) is not None:
        tokenizer.model.dropout = None  # with dropout, the same text is encoded differently each time
    return tokenizer


def vocabulary_of(tokenizer: Tokenizer) -> int:
    """Number of embedding rows a model needs: one more than the largest token id, even if some ids are unused."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def special_token(tokenizer: Tokenizer, token: str) -> int:
    """Id of a special token. Raises InputError if `token` is missing from the vocabulary or is an ordinary token."""
    number = tokenizer.token_to_id(token)
    added = tokenizer.get_added_tokens_decoder()
    if number is None or number not in added or not added[number].special:
        special = ", ".join(repr(entry.content) for entry in added.values() if entry.special) or "none"
        raise InputError(
            f"data.end_of_text: {token!r} is not a special token of the tokenizer; its special tokens: {special}"
        )
    return int(number)


def word_tokenizer(words: list[str]) -> Tokenizer:
    """Make a synthetic language's tokenizer, with one token per space-separated word. Token 0 marks the end of text."""
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate([END_OF_TEXT, *words])}))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer
