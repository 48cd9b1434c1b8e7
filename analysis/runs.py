"""Run directories as data frames."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import json

from data_prep.errors import InputError
from data_prep.files import read_record
from repeat_study.config.model_sizes import shape_of
from repeat_study.config.parents import Parents
from repeat_study.config.run import OMITTED_WHEN_EMPTY, FurtherTest, Parent, Run
from repeat_study.config.study import Study
from repeat_study.records.run_directory import RunDirectory, Status, final_test_losses
from repeat_study.records.tables import read_table

OF_THE_POOL = ("spacing", "burst_distance")  # a clean run has none of these
OF_LOOKING = ("evaluation", "further_tests")  # these change nothing of what is trained
# Every field of a run but those that all figures are drawn over, and those that only look.
DRAWN_OVER = ("model", "repeats", "repeated_fraction", "seed", "pool_seed")
FACTORS = sorted(Run.model_fields.keys() - {*DRAWN_OVER, *OF_LOOKING, "parent"})
# What tells the runs of a study apart, to set beside what they measured.
ARM = ["name", "model", "layers", "parameters_non_embedding", "repeated_fraction", "repeats", "seed", "pool_seed"]
# Two runs that agree in these differ in how they were looked at, not in what was trained: they are no two seeds.
SAME_TRAINING = [*FACTORS, *DRAWN_OVER, "parent"]
NEEDED = (
    *(name for name in Run.model_fields if name not in OMITTED_WHEN_EMPTY),
    "label",
    "parameters_non_embedding",
    "trained_tokens",
    "vocabulary",
)


@dataclass(frozen=True)
class Runs:
    """The runs of a study that start from weights drawn at random, and those that were fine-tuned beside them.

    table: one row per run: the fields of spec.json, `layers`, `status`, and for finished runs the last evaluation's
        numbers as `final_...`.
    evaluations: one row per evaluation of every run: `name` and the fields of metrics.jsonl, lists as arrays.
    absent: runs that were asked for and have no directory; strangers: directories nobody asked for.
    duplicates: runs left out of both tables, each with the run kept in its place that was trained the same way.
    fine_tuned: the runs that start from a finished one, in tables of the same form with `parent` (its name), `parent_label`,
        `parent_study`, `parent_seed`, `parent_repeats` and `parent_fraction`; None where the study has none. They are no arm of
        a grid of repetition, and nothing that is said of one knows them.
    """

    folder: Path
    table: pd.DataFrame
    evaluations: pd.DataFrame
    absent: list[str]
    strangers: list[str]
    duplicates: dict[str, str] = field(default_factory=dict)
    fine_tuned: "Runs | None" = None

    @cached_property
    def together(self) -> "Runs":
        """All of them in one table."""
        if not self.fine_tuned:
            return self
        table = pd.concat([self.table, self.fine_tuned.table], ignore_index=True)
        evaluations = pd.concat([self.evaluations, self.fine_tuned.evaluations], ignore_index=True)
        return replace(self, table=table, evaluations=evaluations, fine_tuned=None)

    @property
    def done(self) -> pd.DataFrame:
        """Finished runs, the only ones with final numbers."""
        return self.table[self.table.status == Status.DONE]

    def variants(self) -> list[tuple[str, "Runs"]]:
        """The runs apart by every factor that varies beside size, fraction, repeats and seeds, each with its name.

        Runs of different variants are different experiments: they share no law, no average and no figure. A clean run
        has no pool, so it is the control of every way to build and space one. What every size has its own value of, as of
        the learning rate or the tokens of compute-optimal runs, comes with the size and sets nothing apart.
        """
        factors = [key for key in FACTORS if self.table.groupby("model")[key].nunique().max() > 1]
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
        return self.evaluations.iloc[self._places.get(name, slice(0))]

    @cached_property
    def _places(self) -> dict[Any, slice]:
        """Where each run's evaluations lie, one after the other and by step; a search for every run takes minutes in a
        large study."""
        names = self.evaluations.name.to_numpy()
        begins = np.flatnonzero(np.append(True, names[1:] != names[:-1]))
        ends = np.append(begins[1:], len(names))
        return {names[begin]: slice(begin, end) for begin, end in zip(begins, ends, strict=True)}

    def heads(self, name: str) -> pd.DataFrame:
        """heads.parquet of one run, a row per evaluation and head; empty where its context is too short for the probe.

        Read when asked for. Raises InputError where the file is damaged.
        """
        return self._table(name, "heads")

    def paragraph(self, name: str) -> pd.DataFrame:
        """paragraph.parquet of one run, a row per evaluation and token of the copied paragraph, with its loss in nats;
        empty in runs that did not write it. Read when asked for; raises as `heads` does."""
        return self._table(name, "paragraph")

    def last(self, name: str, which: Literal["heads", "paragraph"]) -> pd.DataFrame:
        """The last evaluation of `heads` or `paragraph`; the others are never made into objects."""
        return self._table(name, which, last=True)

    def at_the_end(self, which: Literal["heads", "paragraph"]) -> pd.DataFrame:
        """Last evaluation of heads.parquet or paragraph.parquet of every finished run that has one, with the run's
        `name`; empty where none has."""
        tables = {name: self._columns(name, which, last=True) for name in self.done.name}
        found = [rows.append_column("name", pa.repeat(name, len(rows))) for name, rows in tables.items() if rows]
        # Made into objects all at once: in 500 runs a second less than each by itself.
        return pa.concat_tables(found, promote_options="permissive").to_pandas() if found else pd.DataFrame()

    def _table(self, name: str, which: Literal["heads", "paragraph"], last: bool = False) -> pd.DataFrame:
        table = self._columns(name, which, last)
        return pd.DataFrame() if table is None else table.to_pandas()

    def _columns(self, name: str, which: Literal["heads", "paragraph"], last: bool) -> pa.Table | None:
        directory = RunDirectory(self.folder / name)
        table = read_table(getattr(directory, which))
        return table.filter(pc.equal(table["step"], pc.max(table["step"]))) if last and table is not None else table


def load_runs(folder: Path, names: list[str] | None = None) -> Runs:
    """Read the runs below `folder`: those of `names`, or all.

    Raises InputError when there is none, or a record is malformed or was altered after its run was done.
    """
    found = {path.parent.name for path in folder.glob("*/spec.json")}
    wanted = sorted(found) if names is None else [name for name in names if name in found]
    if not wanted:
        raise InputError(f"{folder}: no runs here; `repeat-study run` makes them")
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashing and parsing let go of the interpreter
        read = list(pool.map(_read, (RunDirectory(folder / name) for name in wanted)))
    table = pd.DataFrame([record for record, _ in read])
    duplicates = _duplicates(table)
    table = table[~table.name.isin(duplicates)].reset_index(drop=True)
    rows = [rows for record, rows in read if rows and record["name"] not in duplicates]
    if not rows:
        raise InputError(f"{folder}: no run has been evaluated yet")
    evaluations = pa.concat_tables(rows, promote_options="permissive").to_pandas(split_blocks=True)
    del rows, read  # 50 MB in a large study, which every process that draws it would hold
    pa.default_memory_pool().release_unused()
    absent = [name for name in names or [] if name not in found]
    runs = Runs(folder, table, evaluations, absent, sorted(found - set(wanted)), duplicates)
    return _apart(runs) if (table.parent != "").any() else runs


def _apart(runs: Runs) -> Runs:
    """Runs from scratch, and those with parents beside them."""
    parts = []
    for chosen in (runs.table.parent != "", runs.table.parent == ""):
        table = runs.table[chosen].reset_index(drop=True)
        evaluations = runs.evaluations[runs.evaluations.name.isin(table.name)].reset_index(drop=True)
        parts.append(replace(runs, table=table, evaluations=evaluations))
    return replace(parts[1], fine_tuned=parts[0])


def _read(directory: RunDirectory) -> tuple[dict[str, Any], pa.Table | None]:
    """A run's row of the table, and its evaluations."""
    status, name = directory.status(), directory.path.name
    directory.check_unaltered()
    rows = _evaluations(directory)
    record: dict[str, Any] = {**read_record(directory.spec, *NEEDED), "name": name, "status": status}
    parent = record.pop("parent", None)
    record |= {"parent": "", "parent_study": "", "parent_repeats": 0, "parent_fraction": 0.0, "parent_label": ""}
    record["parent_seed"] = 0
    if parent:
        known = Parent.model_validate(parent)
        record |= {"parent": known.name, "parent_study": known.study, "parent_label": known.label}
        record |= {"parent_repeats": known.repeats, "parent_fraction": known.repeated_fraction}
        record["parent_seed"] = known.seed
    record["layers"] = shape_of(record["model"]).layers
    record["precision"] = directory.precision()
    if rows is None:
        return record, None
    last = rows.slice(len(rows) - 1).to_pylist()[0]
    record["reached_tokens"] = last["tokens"]
    if status is Status.DONE:
        record |= {f"final_{key}": value for key, value in last.items() if not isinstance(value, list)}
    return record, rows.add_column(0, "name", pa.repeat(name, len(rows)))


