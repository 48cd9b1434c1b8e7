"""The run that a directory's spec.json declares, whoever wrote it: its fields must hash to the name of the directory."""

from pathlib import Path
from typing import Any

from data_prep.errors import InputError
from data_prep.files import read_record
from repeat_study.config.run import RESULT_FORMAT, Run, run_from_record
from repeat_study.records.run_directory import RunDirectory
from repeat_study.records.spec_record import derived_fields, first_difference


def recorded_run(directory: RunDirectory) -> Run:
    """The run declared by a directory's spec.json.

    Raises InputError if there is none, if it has another format, if it was edited, or if it belongs to another directory.
    """
    return run_and_record(directory)[0]


def run_and_record(directory: RunDirectory) -> tuple[Run, dict[str, Any]]:
    """The run, and the content of spec.json with the numbers that follow from the run. Raises InputError as `recorded_run`."""
    path = directory.spec
    if not path.is_file():
        raise InputError(f"{directory.path}: no run here (no spec.json); expected the folder of a run, runs/STUDY/RUN")
    record = read_record(path, "format", "identity", "vocabulary")
    if record["format"] != RESULT_FORMAT:
        raise InputError(f"{path}: of format {record['format']}; this version reads {RESULT_FORMAT}")
    run = run_from_record(record, path)
    identity = str(record["identity"])[:8]
    if run.identity != record["identity"]:
        raise InputError(f"{path}: altered since it was written; its fields do not hash to {identity}")
    if not directory.path.resolve().name.endswith(f"-{identity}"):
        raise InputError(f"{path}: the spec of {run.name}, in a folder of another name; move it to {run.name}")
    if not isinstance(vocabulary := record["vocabulary"], int) or not 0 < vocabulary < 2**32:
        raise InputError(f"{path}: vocabulary: {vocabulary!r} found; expected a number of tokens")
    expected = derived_fields(run, vocabulary)
    found = {key: record[key] for key in expected.keys() & record.keys()}
    if found != (same := {key: expected[key] for key in found}):
        raise InputError(f"{path}: altered since it was written; {first_difference(found, same)}")
    check_names(run, path)
    return run, record | expected


def check_names(run: Run, path: Path) -> None:
    """Raises InputError if a name in the spec at `path` would lead out of the folder it names a part of."""
    names = [run.corpus, *(test.name for test in run.further_tests), *(test.fingerprint for test in run.further_tests)]
    if run.parent:
        names += [run.parent.study, run.parent.name]
    for name in names:
        if name in (".", "..") or any(character in name for character in "/\\\0\n"):
            raise InputError(f"{path}: {name!r} is not a name; expected one without / and \\")
