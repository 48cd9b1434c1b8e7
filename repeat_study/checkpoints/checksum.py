"""The checksum inside a checkpoint file, which tells whether any bit of the file has changed.

torch writes zip files and ignores their CRC-32 when it reads them, so it does not notice flipped bits. `seal` adds the SHA-256 of
the file as the zip's comment: checksum and weights are replaced together, and torch.load still reads the file.
"""

import hashlib
import struct
import zipfile
from pathlib import Path

LABEL = b"sha256:"
COMMENT_BYTES = len(LABEL) + 64  # with the hash as hex
EMPTY_COMMENT = b"\0\0"  # the comment's length, with which a zip file without one ends
BLOCK_BYTES = 1 << 20


class DamagedFile(ValueError):
    """The file does not match its checksum."""


def seal(path: Path) -> None:
    """Add its checksum to a file that torch.save wrote. Reading it again takes about a second per GB."""
    with path.open("r+b") as file:
        file.seek(-len(EMPTY_COMMENT), 2)
        assert file.read() == EMPTY_COMMENT, f"{path}: not a zip file without a comment"
        file.seek(-len(EMPTY_COMMENT), 2)
        file.write(struct.pack("<H", COMMENT_BYTES))
        file.flush()
        file.write(LABEL + _sha256(path, path.stat().st_size))


def check_checksum(path: Path) -> None:
    """Compare a file with the checksum inside it.

    A file that an earlier version wrote has none; its zip records are compared with their CRC-32 instead.
    Raises DamagedFile if they differ, and errors of zipfile if it is no zip file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(size - COMMENT_BYTES, 0))
        comment = file.read()
    if comment.startswith(LABEL):
        if comment.removeprefix(LABEL) != _sha256(path, size - COMMENT_BYTES):
            raise DamagedFile("it does not match its checksum")
    else:
        _check_records(path)


def _check_records(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if archive.comment:
            raise DamagedFile("its checksum is unreadable")
        if record := archive.testzip():
            raise DamagedFile(f"its record {record} does not match its checksum")


def _sha256(path: Path, size: int) -> bytes:
    """SHA-256 of the first `size` bytes of a file, as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while size > 0 and (block := file.read(min(size, BLOCK_BYTES))):
            digest.update(block)
            size -= len(block)
    return digest.hexdigest().encode()