def _evaluations(directory: RunDirectory) -> pa.Table | None:
    """The whole lines of metrics.jsonl as columns, which takes a tenth of the time and memory of a dict per line."""
    content = directory.metrics.read_bytes() if directory.metrics.is_file() else b""
    whole = content[: content.rfind(b"\n") + 1]  # a last line may have been cut short by a crash
    if not whole:
        return None
    try:
        options = json.ReadOptions(use_threads=False, block_size=len(whole) + 1)
        table = json.read_json(pa.BufferReader(whole), read_options=options)
        if pa.types.is_integer(table.schema.field("step").type) and not table["step"].null_count:
            return table
    except (pa.ArrowException, KeyError):
        pass
    return pa.Table.from_pylist(directory.rows())  # which says what is wrong with it


def _duplicates(table: pd.DataFrame) -> dict[str, str]:
    """Runs that were trained as another one was, with that one: the finished one, of several the one that was tested on
    the most text."""
    tested = table.evaluation.map(lambda evaluation: evaluation["test_sequences"])
    order = table.assign(unfinished=table.status != Status.DONE, less=-tested)
    order = order.sort_values(["unfinished", "less", "name"])
    kept = order.groupby(SAME_TRAINING, dropna=False).name.transform("first")
    return {name: instead for name, instead in zip(order.name, kept, strict=True) if name != instead}


