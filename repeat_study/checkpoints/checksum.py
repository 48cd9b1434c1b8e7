"""Add a checksum to a checkpoint file, and verify it.

torch.save writes zip files, but torch.load does not verify their CRC-32, so it does not detect flipped bits. `seal` stores the
file's SHA-256 in the zip file's comment, which torch.load ignores. Replacing the file replaces the weights and the checksum
together.
"""

import hashlib
import struct
import zipfile
from pathlib import Path

LABEL = b"sha256:"
COMMENT_BYTES = len(LABEL) + 64  # including the hash in hex
EMPTY_COMMENT = b"\0\0"  # the comment length, which is the last field of a zip file without a comment
BLOCK_BYTES = 1 << 20


class DamagedFile(ValueError):
    """Raised if a file does not match its checksum."""


def seal(path: Path) -> None:
    """Add a checksum to a file written by torch.save. Computing it takes about a second per GB."""
    with path.open("r+b") as file:
        file.seek(-len(EMPTY_COMMENT), 2)
        assert file.read() == EMPTY_COMMENT, f"{path}: not a zip file without a comment"
        file.seek(-len(EMPTY_COMMENT), 2)
        file.write(struct.pack("<H", COMMENT_BYTES))
        file.flush()
        file.write(LABEL + _sha256(path, path.stat().st_size))


def check_checksum(path: Path) -> None:
    """Verify a file against the checksum inside it.

    Files written by earlier versions contain no checksum; for these, the CRC-32 of every zip record is verified instead.
    Raises DamagedFile if the verification fails, and an error from zipfile if the file is not a zip file.
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
