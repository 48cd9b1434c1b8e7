"""The sequences on which a model without a token store is measured: copies of random tokens, copied paragraphs, and rotated texts."""

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from data_prep.errors import InputError
from repeat_study.config.copying_text import shipped_text
from repeat_study.hugging_face.vocabulary import Vocabulary
from repeat_study.probes.copying import (
    CopyingInputs,
    CopyingTextError,
    copying_probe,
    split_paragraphs,
    token_texts,
)
from repeat_study.probes.heads import COPIES, HeadProbe, head_probe_from


@dataclass(frozen=True)
class ParagraphTexts:
    """Sequences made from paragraphs.

    rotations: the same paragraphs in one order per paragraph, shape [paragraphs, time + 1]. Every paragraph comes early in some
        sequences and late in others, so the in-context score does not depend on which paragraphs are easier.
    """

    copying: CopyingInputs
    rotations: Tensor


@dataclass(frozen=True)
class ModelTexts:
    """All sequences for one model. paragraphs: None if there is no tokenizer that can encode them."""

    heads: HeadProbe
    paragraphs: ParagraphTexts | None


def model_texts(vocabulary: Vocabulary, context: int, text: str | None) -> ModelTexts:
    """Make the sequences for a model.

    The random tokens come from the middle half of the ordinary tokens by id. In BPE vocabularies, ids rise as tokens become
    rarer, so these are tokens of medium frequency. The paragraphs come from `text`, or else from the text shipped with this
    package. Raises InputError if the context is too short, or if `text` cannot be used.
    """
    heads = head_probe_from(vocabulary.ordinary, vocabulary.start_token, context)
    if heads is None:
        raise InputError(
            f"{len(vocabulary.ordinary)} ordinary tokens and a context of {context} are too few; the heads probe needs 4 tokens and a"
            f" context of {2 * COPIES}"
        )
    try:
        paragraphs = paragraph_texts(vocabulary.tokenizer, vocabulary.start_token, context, text)
    except CopyingTextError:
        if text is not None:
            raise
        paragraphs = None
    return ModelTexts(heads, paragraphs)


def paragraph_texts(tokenizer: Tokenizer | None, start_token: int, context: int, text: str | None) -> ParagraphTexts:
    """Copied and rotated paragraphs. Raises CopyingTextError if the tokenizer is missing or cannot encode them without loss."""
    copying = copying_probe(tokenizer, start_token, context, text)
    assert tokenizer
    texts = token_texts(tokenizer, copying.copied[0, 1 : 1 + copying.length].tolist())
    paragraphs = split_paragraphs(shipped_text() if text is None else text)
    rotated = [
        [
            start_token,
            *tokenizer.encode("\n\n".join(paragraphs[first:] + paragraphs[:first]), add_special_tokens=False).ids,
        ]
        for first in range(len(paragraphs))
    ]
    time = min(context + 1, *map(len, rotated))
    return ParagraphTexts(CopyingInputs(copying, texts), torch.tensor([tokens[:time] for tokens in rotated]))