def in_law(runs: Runs) -> pd.DataFrame:
    """Finished runs whose sizes one law can hold. A model of one layer has no induction heads and lags in whatever they
    do: where there are deeper models it is their control and no point of their law."""
    done = runs.done
    deeper = done[done.layers > 1]
    return deeper if len(deeper) else done


def names_in(folder: Path, study: Study) -> list[str]:
    """Names of the study's runs, as `declared_in` has them."""
    return [run.name for run in declared_in(folder, study)]


def declared_in(folder: Path, study: Study) -> list[Run]:
    """The study's runs, by the corpus and the further test sets of the runs below `folder`; no store is needed. Those of a study
    whose runs have parents need the parents' folder beside it.

    Raises InputError when runs of the study as it is declared stand there for more than one corpus.
    """
    parents = None
    if study.parent_study:
        of_parents = folder.parent / study.parent_study.name
        if not (runs := declared_in(of_parents, study.parent_study)):
            raise InputError(
                f"{of_parents}: no runs of {study.parent_study.name} here, from which those of {study.name} start"
            )
        parents = Parents(study.parent_study.name, runs, final_test_losses(of_parents, runs))
    standing = {path.parent.name: _texts_of(path) for path in folder.glob("*/spec.json")}
    names = tuple(text.name for text in study.evaluate)
    alike = {texts for texts in standing.values() if tuple(text.name for text in texts[1]) == names}
    of_texts = {texts: study.known_runs(*texts, parents).runs for texts in alike}
    found = {
        texts for name, texts in standing.items() if texts in alike and name in {run.name for run in of_texts[texts]}
    }
    if len(found) > 1:
        corpora = sorted({corpus for corpus, _ in found})
        raise InputError(f"{folder}: runs on {len(found)} corpora ({', '.join(corpora)}); move those of one away")
    return of_texts[found.pop()] if found else []


def _texts_of(spec: Path) -> tuple[str, tuple[FurtherTest, ...]]:
    """Corpus and further test sets that a spec.json names."""
    record = read_record(spec, "corpus")
    return record["corpus"], tuple(FurtherTest.model_validate(text) for text in record.get("further_tests", []))
