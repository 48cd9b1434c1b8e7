"""The base classes of all sources.

To add a source of text, create a file in this folder with a subclass of `Source`, and import the class in `__init__.py`:

    class Poems(Source):
        kind: Literal["poems"] = "poems"  # the name used in TOML: source = {kind = "poems", folder = "..."}
        folder: str

        def read(self) -> Iterator[Document | BadRow]:
            for path in sorted(Path(self.folder).glob("*.txt")):
                yield Document.of(path.name, path.read_text())

To add a format of tokenized data, see `data_prep.sources.tokens`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from data_prep.sources.document import BadRow, Document


class DataSource(BaseModel, ABC):
    """A deterministic stream of documents: the same input gives the same documents in the same order.

    The fields of a subclass are the keys of the TOML table `data.source`. A store is identified by all of them except
    `max_bad_rows`. Add a field `max_bad_rows: int` if rows may be malformed; without it, there is no limit on bad rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: str  # a Literal with a default in every subclass

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

    def fixed_vocabulary(self) -> list[str] | None:
        """All words in the language, if every text consists of these words separated by single spaces.

        Each word becomes one token. If this returns None, a byte-level BPE tokenizer is trained on the texts instead.
        """
        return None
