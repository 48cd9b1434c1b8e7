"""Writing files so that a reader sees a whole file or none, and keeping two writers apart."""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_prep.errors import InputError


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step; a crash leaves the old file or the new one, never a part.

    Raises InputError when the disk is full or the folder cannot be written.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        scratch.write_bytes(content)
        settle(scratch, path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def settle(scratch: Path, path: Path) -> None:
    """Put a finished scratch file in the place of `path`, once its content is on the disk."""
    with scratch.open("rb") as file:
        os.fsync(file.fileno())
    scratch.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, atomically, keys in the given order."""
    write_atomically(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_record(path: Path, *keys: str) -> dict[str, Any]:
    """Read a JSON object that has these keys; raises InputError when it is missing, malformed or lacks one."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); restore it or delete its folder") from error
    if not isinstance(record, dict):
        raise InputError(
            f"{path}: {type(record).__name__} found, a JSON object expected; restore it or delete its folder"
        )
    for key in keys:
        if key not in record:
            raise InputError(f"{path}: no {key!r} in it; restore it or delete its folder")
    return record


def read_text(path: Path) -> str:
    """A text file's content; InputError where it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")  # without the mark that some editors put first
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte 0x{error.object[error.start]:02x} at {error.start})") from error


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes as hex; reads in blocks, so memory stays flat."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> bytes:
    """The one byte string of a JSON value: sorted keys, no spaces. Hashes are taken over it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


# Somebody who only asks whether a lock is held holds it for a moment: try for a second before believing it.
LOCK_TRIES, LOCK_PAUSE = 20, 0.05


class AlreadyLocked(RuntimeError):
    """Another process holds the lock."""


@contextmanager
def exclusive_lock(path: Path, wait: bool = False) -> Iterator[None]:
    """Hold an advisory lock on `path`; it falls with the process, so a kill never leaves it behind.

    Raises AlreadyLocked when another process holds it and `wait` is false, and InputError when there can be no lock.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise InputError(f"{path.parent}: cannot be written: {error.strerror}") from error
    with file:
        for patience in range(LOCK_TRIES, -1, -1):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                break
            except BlockingIOError as error:
                if not patience:
                    raise AlreadyLocked(f"{path.parent}: another process is at work here") from error
                time.sleep(LOCK_PAUSE)
        yield


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock on `path`; needs only the right to read it."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
