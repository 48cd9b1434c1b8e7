"""A model's tokenizer, the token that starts its texts, and its ordinary tokens."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from data_prep.errors import InputError
from data_prep.tokenizer import load_tokenizer, vocabulary_of
from repeat_study.hugging_face.folder import ModelFolder

TOKENIZER = "tokenizer.json"
OTHER_TOKENIZERS = ("tokenizer_config.json", "vocab.json", "tokenizer.model", "vocab.txt")  # read through transformers


@dataclass(frozen=True)
class Vocabulary:
    """What the probes need to know about tokens.

    start_token: begins every probe sequence. ordinary: ids of all tokens that are not special, in ascending order.
    """

    tokenizer: Tokenizer | None
    start_token: int
    ordinary: npt.NDArray[np.int64]


def read_vocabulary(folder: ModelFolder, size: int) -> Vocabulary:
    """Read the vocabulary of a model with `size` embedding rows.

    The start token is config.json's beginning-of-sequence token, or else its end-of-sequence token. Raises InputError if there is
    neither, or if the tokenizer is damaged or has ids that the model lacks.
    """
    tokenizer = _tokenizer(folder.path)
    if tokenizer and (needed := vocabulary_of(tokenizer)) > size:
        raise InputError(
            f"{folder.path}: the tokenizer has token ids up to {needed - 1:,}, but the model's vocabulary has {size:,} tokens"
        )
    start = _ids(folder.config, size, "bos_token_id", "eos_token_id")
    if not start:
        raise InputError(
            f"{folder.path / 'config.json'}: neither bos_token_id nor eos_token_id is a token of the vocabulary ({size:,}"
            " tokens); expected the id of the token that starts a text"
        )
    excluded = {*start, *_ids(folder.config, size, "pad_token_id")}
    ids = np.arange(size)
    if tokenizer:
        ids = np.array([*tokenizer.get_vocab(with_added_tokens=True).values()])
        excluded |= set(tokenizer.get_added_tokens_decoder())
    return Vocabulary(tokenizer, start[0], np.setdiff1d(ids, [*excluded]).astype(np.int64))


def _ids(config: dict[str, Any], size: int, *keys: str) -> list[int]:
    """The ids in config.json under these keys that are below `size`. A key may have several ids."""
    nested = config.get("text_config")  # in models that also read images
    settings = config | (nested if isinstance(nested, dict) else {})
    ids: list[int] = []
    for key in keys:
        value = settings.get(key)
        ids += [number for number in (value if isinstance(value, list) else [value]) if type(number) is int]
    return [number for number in ids if 0 <= number < size]


def _tokenizer(path: Path) -> Tokenizer | None:
    """The folder's tokenizer; None if there is none."""
    if (path / TOKENIZER).is_file():
        return load_tokenizer(path / TOKENIZER)
    if not any((path / name).is_file() for name in OTHER_TOKENIZERS) or not importlib.util.find_spec("transformers"):
        return None
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    except Exception:  # the library raises many types of error, for example if a tokenizer needs another library
        return None
    return getattr(loaded, "backend_tokenizer", None)
