"""What every source yields, and the account it keeps of what it met."""

import hashlib
from dataclasses import dataclass, field
from typing import Self

from data_prep.errors import InputError

NAMED = 20  # bad rows told one by one; beyond that the count says enough
LONGEST_REASON = 200  # characters: a reason stays one line


class BadRow(ValueError):
    """A row that gives no document; the message says why, and the source counts it and goes on."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text with a name to find it by; the name plays no part in any order, split or fingerprint."""

    name: str
    text: str
    digest: bytes  # SHA-256 of the UTF-8 text
    origin: bytes  # of what the text was taken from, which decides on its split; `digest` where it is the whole of it

    @classmethod
    def of(cls, name: str, text: object, origin: bytes | None = None) -> Self:
        """Name a text; raises BadRow when it is no string, or holds half a surrogate pair, which UTF-8 cannot."""
        if not isinstance(text, str):
            raise BadRow(f"{'null' if text is None else type(text).__name__} found, a string expected")
        try:
            digest = hashlib.sha256(text.encode()).digest()
        except UnicodeEncodeError as error:
            raise BadRow(f"half a surrogate pair at character {error.start}") from error
        return cls(name, text, digest, origin or digest)


def split_draw(origin: bytes) -> int:
    """A number below 2**64 by the digest of a text's origin: where it is below `test_fraction` of that, it is test text.

    From content alone: adding or renaming documents moves no other one, and what was taken from a text goes where it goes.
    """
    return int.from_bytes(hashlib.sha256(b"split" + origin).digest()[:8], "little")


@dataclass
class SourceReport:
    """What a source met on its way: `read` = documents kept + `duplicates` + `empty` + `bad`."""

    read: int = 0
    duplicates: int = 0
    empty: int = 0
    bad: int = 0
    bad_named: list[str] = field(default_factory=list)  # the first NAMED, each "file:row: reason"

    def add_bad(self, place: str, reason: str, limit: int | None = None) -> None:
        """Count a row that gave no document; raises InputError when that makes more than `limit` (None: no limit)."""
        self.read += 1
        self.bad += 1
        told = f"{place}: {one_line(reason)}"
        if self.bad <= NAMED:
            self.bad_named.append(told)
        if limit is not None and self.bad > limit:
            raise InputError(f"{told}; bad rows so far: {self.bad}, accepted by data.source.max_bad_rows: {limit}")


def decoded(content: bytes) -> str:
    """The text of UTF-8 bytes; raises BadRow when they are something else."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRow(f"not UTF-8 (byte 0x{content[error.start]:02x} at {error.start})") from error


def one_line(message: object) -> str:
    """A library's message as one short line."""
    text = " ".join(str(message).split())
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"
