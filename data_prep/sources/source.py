"""The base class of all sources of documents.

To add a source, write one file in this folder with one subclass of `Source`, and import it in `__init__.py`:

    class Poems(Source):
        kind: Literal["poems"] = "poems"  # the name used in TOML: source = {kind = "poems", folder = "..."}
        folder: str

        def read(self) -> Iterator[Document | BadRow]:
            for path in sorted(Path(self.folder).glob("*.txt")):
                yield Document.of(path.name, path.read_text())
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from data_prep.sources.document import BadRow, Document


class Source(BaseModel, ABC):
    """A deterministic stream of documents: the same input gives the same documents in the same order.

    Fields are the keys of the TOML table `data.source`; together they name the store. A source whose rows may be
    malformed has a field `max_bad_rows: int`; without it, bad rows are skipped without limit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: str  # a Literal with a default in every subclass

    @abstractmethod
    def read(self) -> Iterator[Document | BadRow]:
        """Yield every document, and a BadRow for every row that gives none. Duplicates and empty texts are dropped later.

        Raises InputError if the source cannot be read.
        """

    def input_sizes(self) -> dict[str, str]:
        """Name and size of every input file on this machine, e.g. {"a.txt": "12 bytes"}; {} if none can be named.

        A store records them, so that changed input under the same names is detected.
        """
        return {}

    def skipped_input(self) -> str:
        """One line on the files that are not read; empty if there are none. Shown once the store is built."""
        return ""

    def fixed_vocabulary(self) -> list[str] | None:
        """All words of the language, if every text is these words separated by single spaces; each becomes one token.

        None: a byte-level BPE is trained on the texts.
        """
        return None

    @property
    def bad_row_limit(self) -> int | None:
        """Bad rows accepted before reading stops with an InputError; None: no limit."""
        limit: int | None = getattr(self, "max_bad_rows", None)
        return limit
