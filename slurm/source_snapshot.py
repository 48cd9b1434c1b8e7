"""Copy the source code for queued runs, so that later edits to the checkout do not affect them."""

import hashlib
import shutil
import subprocess
import uuid
from pathlib import Path

import data_prep
import repeat_study
import slurm
from data_prep.errors import InputError

PACKAGES = (data_prep, repeat_study, slurm)  # all packages of this project that a job imports
SUFFIXES = (".py", ".txt", ".sh")


def keep_source(folder: Path) -> Path:
    """Copy the packages to `folder`/source-<digest of the code>, unless that copy exists. Returns its path.

    Raises InputError if the copy cannot be written.
    """
    sources = {}
    for package in PACKAGES:
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.suffix in SUFFIXES:
                sources[str(path.relative_to(root.parent))] = path.read_bytes()
    digest = hashlib.sha256()
    for name, content in sources.items():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    copy = folder / f"source-{digest.hexdigest()[:12]}"
    if copy.is_dir():
        return copy
    scratch = folder / f".source.{uuid.uuid4().hex}.tmp"
    try:
        for name, content in sources.items():
            target = scratch / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        scratch.rename(copy)
    except OSError as error:
        raise InputError(f"{copy}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return copy


def commit() -> str | None:
    """The current commit, followed by "+" if tracked files were modified. None outside a git checkout."""
    root = Path(str(repeat_study.__file__)).parent
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        completed = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return completed.stdout.strip() or None
