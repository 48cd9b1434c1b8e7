"""Open the token store for a spec, building it first if necessary."""

import shutil
import time
from collections.abc import Callable
from math import inf
from pathlib import Path

from data_prep.build import JOURNAL, StoreBuilder
from data_prep.chunks.ledger import Ledger, clear_errors
from data_prep.chunks.local_pool import encode_with_processes
from data_prep.chunks.plan import BYTES_PER_TOKEN, PLAN, Plan, existing_plan, make_plan
from data_prep.chunks.progress import EncodingProgress
from data_prep.chunks.reader import ChunkReader
from data_prep.chunks.settlement import settle
from data_prep.chunks.worker import encode_chunks
from data_prep.data_spec import DataSpec
from data_prep.document_batch import BatchReader, Progress
from data_prep.errors import CannotResume, InputError
from data_prep.files import exclusive_lock, is_locked, write_error
from data_prep.sources import Source, Tokens
from data_prep.token_batches import TokenReader
from data_prep.token_store import MANIFEST, TokenStore

# A process takes a second to start. With less text than this, one process is faster than several.
BYTES_FOR_PROCESSES = 8_000_000


def prepare(
    spec: DataSpec, data_dir: Path, progress: Progress = lambda stage, share: None, processes: int = 1
) -> TokenStore:
    """Open the store for `spec` in `data_dir`, building it first if it does not exist.

    processes: how many worker processes encode text, with one thread each. With 1, this process encodes with one thread per core. The
    store does not depend on it.
    If another process is building the same store, wait until it finishes. A store gets its final name only once it is
    complete, and an interrupted build resumes from its journal.
    Raises InputError if the corpus cannot be used, the disk is full, the store is damaged or its input has changed.
    """
    if spec.tokenizer_of is not None:
        prepare(spec.tokenizer_of, data_dir, progress, processes)
    store = _open_or_build(spec, data_dir, progress, processes)
    _check_bad_rows(store, spec)
    _check_inputs(store, spec.inputs(data_dir))
    return store


def _open_or_build(spec: DataSpec, data_dir: Path, progress: Progress, processes: int) -> TokenStore:
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
        progress("waiting for another process that is building this store", 0.0)
    with exclusive_lock(lock, wait=True):
        if not (folder / MANIFEST).is_file():
            _build(spec, folder, progress, processes)
    return TokenStore(folder)


def _build(spec: DataSpec, folder: Path, progress: Progress, processes: int) -> None:
    start = time.monotonic()
    scratch, chunks = folder.with_name(f".{folder.name}.building"), spec.chunks_folder(folder.parent)
    if folder.exists():
        raise InputError(f"{folder}: exists but is not a token store (no {MANIFEST}); move or delete it")
    try:
        plan = _encode(spec, folder.parent, progress, processes) if isinstance(spec.source, Source) else None
        scratch.mkdir(parents=True, exist_ok=True)

        def reader(fresh: bool) -> BatchReader:
            if plan is not None:
                return ChunkReader(spec, folder.parent, plan, scratch)
            assert isinstance(spec.source, Tokens)
            return TokenReader(spec, spec.source, scratch, fresh)

        StoreBuilder(spec, scratch, reader, progress).build()
        scratch.replace(folder)
        # The journal is deleted last, so a build that is killed earlier can resume from it.
        (folder / JOURNAL).unlink(missing_ok=True)
        shutil.rmtree(chunks, ignore_errors=True)
    except InputError as error:
        if not (scratch / JOURNAL).is_file():  # there is nothing to resume
            shutil.rmtree(scratch, ignore_errors=True)
        if isinstance(error, CannotResume) or not (chunks / PLAN).is_file():
            shutil.rmtree(chunks, ignore_errors=True)
        raise
    except OSError as error:
        raise write_error(scratch, error) from error
    progress(f"store ready in {time.monotonic() - start:.0f} s", 1.0)


def encode_text(spec: DataSpec, data_dir: Path, stop: Callable[[], bool], progress: Progress) -> bool:
    """Encode the text of a store with one thread, together with all other processes that call this function for the same store.

    The processes can run on several machines that share `data_dir`. `prepare` then writes the store. Returns whether enough text is
    encoded; if not, `stop` returned true. Raises InputError if the corpus cannot be used or the disk is full.
    """
    store = data_dir / spec.store_name
    if not isinstance(spec.source, Source) or (store / MANIFEST).is_file():
        return True
    if spec.tokenizer_of is not None and isinstance(spec.tokenizer_of.source, Tokens):
        prepare(spec.tokenizer_of, data_dir, progress)  # the tokenizer is written with that store
    try:
        plan = existing_plan(spec, data_dir, progress)
        return encode_chunks(spec, data_dir, plan, False, stop, EncodingProgress(spec, plan, progress))
    except (InputError, OSError) as error:
        if (store / MANIFEST).is_file():  # another process has written the store and deleted the encoded text
            return True
        if isinstance(error, InputError):
            raise
        raise write_error(spec.chunks_folder(data_dir), error) from error


def require_encoded(spec: DataSpec, data_dir: Path) -> None:
    """Raise InputError if the store is not built and its text is not encoded, because processes failed or were cancelled."""
    folder = spec.chunks_folder(data_dir)
    if not isinstance(spec.source, Source) or (data_dir / spec.store_name / MANIFEST).is_file():
        return
    if not (folder / PLAN).is_file():
        raise InputError(f"{folder}: no text was encoded: the encoding jobs failed or were cancelled; see their logs")
    ledger = Ledger(spec, data_dir, Plan.load(folder))
    ledger.advance()
    if not ledger.is_settled and ledger.is_finished:
        settle(ledger)  # raises the error that stopped the build, if there is one
    if not ledger.is_settled:
        raise InputError(
            f"{folder}: only {ledger.next} of {len(ledger.plan.chunks)} chunks are encoded, because jobs failed or were cancelled;"
            " call `repeat-study prepare` again to continue"
        )


def _encode(spec: DataSpec, data_dir: Path, progress: Progress, processes: int) -> Plan:
    """Encode the text of the source, with several processes if it can be divided and is large enough."""
    plan = make_plan(spec, data_dir, progress)
    show = EncodingProgress(spec, plan, progress)
    ledger = Ledger(spec, data_dir, plan)
    clear_errors(ledger.folder)
    if ledger.is_settled:
        return plan
    ledger.advance()
    show(ledger)
    processes = min(processes, len(plan.chunks) - ledger.next)
    to_encode = min(plan.text_bytes or inf, BYTES_PER_TOKEN * spec.max_tokens) - ledger.text_bytes
    if processes > 1 and to_encode >= BYTES_FOR_PROCESSES:
        encode_with_processes(spec, data_dir, plan, processes, show)
    else:
        encode_chunks(spec, data_dir, plan, all_cores=True, report=show)
    return plan


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
