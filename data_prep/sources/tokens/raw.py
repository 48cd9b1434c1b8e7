"""Files of plain token ids without an index: nanoGPT's train.bin and OLMo's .npy files."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_prep.errors import CannotResume
from data_prep.sources.tokens.llm_c import EVALUATION, LAYOUTS
from data_prep.sources.tokens.runs import TokenFile, TokenFormat, TokenRun, read_blocks, require_dtype

if TYPE_CHECKING:
    from data_prep.sources.tokens.source import Tokens

NUMPY_MAGIC = b"\x93NUMPY"


class NanoGPT(TokenFormat):
    """karpathy/nanoGPT, data/*/prepare.py: uint16, end of text after each document."""

    suffixes = (".bin",)

    def read(self, file: TokenFile, source: "Tokens") -> Iterator[TokenRun]:
        """Yield the tokens of a file. The data type is uint16 unless the source specifies another one."""
        with file.path.open("rb") as stream:
            magic = int.from_bytes(stream.read(4), "little")
        if magic in LAYOUTS or magic == EVALUATION:
            raise CannotResume(f'{file.path}: begins with the header of an llm.c file; use format = "llm.c"')
        yield from read_blocks(file, np.dtype(source.dtype or np.uint16))


class Olmo(TokenFormat):
    """allenai/OLMo-core, data/utils.py: raw token ids without a NumPy header, despite the suffix; end of text after each document."""

    suffixes = (".npy",)

    def read(self, file: TokenFile, source: "Tokens") -> Iterator[TokenRun]:
        """Yield the tokens of a file. A file with a NumPy header is accepted too."""
        if (header := _numpy_header(file.path)) is not None:
            dtype, offset, count = header
            yield from read_blocks(file, require_dtype(file.path, dtype, source), offset, count)
        elif source.dtype is None:
            raise CannotResume(f'{file.path}: no NumPy header; set data.source.dtype to its data type, e.g. "uint32"')
        else:
            yield from read_blocks(file, np.dtype(source.dtype))


def _numpy_header(path: Path) -> tuple[np.dtype[Any], int, int] | None:
    """Data type, size of the header in bytes and number of tokens; None if the file has no NumPy header."""
    with path.open("rb") as stream:
        if stream.read(len(NUMPY_MAGIC)) != NUMPY_MAGIC:
            return None
        stream.seek(0)
        try:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
        except ValueError as error:
            raise CannotResume(f"{path}: its NumPy header is damaged: {error}") from error
        if len(shape) != 1:
            raise CannotResume(f"{path}: an array of shape {list(shape)}; expected shape [tokens]")
        return dtype, stream.tell(), shape[0]
