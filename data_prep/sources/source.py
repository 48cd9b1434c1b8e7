"""The base classes of all sources.

To add a source of text, create a file in this folder with a subclass of `Source`, and import the class in `__init__.py`:

    class Poems(Source):
        kind: Literal["poems"] = "poems"  # the name used in TOML: source = {kind = "poems", folder = "..."}
        folder: str

        def read(self) -> Iterator[Document | BadRow]:
            for path in sorted(Path(self.folder).glob("*.txt")):
                yield Document.of(path.name, path.read_text())

Several processes share the work on a source that can be divided: see `Source.chunks`.

To add a format of tokenized data, see `data_prep.sources.tokens`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from data_prep.sources.document import BadRow, Document


@dataclass(frozen=True)
class Chunk:
    """Consecutive documents of a source, which one process reads.

    files: name and path of each file, if the source consists of files.
    first, last: range of bytes, rows, row groups or documents, depending on the source. `last` is exclusive; None means the end.
    rows_before: number of rows in the file before this chunk. None: unknown, so `read_chunk` numbers the rows from 1.
    text_bytes: estimated size of the text; None if it is unknown.
    state: changes if the content of the files changes. If there are several files, their states are separated by commas.
    """

    files: tuple[tuple[str, str], ...] = ()
    first: int = 0
    last: int | None = None
    rows_before: int | None = 0
    text_bytes: int | None = None
    state: str = ""

    def states(self) -> dict[str, str]:
        """The state of each file by its path. A source without files is listed with an empty path."""
        paths, states = [path for _, path in self.files] or [""], self.state.split(",")
        return dict(zip(paths, states, strict=True)) if len(paths) == len(states) else dict.fromkeys(paths, self.state)


class DataSource(BaseModel, ABC):
    """A deterministic stream of documents: the same input gives the same documents in the same order.

    The fields of a subclass are the keys of the TOML table `data.source`. A store is identified by all of them except
    `max_bad_rows`. Add a field `max_bad_rows: int` if rows may be malformed; without it, there is no limit on bad rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: str  # a Literal with a default in every subclass

    @property
    def in_words(self) -> str:
        """What the text is, for readers of a report, such as "synthetic". By default, the kind."""
        return self.kind.replace("-", " ")

    def input_sizes(self) -> dict[str, str]:
        """Name and size of every input file on this machine, e.g. {"a.txt": "12 bytes"}; empty if there are none.

        The store records them, so a later change in a file's size is detected.
        """
        return {}

    def skipped_input(self) -> str:
        """One-line summary of the skipped files, or "" if there are none. `prepare` and `inspect` print it."""
        return ""

    @property
    def bad_row_limit(self) -> int | None:
        """Number of bad rows that may be skipped before an InputError is raised; None means no limit."""
        limit: int | None = getattr(self, "max_bad_rows", None)
        return limit


class Source(DataSource):
    """A source of text."""

    @abstractmethod
    def read(self) -> Iterator[Document | BadRow]:
        """Yield one Document or BadRow per row. Duplicates and empty texts are allowed and are dropped later.

        Raises InputError if the source cannot be read.
        """

    def text_bytes(self) -> float | None:
        """Estimated size of the text in bytes: infinite if it has no limit on this machine, None if it is unknown."""
        return None

    def chunks(self, size: int, most_tokens: int) -> list[Chunk]:
        """Divide the documents into chunks of about `size` bytes of text each, in order. By default, there is one chunk.

        most_tokens: the number of tokens that the build needs, for a source without an end. Raises InputError if the source cannot be
        read.
        """
        return [Chunk()]

    def read_chunk(self, chunk: Chunk) -> Iterator[Document | BadRow]:
        """Yield the documents of a chunk. All chunks together give the same documents in the same order as `read`."""
        return self.read()

    def rows_in(self, chunk: Chunk, rows: int) -> int:
        """How many row numbers a chunk uses. rows: how many rows `read_chunk` yielded."""
        return rows

    def numbered(self, chunk: Chunk) -> Chunk:
        """The same chunk with `rows_before`, if it can be counted. Called only to name a row in an error message."""
        return chunk

    def fixed_vocabulary(self) -> list[str] | None:
        """All words in the language, if every text consists of these words separated by single spaces.

        Each word becomes one token. If this returns None, a byte-level BPE tokenizer is trained on the texts instead.
        """
        return None
