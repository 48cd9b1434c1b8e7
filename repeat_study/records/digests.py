"""Checksums of a run's records up to its checkpoint.

The checkpoint contains these checksums, so that altered records are detected when the run resumes. They are computed from the
recorded numbers, not from the bytes of the files. A session that was killed may have written one more evaluation, and another
version of pyarrow may write different bytes.
"""

import hashlib
import json
from typing import Any

import pyarrow as pa

from data_prep.errors import InputError
from data_prep.files import canonical_json
from repeat_study.records.json_lines import read_rows
from repeat_study.records.run_directory import RunDirectory
from repeat_study.records.tables import read_table, up_to


def record_digests(directory: RunDirectory, step: int) -> dict[str, str]:
    """SHA-256 of each existing record's evaluations up to `step`, by file name. Raises InputError if a record is damaged."""
    digests = {}
    for path in (directory.metrics, directory.timing):
        if path.is_file():
            rows = [row for row in read_rows(path) if row["step"] <= step]
            digests[path.name] = hashlib.sha256(canonical_json(rows)).hexdigest()
    for path in directory.tables:
        if (table := read_table(path)) is not None:
            digests[path.name] = _table_digest(up_to(table, step))
    return digests


def _table_digest(table: pa.Table) -> str:
    digest = hashlib.sha256()
    for name, column in zip(table.column_names, table.columns, strict=True):
        digest.update(name.encode() + b"\0")
        if pa.types.is_string(column.type):
            digest.update(json.dumps(column.to_pylist()).encode())
        else:
            digest.update(column.cast(pa.float64()).to_numpy().tobytes())  # null becomes NaN
    return digest.hexdigest()


def check_records(directory: RunDirectory, step: int, expected: Any) -> None:
    """Raise InputError if a record's checksum differs from the one that was saved in a checkpoint at `step`.

    expected: the saved checksums, as returned by `record_digests`. Checkpoints written by earlier versions contain no checksums.
    """
    expected = expected if isinstance(expected, dict) else {}
    found = record_digests(directory, step) if expected else {}
    for path in directory.records:
        if path.name in expected and found.get(path.name) != expected[path.name]:
            problem = "altered" if path.name in found else "removed"
            raise InputError(
                f"{path}: {problem} after the run wrote it; restore the file, or delete {directory.checkpoint} to train the"
                " run from the beginning"
            )
