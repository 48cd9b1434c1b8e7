"""Open the token store for a spec, building it first if necessary."""

import errno
import shutil
import time
from pathlib import Path

from data_prep.build import JOURNAL, Progress, StoreBuilder
from data_prep.data_spec import DataSpec
from data_prep.errors import InputError
from data_prep.files import exclusive_lock, is_locked
from data_prep.token_store import MANIFEST, TokenStore

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a full disk, a full quota, and a file above the size limit


def prepare(spec: DataSpec, data_dir: Path, progress: Progress = lambda stage, share: None) -> TokenStore:
    """Open the store for `spec` in `data_dir`, building it first if it does not exist.

    If another process is building the same store, wait until it finishes. A store gets its final name only once it is
    complete, and an interrupted build resumes from its journal.
    Raises InputError if the corpus cannot be used, the disk is full, the store is damaged or its input has changed.
    """
    if spec.tokenizer_of is not None:
        prepare(spec.tokenizer_of, data_dir, progress)
    store = _open_or_build(spec, data_dir, progress)
    _check_bad_rows(store, spec)
    _check_inputs(store, spec.inputs(data_dir))
    return store


def _open_or_build(spec: DataSpec, data_dir: Path, progress: Progress) -> TokenStore:
    folder = data_dir / spec.store_name
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: the name contains a NUL
        reason = getattr(error, "strerror", error)
        raise InputError(f"{str(data_dir)!r}: cannot be used as the data folder: {reason}") from error
    if (folder / MANIFEST).is_file():
        return TokenStore(folder, verify=True)
    lock = data_dir / f".{spec.store_name}.lock"
    if is_locked(lock):
        progress("another process is building this store; waiting for it", 0.0)
    with exclusive_lock(lock, wait=True):
        if not (folder / MANIFEST).is_file():
            _build(spec, folder, progress)
    return TokenStore(folder)


def _build(spec: DataSpec, folder: Path, progress: Progress) -> None:
    start = time.monotonic()
    scratch = folder.with_name(f".{folder.name}.building")
    if folder.exists():
        raise InputError(f"{folder}: exists but is not a token store (no {MANIFEST}); move or delete it")
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        StoreBuilder(spec, scratch, progress).build()
        scratch.replace(folder)
        # The journal is deleted last, so a build that is killed earlier can resume from it.
        (folder / JOURNAL).unlink(missing_ok=True)
    except InputError:
        if not (scratch / JOURNAL).is_file():  # there is nothing to resume
            shutil.rmtree(scratch, ignore_errors=True)
        raise
    except OSError as error:
        advice = "; free some space and run again" if error.errno in NO_SPACE else ""
        raise InputError(f"{scratch}: the store cannot be written: {error.strerror}{advice}") from error
    progress(f"store ready in {time.monotonic() - start:.0f} s", 1.0)


def _check_bad_rows(store: TokenStore, spec: DataSpec) -> None:
    """Raise InputError if building the store skipped more malformed rows than `spec` allows."""
    corpus, limit = store.manifest["corpus"], spec.source.bad_row_limit
    if limit is not None and corpus["bad"] > limit:
        raise InputError(
            f"{store.folder}: malformed rows skipped during its build: {corpus['bad']} (first: {corpus['bad_named'][0]}),"
            f" but data.source.max_bad_rows is {limit}"
        )


def _check_inputs(store: TokenStore, now: dict[str, str]) -> None:
    before: dict[str, str] = store.manifest["inputs"]
    # The input may be missing on this machine if the store was copied from another one.
    if now and (changed := [name for name in sorted(before.keys() | now) if before.get(name) != now.get(name)]):
        name = changed[0]
        raise InputError(
            f"{store.folder}: its input has changed: {name} was {before.get(name, 'absent')} and is"
            f" now {now.get(name, 'absent')}; delete the folder and run prepare again"
        )
