"""The source `{kind = "tokens", format = ..., paths = [...]}`: data that another program has tokenized."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from data_prep.errors import CannotResume, InputError
from data_prep.files import user_path
from data_prep.sources.find_files import find_files, names_of
from data_prep.sources.source import DataSource
from data_prep.sources.tokens.datasets import Datasets
from data_prep.sources.tokens.datatrove import Datatrove
from data_prep.sources.tokens.litdata import LitData
from data_prep.sources.tokens.llm_c import LlmC
from data_prep.sources.tokens.mds import Mds
from data_prep.sources.tokens.megatron import Megatron
from data_prep.sources.tokens.packed_rows import join_packed
from data_prep.sources.tokens.raw import NanoGPT, Olmo
from data_prep.sources.tokens.runs import End, TokenFile, TokenFormat, TokenRun

FORMATS: dict[str, TokenFormat] = {
    "megatron": Megatron(),
    "nanogpt": NanoGPT(),
    "llm.c": LlmC(),
    "olmo": Olmo(),
    "datatrove": Datatrove(),
    "litdata": LitData(),
    "mds": Mds(),
    "datasets": Datasets(),
}
OPTIONS = frozenset[str]().union(*(layout.options for layout in FORMATS.values()))


class Tokens(DataSource):
    """Files of token ids. A document ends at each end-of-text token, and wherever the format records an end."""

    kind: Literal["tokens"] = "tokens"
    format: str
    paths: tuple[str, ...] = Field(
        strict=False, min_length=1
    )  # files, folders and globs; for datasets also names on the hub
    end_of_text: int | None = Field(None, ge=0)  # the token that separates documents
    end: End | None = None  # whether this token comes after or before each document
    # Data type of the ids. It is needed only if the files do not record it.
    dtype: Literal["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"] | None = None
    tokens_field: str | None = None  # name of the column with token ids
    split: str | None = None

    @property
    def in_words(self) -> str:
        """See `DataSource.in_words`."""
        return f"tokenized data ({names_of(self.paths)})"

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: str) -> str:
        if value not in FORMATS:
            raise ValueError(f"unknown format; accepted: {', '.join(FORMATS)}")
        return value

    @model_validator(mode="after")
    def _accepted_options(self) -> Self:
        for key in sorted(OPTIONS - self.layout.options):
            if getattr(self, key) is not None:
                formats = [name for name, layout in FORMATS.items() if key in layout.options]
                raise ValueError(f"{key} is accepted only for the formats {', '.join(formats)}, not for {self.format}")
        return self

    @property
    def layout(self) -> TokenFormat:
        """The reader for the format."""
        return FORMATS[self.format]

    def files(self) -> list[TokenFile]:
        """The files to read, in the order of `paths` and, within a folder or glob, sorted by name.

        Raises InputError if a path matches no file of this format.
        """
        if not self.layout.suffixes:
            paths = [user_path(given, "data.source.paths") for given in self.paths]
            return [TokenFile(path.name, path) for path in paths]
        accepted = find_files(tuple(map(self._with_suffix, self.paths)), self.layout.suffixes).files
        main = {self.layout.files_of(path)[0]: TokenFile(name, path) for name, path in reversed(accepted)}
        return list(reversed(main.values()))

    def _with_suffix(self, given: str) -> str:
        """Add a missing suffix, because Megatron's own tools name a dataset without one."""
        names = [given, *(given + suffix for suffix in self.layout.suffixes)]
        return next((name for name in names if given and Path(name).is_file()), given)

    def end_of_text_token(self) -> int | None:
        """The token that separates documents, from the key `end_of_text` or else from the format; None if neither specifies it."""
        if self.end_of_text is not None:
            return self.end_of_text
        first = self.files()[0].path
        with _one_line_errors(first):
            return self.layout.end_of_text(first)

    def runs(self, end_of_text: int, notes: list[str]) -> Iterator[TokenRun]:
        """Yield all tokens in order. Notes about packed rows are appended to `notes`.

        Raises InputError if a file cannot be read or is damaged.
        """
        runs = self._runs()
        yield from join_packed(runs, end_of_text, self.end_position, notes) if self.layout.rows else runs

    @property
    def end_position(self) -> End:
        """Whether the end-of-text token comes after or before each document."""
        return self.end or self.layout.end

    def _runs(self) -> Iterator[TokenRun]:
        for file in self.files():
            with _one_line_errors(file.path):
                yield from self.layout.read(file, self)

    def input_sizes(self) -> dict[str, str]:
        """Size of every file, including indexes. Empty if the files are missing, because the store may come from another machine."""
        sizes: dict[str, str] = {}
        with suppress(InputError):
            for file in self.files():
                for path in self.layout.files_of(file.path):
                    if path.is_file():
                        name = Path(file.name).with_name(path.name).as_posix()
                        sizes[name] = f"{path.stat().st_size} bytes"
        return sizes

    def skipped_input(self) -> str:
        """One-line summary of the hidden files and other file types that were skipped; empty if nothing was skipped."""
        with suppress(InputError):
            if self.layout.suffixes:
                return find_files(self.paths, self.layout.suffixes).skipped()
        return ""


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{error.filename or path}: cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, struct.error) as error:
        raise CannotResume(f"{path}: damaged ({type(error).__name__}: {error})") from error
