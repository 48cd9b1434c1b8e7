"""Read and verify a run directory's spec.json: its fields must hash to the identity in the directory name."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_prep.errors import InputError
from data_prep.files import read_record
from repeat_study.config.run import RESULT_FORMAT, Run, run_from_record
from repeat_study.records.run_directory import RunDirectory, Status
from repeat_study.records.spec_record import derived_fields, first_difference


def recorded_run(directory: RunDirectory) -> Run:
    """The run declared by a directory's spec.json.

    Raises InputError if the file is missing, has a different format, was edited, or belongs to another directory.
    """
    return run_and_record(directory)[0]


def run_and_record(directory: RunDirectory) -> tuple[Run, dict[str, Any]]:
    """The run, and the content of its spec.json with all fields derived from the run.

    Raises InputError for the same reasons as `recorded_run`.
    """
    path = directory.spec
    if not path.is_file():
        raise InputError(f"{directory.path}: not a run directory (no spec.json); expected a folder like runs/STUDY/RUN")
    record = read_record(path, "format", "identity", "vocabulary")
    if record["format"] != RESULT_FORMAT:
        raise InputError(f"{path}: format {record['format']} found; this version reads format {RESULT_FORMAT}")
    run = run_from_record(record, path)
    identity = str(record["identity"])[:8]
    if run.identity != record["identity"]:
        raise InputError(f"{path}: altered since it was written; its fields do not hash to {identity}")
    if not directory.path.resolve().name.endswith(f"-{identity}"):
        raise InputError(
            f"{path}: the spec of {run.name} is in a folder with another name; rename the folder to {run.name}"
        )
    if not isinstance(vocabulary := record["vocabulary"], int) or not 0 < vocabulary < 2**32:
        raise InputError(f"{path}: vocabulary: {vocabulary!r} found; expected a number of tokens")
    derived = derived_fields(run, vocabulary)
    recorded = {key: record[key] for key in derived.keys() & record.keys()}
    if recorded != (expected := {key: derived[key] for key in recorded}):
        raise InputError(f"{path}: altered since it was written; {first_difference(recorded, expected)}")
    check_names(run, path)
    return run, record | derived


def final_test_losses(study_dir: Path, runs: Iterable[Run]) -> dict[str, float]:
    """Final test losses of the finished runs in a study's folder, in nats per token, by run name.

    Raises InputError if the spec in a finished run's directory belongs to another run.
    """
    losses = {}
    for run in runs:
        directory = RunDirectory(study_dir / run.name)
        if directory.status() is Status.DONE:
            recorded_run(directory)
            losses[run.name] = float(read_record(directory.done, "test_loss")["test_loss"])
    return losses


def check_names(run: Run, path: Path) -> None:
    """Raise InputError if a name in the spec at `path` could be used to build a path outside the data and run folders.

    Store fingerprints and the parent's identity must be hexadecimal strings of the expected length.
    """
    fingerprints = {"corpus": run.corpus}
    fingerprints |= {f"further_tests.{test.name}": test.fingerprint for test in run.further_tests}
    fingerprints |= {f"mix.{mixed.name}": mixed.fingerprint for mixed in run.mix}
    if run.pool_corpus:
        fingerprints["pool_corpus"] = run.pool_corpus.fingerprint
    for key, fingerprint in fingerprints.items():
        if not re.fullmatch(r"[0-9a-f]{16}", fingerprint):
            raise InputError(f"{path}: {key}: {fingerprint!r} is not a fingerprint; expected 16 hexadecimal digits")
    if run.parent and not re.fullmatch(r"[0-9a-f]{64}", run.parent.identity):
        raise InputError(f"{path}: parent.identity: {run.parent.identity!r} found; expected 64 hexadecimal digits")
    names = [test.name for test in run.further_tests]
    if run.parent:
        names += [run.parent.study, run.parent.name]
    for name in names:
        if name in (".", "..") or any(character in name for character in "/\\\0\n"):
            raise InputError(f"{path}: {name!r} is not a valid name; expected a file name without / and \\")
