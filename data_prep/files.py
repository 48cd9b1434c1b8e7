"""File utilities: atomic writes, JSON records, checksums and locks."""

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
    """Expand `~` in the path that the user gave for `key`.

    Raises InputError if the path contains a NUL character, or begins with a `~` that cannot be expanded.
    """
    if "\0" in given:
        raise InputError(f"{key}: {given!r} contains a NUL character, which a path cannot contain")
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"{given}: the home folder of {Path(given).parts[0]} is unknown ({key}); use an absolute path or set HOME"
        ) from error


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a full disk, a full quota, and a file above the size limit


def write_error(path: Path, error: OSError) -> InputError:
    """The error for a file or folder that cannot be written."""
    advice = "; free some space and run again" if error.errno in _NO_SPACE else ""
    return InputError(f"{path}: cannot be written: {error.strerror}{advice}")


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
        raise write_error(path, error) from error


def write_output(path: Path, content: bytes) -> None:
    """Write `content` to a path chosen by the user: atomically if it is a regular file, directly if it is a device or pipe.

    If the path is a symbolic link, its target is overwritten and the link is kept. Raises InputError if writing fails.
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


# If the shell redirected output to a file, reopening one of these paths would overwrite the start of that file.
_OPEN_FILE = re.compile(r"/(?:dev|proc/self)/fd/(\d+)|/dev/std(out|err)")


def replace_durably(scratch: Path, path: Path) -> None:
    """Flush a finished scratch file to disk, then rename it to `path`."""
    with scratch.open("rb") as file:
        os.fsync(file.fileno())
    scratch.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Atomically write `value` as JSON, keeping the order of its keys. Raises the same errors as `write_atomically`."""
    write_atomically(path, json_text(value))


def json_text(value: Any) -> bytes:
    """Format `value` as indented JSON, keeping the order of its keys."""
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def read_regular(path: Path) -> bytes:
    """Read a file that this software wrote.

    Raises OSError if the file cannot be read or is not a regular file. (Opening a pipe would block.)
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.read_bytes()


def read_record(path: Path, *keys: str) -> dict[str, Any]:
    """Read a JSON object. Raises InputError if the file is missing or malformed, or lacks one of `keys`."""
    try:
        record = json.loads(read_regular(path).decode())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); restore the file or delete its folder") from error
    if not isinstance(record, dict):
        raise InputError(
            f"{path}: expected a JSON object, found {type(record).__name__}; restore the file or delete its folder"
        )
    for key in keys:
        if key not in record:
            raise InputError(f"{path}: the key {key!r} is missing; restore the file or delete its folder")
    return record


def read_text(path: Path, most_bytes: int = 100_000_000, accept_pipes: bool = False) -> str:
    """Read a UTF-8 text file and convert its line breaks to "\\n".

    accept_pipes: also read pipes and devices. A command that reads the file once can accept them. They are refused by default,
    because their content cannot be read again, and opening a pipe waits for a writer.
    Raises InputError if the file cannot be read, is not UTF-8 or is larger than `most_bytes`.
    """
    try:
        special = path.exists() and not path.is_file() and not path.is_dir()
    except OSError:  # reported below
        special = False
    if special and not accept_pipes:
        raise InputError(f"{path}: a pipe, socket or device; expected a regular file")
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)  # limit the size, because devices such as /dev/zero never end
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # a NUL character in the path
        raise InputError(f"{str(path)!r}: cannot be read: {error}") from error
    if len(content) > most_bytes:
        raise InputError(f"{path}: larger than the limit of {most_bytes:,} bytes")
    try:
        text = content.decode("utf-8-sig")  # drops the byte-order mark that some editors write
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte 0x{error.object[error.start]:02x} at {error.start})") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def sha256_file(path: Path) -> str:
    """SHA-256 of a file in hexadecimal. The file is read in blocks, so memory use is constant."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(value: Any) -> bytes:
    """Encode a value as canonical JSON for hashing: sorted keys and no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


# `is_locked` itself briefly holds the lock, so retry for one second (20 x 0.05 s) before giving up.
LOCK_TRIES, LOCK_PAUSE = 20, 0.05


class AlreadyLocked(RuntimeError):
    """Raised if another process holds the lock."""


@contextmanager
def exclusive_lock(path: Path, wait: bool = False) -> Iterator[None]:
    """Hold an exclusive advisory lock on `path`. The operating system releases it when the process ends, even if it is killed.

    Raises AlreadyLocked if another process holds the lock and `wait` is false, and InputError if the lock file cannot be
    created.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: not a regular file; move or delete it")
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
                    raise AlreadyLocked(f"{path.parent}: another process is using this folder") from error
                time.sleep(LOCK_PAUSE)
        yield


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock on `path`. Checking needs only read permission."""
    if not path.is_file():
        return False
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
