"""Run directories as data frames."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from data_prep.errors import InputError
from data_prep.files import read_json
from repeat_study.records import RunDirectory, Status


@dataclass(frozen=True)
class Runs:
    """The runs of a study.

    table: one row per run: the fields of spec.json, `status`, and for finished runs the last evaluation's numbers.
    evaluations: one row per evaluation of every run: `name` and the fields of metrics.jsonl.
    absent: runs that were asked for and have no directory; strangers: directories nobody asked for.
    """

    folder: Path
    table: pd.DataFrame
    evaluations: pd.DataFrame
    absent: list[str]
    strangers: list[str]

    @property
    def done(self) -> pd.DataFrame:
        """Finished runs, the only ones with final numbers."""
        return self.table[self.table.status == Status.DONE]

    def curve(self, name: str) -> pd.DataFrame:
        """Evaluations of one run, by step."""
        return self.evaluations[self.evaluations.name == name].sort_values("step")


def load_runs(folder: Path, names: list[str] | None = None) -> Runs:
    """Read the runs below `folder`: those of `names`, or all.

    Raises InputError when there is none, or a record is malformed or was altered after its run was done.
    """
    found = {path.parent.name for path in folder.glob("*/spec.json")}
    wanted = sorted(found) if names is None else [name for name in names if name in found]
    if not wanted:
        raise InputError(f"{folder}: no runs here; `repeat-study run` makes them")
    runs, evaluations = [], []
    for name in wanted:
        directory = RunDirectory(folder / name)
        status, rows = directory.status(), directory.checked_rows()
        record: dict[str, Any] = {**read_json(directory.spec), "name": name, "status": status}
        if status is Status.DONE:
            record |= {f"final_{key}": value for key, value in rows[-1].items() if not isinstance(value, list)}
        runs.append(record)
        evaluations += [{"name": name, **row} for row in rows]
    absent = [name for name in names or [] if name not in found]
    if not evaluations:
        raise InputError(f"{folder}: no run has been evaluated yet")
    return Runs(folder, pd.DataFrame(runs), pd.DataFrame(evaluations), absent, sorted(found - set(wanted)))
