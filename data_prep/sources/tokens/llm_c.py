"""Shards of llm.c and modded-nanogpt: a header of 1,024 bytes, then token ids (karpathy/llm.c, dev/data/data_common.py)."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from data_prep.errors import CannotResume
from data_prep.sources.tokens.runs import TokenFile, TokenFormat, TokenRun, read_blocks, require_dtype

if TYPE_CHECKING:
    from data_prep.sources.tokens.source import Tokens

HEADER_INTS = 256  # int32
EVALUATION = 20240522  # first number in the header of a file of multiple-choice questions


class Layout(NamedTuple):
    """Properties that the first number in the header determines."""

    version: int
    dtype: str
    end_of_text: int


LAYOUTS = {20240520: Layout(1, "uint16", 50256), 20240801: Layout(7, "uint32", 128000)}  # GPT-2 and Llama 3


class LlmC(TokenFormat):
    """The end-of-text token comes before each document. A document can continue in the next shard."""

    suffixes = (".bin",)
    end = "before"

    def read(self, file: TokenFile, source: "Tokens") -> Iterator[TokenRun]:
        """Yield the tokens of a shard."""
        layout, tokens = _header(file.path)
        dtype = require_dtype(file.path, np.dtype(layout.dtype), source)
        yield from read_blocks(file, dtype, 4 * HEADER_INTS, tokens)

    def end_of_text(self, path: Path) -> int | None:
        """The token that llm.c's scripts use with the tokenizer that the header implies."""
        return _header(path)[0].end_of_text


def _header(path: Path) -> tuple[Layout, int]:
    """The layout and number of tokens according to the header."""
    header = np.fromfile(path, np.int32, HEADER_INTS)
    if len(header) < HEADER_INTS:
        raise CannotResume(f"{path}: {path.stat().st_size} bytes, shorter than the header of an llm.c file")
    magic, version, tokens = header[:3].tolist()
    if magic == EVALUATION:
        raise CannotResume(
            f"{path}: an llm.c evaluation file with multiple-choice questions; expected a file of tokens"
        )
    layout = LAYOUTS.get(magic)
    if layout is None or version != layout.version:
        accepted = " or ".join(f"{magic} version {layout.version}" for magic, layout in LAYOUTS.items())
        raise CannotResume(f"{path}: not an llm.c file: its header is {magic} version {version}, expected {accepted}")
    return layout, tokens
