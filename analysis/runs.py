"""Run directories as data frames."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from data_prep.errors import InputError
from data_prep.files import read_record
from repeat_study.ladder import shape_of
from repeat_study.records import RunDirectory, Status
from repeat_study.study import Run, Study

OF_THE_POOL = ("spacing", "burst_distance")  # a clean run has none of these
# Every field of a run but those that all figures are drawn over, and `evaluation`, which only looks.
FACTORS = sorted(Run.model_fields.keys() - {"model", "repeats", "repeated_fraction", "seed", "pool_seed", "evaluation"})
# What tells the runs of a study apart, to set beside what they measured.
ARM = ["name", "model", "layers", "parameters_non_embedding", "repeated_fraction", "repeats", "seed", "pool_seed"]
NEEDED = (*Run.model_fields, "label", "parameters_non_embedding", "trained_tokens", "vocabulary")


@dataclass(frozen=True)
class Runs:
    """The runs of a study.

    table: one row per run: the fields of spec.json, `layers`, `status`, and for finished runs the last evaluation's
        numbers as `final_...`.
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

    def variants(self) -> list[tuple[str, "Runs"]]:
        """The runs apart by every factor that varies beside size, fraction, repeats and seeds, each with its name.

        Runs of different variants are different experiments: they share no law, no average and no figure. A clean run
        has no pool, so it is the control of every way to build and space one.
        """
        factors = [key for key in FACTORS if self.table[key].nunique() > 1]
        if not factors:
            return [("", self)]
        found = []
        repeated = self.table[self.table.repeats > 1]
        for values, _ in (repeated if len(repeated) else self.table).groupby(factors, sort=True):
            chosen = dict(zip(factors, values, strict=True))
            same = pd.Series(True, self.table.index)
            for key, value in chosen.items():
                matches = self.table[key] == value
                same &= matches | (self.table.repeats == 1) if key in OF_THE_POOL else matches
            table = self.table[same]
            label = ", ".join(f"{key} = {value}" for key, value in chosen.items())
            found.append(
                (
                    label,
                    replace(self, table=table, evaluations=self.evaluations[self.evaluations.name.isin(table.name)]),
                )
            )
        return found

    def curve(self, name: str) -> pd.DataFrame:
        """Evaluations of one run, by step."""
        return self.evaluations[self.evaluations.name == name].sort_values("step")

    def heads(self, name: str) -> pd.DataFrame:
        """heads.parquet of one run, a row per evaluation and head; empty where its context is too short for the probe.

        Read when asked for. Raises InputError where the file is damaged.
        """
        return self._table(RunDirectory(self.folder / name), "heads")

    def paragraph(self, name: str) -> pd.DataFrame:
        """paragraph.parquet of one run, a row per evaluation and token of the copied paragraph, with its loss in nats;
        empty in runs that did not write it. Read when asked for; raises as `heads` does."""
        return self._table(RunDirectory(self.folder / name), "paragraph")

    def at_the_end(self, table: Literal["heads", "paragraph"]) -> pd.DataFrame:
        """Last evaluation of heads.parquet or paragraph.parquet of every finished run that has one, with the run's
        `name`; empty where none has."""
        read = self.heads if table == "heads" else self.paragraph
        found = [(name, read(name)) for name in self.done.name]
        last = [rows[rows.step == rows.step.max()].assign(name=name) for name, rows in found if len(rows)]
        return pd.concat(last, ignore_index=True) if last else pd.DataFrame()

    def _table(self, directory: RunDirectory, which: Literal["heads", "paragraph"]) -> pd.DataFrame:
        table = directory.table(getattr(directory, which))
        return pd.DataFrame() if table is None else table.to_pandas()


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
        record: dict[str, Any] = {**read_record(directory.spec, *NEEDED), "name": name, "status": status}
        record["layers"] = shape_of(record["model"]).layers
        record["precision"] = directory.precision()
        if status is Status.DONE:
            record |= {f"final_{key}": value for key, value in rows[-1].items() if not isinstance(value, list)}
        runs.append(record)
        evaluations += [{"name": name, **row} for row in rows]
    absent = [name for name in names or [] if name not in found]
    if not evaluations:
        raise InputError(f"{folder}: no run has been evaluated yet")
    return Runs(folder, pd.DataFrame(runs), pd.DataFrame(evaluations), absent, sorted(found - set(wanted)))


def names_in(folder: Path, study: Study) -> list[str]:
    """Names of the study's runs, by the corpus that the runs below `folder` were trained on; no store is needed.

    Raises InputError when runs of the study as it is declared stand there for more than one corpus.
    """
    standing = {path.parent.name: read_record(path, "corpus")["corpus"] for path in folder.glob("*/spec.json")}
    of_corpus = {corpus: [run.name for run in study.runs(corpus)] for corpus in set(standing.values())}
    found = {corpus for name, corpus in standing.items() if name in of_corpus[corpus]}
    if len(found) > 1:
        raise InputError(f"{folder}: runs on {len(found)} corpora ({', '.join(sorted(found))}); move those of one away")
    return of_corpus[found.pop()] if found else []
