"""Load run directories into data frames."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import json

from analysis.formatting import order_name, plural, size_names
from data_prep.errors import InputError
from data_prep.mixture import Spacing
from repeat_study.config.model_sizes import shape_of
from repeat_study.config.run import Run
from repeat_study.probes.positions import position_bands
from repeat_study.records.ranges import check_evaluations
from repeat_study.records.recorded_run import recorded_run, run_and_record
from repeat_study.records.run_directory import RunDirectory, Status
from repeat_study.records.tables import check_columns, read_table, steps_in

# The run fields that span the repetition grid. Figures map them to axes, colors and panels.
GRID = ("model", "repeats", "repeated_fraction", "seed", "pool_seed")
OF_EVALUATION = ("evaluation", "further_tests")  # fields that do not affect training
ORDER = ("spacing", "burst_distance")  # the order of the copies
# Pool fields that do not apply to a clean run
POOL_FIELDS = (*ORDER, "fixed_pool", "hold_fixed")
CORPORA = ("corpus", "pool_corpus", "mix")  # the token stores that a run trains on
FACTORS = sorted(Run.model_fields.keys() - {*GRID, *OF_EVALUATION, "parent"})
# Runs that agree in all of these fields are the same training run with different evaluation settings, not two seeds.
SAME_TRAINING = [*FACTORS, *GRID, "parent"]
# The columns that identify a run in the tables behind figures.
ARM = ["name", "model", "layers", "parameters_non_embedding", "repeated_fraction", "repeats", "seed", "pool_seed"]


@dataclass(frozen=True)
class Runs:
    """The runs in a study as data frames; `load_runs` describes their columns.

    table: one row per run.
    evaluations: one row for every evaluation of every run.
    not_started: names of declared runs without a directory.
    undeclared: names of run directories that the study does not declare.
    duplicates: for the name of each run that repeats another run's training, the name of the run that is kept.
    fine_tuned: the runs that start from a finished run's weights, or None. They are kept separate because they are not part of the
        repetition grid.
    domain_controls: the runs that train once on a named pool (R = 1), or None. They are kept separate because they are neither clean
        nor repeated.
    """

    folder: Path
    table: pd.DataFrame
    evaluations: pd.DataFrame
    not_started: list[str]
    undeclared: list[str]
    duplicates: dict[str, str] = field(default_factory=dict)
    fine_tuned: "Runs | None" = None
    domain_controls: "Runs | None" = None

    @cached_property
    def combined(self) -> "Runs":
        """All runs in the same tables: from scratch, fine-tuned, and the clean controls of a named pool's domain."""
        return _joined(self, [self.fine_tuned, self.domain_controls])

    @cached_property
    def with_domain_controls(self) -> "Runs":
        """The runs from scratch and the clean controls of a named pool's domain, in the same tables."""
        return _joined(self, [self.domain_controls])

    @property
    def has_named_pool(self) -> bool:
        """Whether the pool has a store of its own, so that the clean control is R = 0."""
        return bool((self.table.pool_corpus != "").any())

    @property
    def has_fixed_pool(self) -> bool:
        """Whether the repeated runs have pools of a fixed size. Every R then has its own f."""
        return bool((self.table.fixed_pool > 0).any())

    @property
    def done(self) -> pd.DataFrame:
        """The rows of finished runs. Only these have final metrics."""
        return self.table[self.table.status == Status.DONE]

    def varied_factors(self) -> list[str]:
        """The fields outside the repetition grid that differ between runs of the same size."""
        return [key for key in FACTORS if self.table.groupby("model")[key].nunique().max() > 1]

    def variants(self) -> list[tuple[str, "Runs"]]:
        """Split the study into experiments, each with a label. A single experiment has an empty label.

        Runs that differ in anything other than size, fraction, repeats and seeds belong to different experiments. Each experiment has
        its own laws, averages and figures. A setting that depends only on the size, such as the learning rate of compute-optimal
        runs, does not split a study. Clean runs have no pool, so they serve as controls for every pool spacing and, if the pool has
        a store of its own, for every unit.
        """
        factors = self.varied_factors()
        if not factors:
            return [("", self)]
        variants = []
        repeated = self.table[~self.table.is_clean_control]
        for values, _ in (repeated if len(repeated) else self.table).groupby(factors, sort=True):
            chosen = dict(zip(factors, values, strict=True))
            same = pd.Series(True, self.table.index)
            for key, value in chosen.items():
                matches = self.table[key] == value
                if key in POOL_FIELDS:
                    matches |= self.table.is_clean_control
                elif key == "unit":
                    matches |= self.table.is_clean_control & self.table.has_separate_pool
                same &= matches
            table = self.table[same]
            evaluations = self.evaluations[self.evaluations.name.isin(table.name)]
            pool_tokens = int(table.pool_tokens.max())
            variants.append((_variant_name(chosen, pool_tokens), replace(self, table=table, evaluations=evaluations)))
        if len(variants) == 1 and set(factors) <= {"fixed_pool", "hold_fixed"}:
            return [("", variants[0][1])]  # the clean control differs in these fields only because it has no pool
        return variants

    def curve(self, name: str) -> pd.DataFrame:
        """The evaluations of one run, in time order."""
        return self.evaluations.iloc[self._slices.get(name, slice(0))]

    @cached_property
    def _done_names(self) -> frozenset[str]:
        return frozenset(self.done.name)

    @cached_property
    def _slices(self) -> dict[Any, slice]:
        """Each run's slice of `evaluations`. Slicing is fast, whereas filtering by name takes minutes in a large study."""
        names = self.evaluations.name.to_numpy()
        begins = np.flatnonzero(np.append(True, names[1:] != names[:-1]))
        ends = np.append(begins[1:], len(names))
        return {names[begin]: slice(begin, end) for begin, end in zip(begins, ends, strict=True)}

    def heads(self, name: str) -> pd.DataFrame:
        """Read a run's heads.parquet, which has one row per evaluation and head.

        Empty if the model's context is too short to measure its heads. The file is read on every call. Raises InputError if the file is
        damaged.
        """
        return self._table(name, "heads")

    def paragraph(self, name: str) -> pd.DataFrame:
        """Read a run's paragraph.parquet: the loss in nats of every token of the copied paragraph at every evaluation.

        Returns one row per evaluation and token; empty if the run has no such file. The file is read on every call. Raises InputError if
        the file is damaged.
        """
        return self._table(name, "paragraph")

    def test_sequences(self, name: str) -> npt.NDArray[np.float64] | None:
        """Read a run's loss on every test sequence at every evaluation, in nats per token. Shape [evaluations, sequences].

        None unless the run recorded these losses at every evaluation; older versions did not. The file is read on every call. Raises
        InputError if the file is damaged.
        """
        return self._losses_of_sequences(name, "test_sequences")

    def final_test_sequences(self, name: str) -> npt.NDArray[np.float64] | None:
        """A run's loss on every test sequence at the last evaluation, in nats per token. None if it was not recorded.

        Faster than `test_sequences`. Raises InputError if the file is damaged.
        """
        table = self._columns(name, "test_sequences", last=True)
        return None if table is None else table.sort_by("sequence")["loss"].to_numpy()

    def pool_sequences(self, name: str) -> npt.NDArray[np.float64] | None:
        """Like `test_sequences`, but for the pool sequences that the run is evaluated on, ordered by their slots in the pool."""
        return self._losses_of_sequences(name, "pool_sequences")

    def _losses_of_sequences(
        self, name: str, which: Literal["test_sequences", "pool_sequences"]
    ) -> npt.NDArray[np.float64] | None:
        table = self._columns(name, which, last=False)
        if table is None:
            return None
        losses = table.to_pandas().pivot_table(index="step", columns="sequence", values="loss", aggfunc="first")
        complete = losses.index.tolist() == self.curve(name).step.tolist() and not losses.isna().any(axis=None)
        return losses.to_numpy(float) if complete else None

    def head_scores(self, name: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
        """A run's prefix matching, and half the widths of its intervals, both with shape [evaluations, layers, heads].

        None if it was not measured. The file is read on every call.
        """
        table = self._columns(name, "heads", last=False)
        if table is None:
            return None
        layers, heads = (int(pc.max(table[column]).as_py()) + 1 for column in ("layer", "head"))
        if len(table) % (layers * heads):
            return None
        scores, halves = (table[column].to_numpy() for column in ("prefix_matching", "prefix_matching_ci"))
        return scores.reshape(-1, layers, heads), np.nan_to_num(halves).reshape(-1, layers, heads)

    def paragraph_losses(self, name: str) -> tuple[list[str], list[int], npt.NDArray[np.float64]]:
        """The tokens of the copied paragraph, the copy that each belongs to, and their losses in nats, shape [evaluations, tokens].

        Empty if the run has no such file. The file is read on every call.
        """
        table = self._columns(name, "paragraph", last=False)
        if table is None:
            return [], [], np.empty((0, 0))
        count = len(table) // max(len(steps_in(table)), 1)
        first = table.slice(0, count)
        return first["token"].to_pylist(), first["copy"].to_pylist(), table["loss"].to_numpy().reshape(-1, count)

    def last_table(self, name: str, which: Literal["heads", "paragraph"]) -> pd.DataFrame:
        """The rows of `heads` or `paragraph` from a run's last evaluation. Faster than converting all rows to pandas."""
        return self._table(name, which, last=True)

    def last_tables(self, which: Literal["heads", "paragraph"]) -> pd.DataFrame:
        """The rows of `heads` or `paragraph` from the last evaluation of every finished run, with the run's `name`."""
        tables = {name: self._columns(name, which, last=True) for name in self.done.name}
        named = [rows.append_column("name", pa.repeat(name, len(rows))) for name, rows in tables.items() if rows]
        # For 500 runs, a single conversion to pandas is a second faster than 500 conversions.
        return pa.concat_tables(named, promote_options="permissive").to_pandas() if named else pd.DataFrame()

    def _table(self, name: str, which: Literal["heads", "paragraph"], last: bool = False) -> pd.DataFrame:
        table = self._columns(name, which, last)
        return pd.DataFrame() if table is None else table.to_pandas()

    def _columns(
        self, name: str, which: Literal["heads", "paragraph", "test_sequences", "pool_sequences"], last: bool
    ) -> pa.Table | None:
        directory = RunDirectory(self.folder / name)
        path = getattr(directory, which)
        if (table := read_table(path)) is not None:
            check_evaluations(table, path, recorded_run(directory))
            self._check_steps(table, path)
        return table.filter(pc.equal(table["step"], pc.max(table["step"]))) if last and table is not None else table

    def _check_steps(self, table: pa.Table, path: Path) -> None:
        """Raise InputError if the table of a finished run has other evaluations than metrics.jsonl."""
        name = path.parent.name
        expected = self.curve(name).step.tolist()
        if name in self._done_names and (steps := steps_in(table)) != expected:
            raise InputError(
                f"{path}: {plural(len(steps), 'evaluation')} found; expected the {len(expected)} evaluations of metrics.jsonl"
            )


def load_runs(folder: Path, names: list[str] | None = None) -> Runs:
    """Read the run directories in a study's folder, `runs/<study>`, into data frames.

    names: the run directories to read (default: all).

    `Runs.table` has one row per run:
        name, label, status     directory name, readable label, "done" if the run is finished
        model, layers           name of the model size, number of layers
        parameters_non_embedding, parameters_total
        trained_tokens, reached_tokens      tokens in the full run, tokens at the last evaluation
        repeated_fraction, repeats          f and R; f = 0 and R = 1 for a clean run, even with a named pool, where the spec's R is 0.
                                If the size of the pool is given, f is the exact fraction that follows from it
        is_clean_control        whether the run trains on no pool text; in `Runs.table`, these are the runs with repeats = 1
        exact_repeated_fraction, pool_tokens, unique_tokens     f and the token counts after rounding to whole sequences
        pool_corpus, fixed_pool, hold_fixed, mix    the named pool's store (empty if none), the pool's size in sequences if it is fixed
                                (0 if it follows from f), which tokens training.tokens counts, and the sources of the unique stream as text
        has_separate_pool       whether the named pool's store is not a store of the unique stream
        seed, pool_seed, learning_rate, ... every other field of the run's spec
        final_<metric>          metrics from a finished run's last evaluation, such as final_test_loss
        parent, parent_study, parent_label, parent_seed, parent_repeats, parent_fraction
                                the run that a fine-tuned run starts from; empty or 0 for runs from scratch

    `Runs.evaluations` has one row per evaluation: the `name` of the run, the `step`, the `tokens` trained on so far, and metrics such
    as test_loss, pool_loss, copying_gain and prefix_matching. `<metric>_null` is the metric's null, and `<metric>_ci` is half the
    width of its 95% interval. Losses are in nats per token; `repeat_study.records.metrics` describes every metric.

    Raises InputError if there are no runs or no evaluations, or if a record is malformed or was altered after its run finished.
    """
    existing = {path.parent.name for path in folder.glob("*/spec.json")}
    wanted = sorted(existing) if names is None else [name for name in names if name in existing]
    if not wanted:
        undeclared = (
            f"the study as given declares none of the {plural(len(existing), 'run')} here"
            if existing
            else "no runs here"
        )
        raise InputError(f"{folder}: {undeclared}; train some with `repeat-study run`")
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as workers:  # hashing and parsing release the GIL
        contents = list(workers.map(_read, (RunDirectory(folder / name) for name in wanted)))
    table = pd.DataFrame([record for record, _ in contents])
    duplicates = _duplicates(table)
    table = table[~table.name.isin(duplicates)].reset_index(drop=True)
    rows = [rows for record, rows in contents if rows and record["name"] not in duplicates]
    if not rows:
        raise InputError(f"{folder}: no run has been evaluated yet")
    evaluations = pa.concat_tables(rows, promote_options="permissive").to_pandas(split_blocks=True)
    del rows, contents  # 50 MB in a large study, which every plotting process would copy
    pa.default_memory_pool().release_unused()
    not_started = [name for name in names or [] if name not in existing]
    runs = Runs(folder, table, evaluations, not_started, sorted(existing - set(wanted)), duplicates)
    if (in_domain := (table.repeats == 1) & ~table.is_clean_control).any():
        runs = replace(_chosen(runs, ~in_domain), domain_controls=_chosen(runs, in_domain))
    return _split_by_parent(runs) if (table.parent != "").any() else runs


def _variant_name(factors: dict[str, Any], pool_tokens: int) -> str:
    """Name a variant by its factors, such as "weight_decay = 1.0, passes". The order of copies is named without its keys."""
    words = [f"{key} = {_number(value)}" for key, value in factors.items() if key not in (*ORDER, "fixed_pool")]
    if "fixed_pool" in factors:
        words.append(f"a pool of {pool_tokens:,} tokens" if factors["fixed_pool"] else "a pool of f·T/R tokens")
    if factors.keys() & set(ORDER):
        words.append(order_name(factors.get("spacing", Spacing.BURSTS), factors.get("burst_distance")))
    return ", ".join(words)


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, Integral) and int(value) >= 10_000 else str(value)


