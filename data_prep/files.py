"""Atomic writes, JSON records, checksums and file locks."""

import errno
import fcntl
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_prep.errors import InputError


def user_path(given: str, key: str) -> Path:
    """The path that a user gave for `key`, with `~` expanded.

    Raises InputError if it contains a NUL, or if the home folder of `~` is unknown.
    """
    if "\0" in given:
        raise InputError(f"{key}: {given!r} contains a NUL character, which no path can have")
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"{given}: the home folder of {Path(given).parts[0]} is unknown ({key}); give the full path or set HOME"
        ) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically: a crash leaves either the old file or the new one, never a partial one.

    Raises InputError if the disk is full or the folder is not writable.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        scratch.write_bytes(content)
        replace_durably(scratch, path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def write_output(path: Path, content: bytes) -> None:
    """Write `content` to a path that the user named: a regular file atomically, devices and pipes directly.

    A link stays, and its target is written. Raises InputError as `write_atomically`.
    """
    try:
        if descriptor := _OPEN_FILE.fullmatch(str(path)):
            sys.stdout.flush()
            number = int(descriptor[1] or {"out": 1, "err": 2}[descriptor[2]])
            with os.fdopen(os.dup(number), "wb") as file:
                file.write(content)
        elif path.exists() and not path.is_file():
            with path.open("wb") as file:
                file.write(content)
        elif (target := Path(os.path.realpath(path))).is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        else:
            write_atomically(target, content)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from error


# Opening one of these again would start at the beginning of a file that the shell redirected output to.
_OPEN_FILE = re.compile(r"/(?:dev|proc/self)/fd/(\d+)|/dev/std(out|err)")


def replace_durably(scratch: Path, path: Path) -> None:
    """Flush a finished scratch file to disk, then rename it to `path`."""
    with scratch.open("rb") as file:
        os.fsync(file.fileno())
    scratch.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, atomically, with keys in the given order. Raises InputError as `write_atomically`."""
    write_atomically(path, json_text(value))


def json_text(value: Any) -> bytes:
    """`value` as JSON to read, with keys in the given order."""
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def read_record(path: Path, *keys: str) -> dict[str, Any]:
    """Read a JSON object. Raises InputError if the file is missing or malformed, or lacks one of `keys`."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); restore the file or delete its folder") from error
    if not isinstance(record, dict):
        raise InputError(
            f"{path}: {type(record).__name__} found, a JSON object expected; restore the file or delete its folder"
        )
    for key in keys:
        if key not in record:
            raise InputError(f"{path}: the key {key!r} is missing; restore the file or delete its folder")
    return record


def read_text(path: Path, most_bytes: int = 100_000_000) -> str:
    """Read a UTF-8 text file; line breaks become "\\n".

    Raises InputError if it cannot be read, is not UTF-8 or has more than `most_bytes`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)  # /dev/zero never ends
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # a null character in the path
        raise InputError(f"{str(path)!r}: cannot be read: {error}") from error
    if len(content) > most_bytes:
        raise InputError(f"{path}: more than {most_bytes:,} bytes; expected up to that many")
    try:
        text = content.decode("utf-8-sig")  # drops the byte order mark that some editors write
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte 0x{error.object[error.start]:02x} at {error.start})") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def sha256_file(path: Path) -> str:
    """SHA-256 of a file as hex, read in blocks (constant memory)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> bytes:
    """Canonical JSON bytes of a value, for hashing: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


# `is_locked` itself holds the lock for a moment, so try for one second (20 x 0.05 s) before giving up.
LOCK_TRIES, LOCK_PAUSE = 20, 0.05


class AlreadyLocked(RuntimeError):
    """Another process holds the lock."""


@contextmanager
def exclusive_lock(path: Path, wait: bool = False) -> Iterator[None]:
    """Hold an advisory lock on `path`. The system releases it when the process ends, even if it is killed.

    Raises AlreadyLocked if another process holds it and `wait` is false, InputError if the file cannot be created.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise InputError(f"{path.parent}: cannot be written: {error.strerror}") from error
    with file:
        for tries_left in range(LOCK_TRIES, -1, -1):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                break
            except BlockingIOError as error:
                if not tries_left:
                    raise AlreadyLocked(f"{path.parent}: another process is working here") from error
                time.sleep(LOCK_PAUSE)
        yield


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock on `path`. Needs only read permission."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
