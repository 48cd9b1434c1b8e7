"""A document, how it is assigned to a split, and the counts of what a source yielded."""

import hashlib
from dataclasses import dataclass, field
from typing import Self

from data_prep.errors import InputError

NAMED_ROWS = 20  # bad rows listed by name; the rest are only counted
LONGEST_REASON = 200  # characters, so that a reason stays on one line


class BadText(ValueError):
    """A text that cannot become a document; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text and its name. The name affects no order, no split and no fingerprint."""

    name: str
    text: str
    digest: bytes  # SHA-256 of the UTF-8 text
    origin: bytes  # SHA-256 of the file the text was taken from; it decides the split. Equals `digest` for a whole file

    @classmethod
    def of(cls, name: str, text: object, origin: bytes | None = None) -> Self:
        """Make a document. Raises BadText if `text` is not a string or contains a lone surrogate (not valid UTF-8)."""
        if not isinstance(text, str):
            raise BadText(f"{'null' if text is None else type(text).__name__} found, a string expected")
        try:
            digest = hashlib.sha256(text.encode()).digest()
        except UnicodeEncodeError as error:
            raise BadText(f"lone surrogate at character {error.start}") from error
        return cls(name, text, digest, origin or digest)


@dataclass(frozen=True)
class BadRow:
    """A row or file that gave no document."""

    place: str  # "file" or "file:row"
    reason: str


def split_hash(origin: bytes) -> int:
    """Hash of a text's origin, 0 <= hash < 2**64. The text is test text if hash / 2**64 < test_fraction.

    It depends on content alone: adding or renaming a document never moves another one to the other split, and every
    text taken from one file is in the same split.
    """
    return int.from_bytes(hashlib.sha256(b"split" + origin).digest()[:8], "little")


@dataclass
class SourceReport:
    """Counts of what a source yielded so far: `read` = documents kept + `duplicates` + `empty` + `bad`."""

    read: int = 0
    duplicates: int = 0
    empty: int = 0
    bad: int = 0
    bad_named: list[str] = field(default_factory=list)  # the first NAMED_ROWS, each "file:row: reason"

    @property
    def kept(self) -> int:
        """Documents kept."""
        return self.read - self.duplicates - self.empty - self.bad

    def add_bad(self, row: BadRow, limit: int | None) -> None:
        """Count a bad row. Raises InputError if there are now more than `limit` (None: no limit)."""
        self.read += 1
        self.bad += 1
        line = f"{row.place}: {one_line(row.reason)}"
        if self.bad <= NAMED_ROWS:
            self.bad_named.append(line)
        if limit is not None and self.bad > limit:
            raise InputError(f"{line}; bad rows so far: {self.bad}, accepted by data.source.max_bad_rows: {limit}")


def one_line(message: object) -> str:
    """Shorten a library's message to one line of at most LONGEST_REASON characters."""
    text = " ".join(str(message).split())
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"