def _split_by_parent(runs: Runs) -> Runs:
    """Move the fine-tuned runs into `fine_tuned`."""
    from_scratch = runs.table.parent == ""
    return replace(_chosen(runs, from_scratch), fine_tuned=_chosen(runs, ~from_scratch))


def _joined(runs: Runs, others: list[Runs | None]) -> Runs:
    """`runs` with the tables of the other runs appended."""
    added = [other for other in others if other]
    if not added:
        return runs
    table = pd.concat([runs.table, *(other.table for other in added)], ignore_index=True)
    evaluations = pd.concat([runs.evaluations, *(other.evaluations for other in added)], ignore_index=True)
    return replace(runs, table=table, evaluations=evaluations, fine_tuned=None, domain_controls=None)


def _chosen(runs: Runs, rows: pd.Series) -> Runs:
    table = runs.table[rows].reset_index(drop=True)
    evaluations = runs.evaluations[runs.evaluations.name.isin(table.name)].reset_index(drop=True)
    return replace(runs, table=table, evaluations=evaluations)


def _read(directory: RunDirectory) -> tuple[dict[str, Any], pa.Table | None]:
    """Read one run. Returns its row of `Runs.table` and its evaluations."""
    status, name = directory.status(), directory.path.name
    directory.check_unaltered()
    run, content = run_and_record(directory)
    if (rows := _evaluations(directory)) is not None:
        check_evaluations(rows, directory.metrics, run)
        _check_bands(rows, directory.metrics, run)
        directory.timings()  # raises InputError for a malformed line
        # The other tables are checked when a figure reads them, but no figure needs every run's pool sequences.
        if status is Status.DONE and (pool := read_table(directory.pool_sequences)) is not None:
            check_evaluations(pool, directory.pool_sequences, run)
    record: dict[str, Any] = content | {"name": name, "status": status}
    record.pop("parent", None)
    record["is_clean_control"] = run.is_clean_control
    if run.is_clean_control:
        record["repeats"] = 1
    if run.fixed_pool:
        record["repeated_fraction"] = record["exact_repeated_fraction"]
    record["has_separate_pool"] = run.has_separate_pool
    record["pool_corpus"] = run.pool_corpus.fingerprint if run.pool_corpus else ""
    record["mix"] = ", ".join(f"{mixed.name} {mixed.share:g}" for mixed in run.mix)
    record |= {"fixed_pool": run.fixed_pool, "hold_fixed": run.hold_fixed.value}
    record |= {"parent": "", "parent_study": "", "parent_repeats": 0, "parent_fraction": 0.0, "parent_label": ""}
    record["parent_seed"] = 0
    if parent := run.parent:
        record |= {"parent": parent.name, "parent_study": parent.study, "parent_label": parent.label}
        record |= {"parent_repeats": parent.repeats, "parent_fraction": parent.repeated_fraction}
        record["parent_seed"] = parent.seed
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
    """Read metrics.jsonl into columns. One dict per line would take ten times the time and memory."""
    content = directory.metrics.read_bytes() if directory.metrics.is_file() else b""
    complete = content[: content.rfind(b"\n") + 1]  # a crash can truncate the last line
    if not complete:
        return None
    try:
        options = json.ReadOptions(use_threads=False, block_size=len(complete) + 1)
        table = json.read_json(pa.BufferReader(complete), read_options=options)
        if pa.types.is_integer(table.schema.field("step").type) and not table["step"].null_count:
            check_columns(table, directory.metrics)
            return table
    except (pa.ArrowException, KeyError):
        pass
    try:
        table = pa.Table.from_pylist(directory.rows())  # reports the line and the problem
    except (pa.ArrowException, OverflowError) as error:
        raise InputError(f"{directory.metrics}: a column contains values of different types ({error})") from error
    check_columns(table, directory.metrics)
    return table


