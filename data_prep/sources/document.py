"""The output of a source: documents, bad rows and their counts."""

import hashlib
from dataclasses import dataclass, field
from typing import Self

from data_prep.errors import InputError

NAMED_ROWS = 20  # number of bad rows that are listed by name; the rest are only counted
LONGEST_REASON = 200  # characters; longer reasons are shortened to stay on one line


class BadText(ValueError):
    """Raised if a text cannot be used as a document. The message gives the reason."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text and its name. The name affects neither the document's split nor the store's fingerprint."""

    name: str
    text: str
    digest: bytes  # SHA-256 of the UTF-8 text
    origin: bytes  # determines the split: `digest`, or the SHA-256 of the file that the text was extracted from

    @classmethod
    def of(cls, name: str, text: object, origin: bytes | None = None, field: str = "") -> Self:
        """Make a document. `field` is the JSON key or column of the text, for messages.

        Raises BadText if `text` is not a string or contains a lone surrogate, which UTF-8 cannot encode."""
        if not isinstance(text, str):
            found = "null" if text is None else type(text).__name__
            raise BadText(f"field {field!r}: " * bool(field) + f"expected a string, found {found}")
        try:
            digest = hashlib.sha256(text.encode()).digest()
        except UnicodeEncodeError as error:
            raise BadText(f"lone surrogate at character {error.start}") from error
        return cls(name, text, digest, origin or digest)


@dataclass(frozen=True)
class BadRow:
    """A row or file that could not be read as a document."""

    place: str  # "file" or "file:row"
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {one_line(self.reason)}"


def split_hash(origin: bytes) -> int:
    """Hash of a text's origin, 0 <= hash < 2**64. The text is test text if hash / 2**64 < test_fraction.

    The hash depends only on content. Adding or renaming a document never moves another document to the other split, and
    all texts with the same origin are in the same split.
    """
    return int.from_bytes(hashlib.sha256(b"split" + origin).digest()[:8], "little")


@dataclass
class SourceReport:
    """Counts of the rows read from a source so far: `read` = documents kept + `duplicates` + `empty` + `bad`."""

    read: int = 0
    duplicates: int = 0
    empty: int = 0
    bad: int = 0
    bad_named: list[str] = field(default_factory=list)  # the first NAMED_ROWS bad rows, each "file:row: reason"

    @property
    def kept(self) -> int:
        """Number of documents kept."""
        return self.read - self.duplicates - self.empty - self.bad

    def add_bad(self, row: BadRow, limit: int | None) -> None:
        """Count a bad row. Raises InputError if the count now exceeds `limit` (None means no limit)."""
        self.read += 1
        self.bad += 1
        line = str(row)
        if self.bad <= NAMED_ROWS:
            self.bad_named.append(line)
        if limit is not None and self.bad > limit:
            raise too_many_bad_rows(row, self.bad, limit)


def too_many_bad_rows(row: BadRow, bad: int, limit: int) -> InputError:
    """The error for the row that exceeds the limit on bad rows."""
    return InputError(f"{row}; bad rows so far: {bad}, but data.source.max_bad_rows is {limit}")


def one_line(message: object) -> str:
    """Shorten a library's message to one line of at most LONGEST_REASON characters."""
    text = " ".join(str(message).split())
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"
