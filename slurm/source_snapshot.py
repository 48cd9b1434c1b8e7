"""The source that queued runs are trained with: a copy beside the sweep, so that editing the checkout changes none of them."""

import hashlib
import shutil
import subprocess
import uuid
from pathlib import Path

import data_prep
import repeat_study
import slurm
from data_prep.errors import InputError

PACKAGES = (data_prep, repeat_study, slurm)  # what a job imports of this project


def keep_source(folder: Path) -> Path:
    """Copy the packages as they are now into a folder below `folder` that is named after their content; returns it.

    Raises InputError when it cannot be written.
    """
    sources = {}
    for package in PACKAGES:
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.suffix in (".py", ".txt"):
                sources[str(path.relative_to(root.parent))] = path.read_bytes()
    digest = hashlib.sha256()
    for name, content in sources.items():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    kept = folder / f"source-{digest.hexdigest()[:12]}"
    if kept.is_dir():
        return kept
    scratch = folder / f".source.{uuid.uuid4().hex}.tmp"
    try:
        for name, content in sources.items():
            place = scratch / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        scratch.rename(kept)
    except OSError as error:
        raise InputError(f"{kept}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return kept


def commit() -> str | None:
    """The commit that the source is of, with "+" where files differ from it; None outside a checkout."""
    root = Path(str(repeat_study.__file__)).parent
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