def _check_bands(rows: pa.Table, path: Path, run: Run) -> None:
    """Raise InputError if loss_by_position has another number of bands than the context of the run."""
    expected = len(position_bands(run.context))
    if "loss_by_position" in rows.column_names and not pa.types.is_null(rows.schema.field("loss_by_position").type):
        for length in set(pc.list_value_length(rows["loss_by_position"]).drop_null().to_pylist()) - {expected}:
            raise InputError(f"{path}: loss_by_position: {length} numbers found; expected {expected}")


def _duplicates(table: pd.DataFrame) -> dict[str, str]:
    """Find runs that repeat another run's training. Maps their names to the names of the runs to keep.

    A finished run is preferred to an unfinished one; otherwise, the run that was tested on more text is preferred.
    """
    tested = table.evaluation.map(lambda evaluation: evaluation["test_sequences"])
    order = table.assign(unfinished=table.status != Status.DONE, less=-tested)
    order = order.sort_values(["unfinished", "less", "name"])
    kept = order.groupby(SAME_TRAINING, dropna=False).name.transform("first")
    return {name: kept_name for name, kept_name in zip(order.name, kept, strict=True) if name != kept_name}


def left_out_of_laws(runs: Runs) -> str:
    """A sentence that says how many finished runs `scaling_runs` leaves out, and why; empty if there are none."""
    table = runs.done[~runs.done.name.isin(scaling_runs(runs).name)]
    if table.empty:
        return ""
    sizes = ", ".join(size_names(table.model, table.parameters_non_embedding).values())
    return (
        f"Scaling laws leave out {plural(len(table), 'one-layer run')} of {sizes}, because one-layer models cannot form induction"
        " heads."
    )


def scaling_runs(runs: Runs) -> pd.DataFrame:
    """The finished runs that a single scaling law can describe.

    One-layer models cannot form induction heads. They serve as controls for deeper models and do not follow the same law, so they
    are left out if there are deeper models; `left_out_of_laws` reports them.
    """
    done = runs.done
    deeper = done[done.layers > 1]
    return deeper if len(deeper) else done
