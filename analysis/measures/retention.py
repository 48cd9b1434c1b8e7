"""Measure how much of a pool sequence a model retains, depending on the tokens trained on since the sequence's last copy.

Retention is the loss of the same-seed clean run on that sequence, minus the run's own loss on it. It is 0 if repetition taught the
model nothing specific to the sequence.
"""

import math
from typing import Any

import numpy as np
import pandas as pd

from analysis.intervals import Bound, Estimate, t_half_width
from analysis.runs import ARM, FACTORS, POOL_FIELDS, Runs
from repeat_study.records.recorded_run import recorded_run
from repeat_study.records.run_directory import RunDirectory

# A clean run is evaluated on the same pool sequences as the repeated runs that agree with it in all of these fields.
SAME_POOL = ["model", "seed", "pool_seed", *(factor for factor in FACTORS if factor not in POOL_FIELDS)]
OF_POOL = [*ARM, *POOL_FIELDS]


def retention(runs: Runs) -> pd.DataFrame:
    """Tabulate retention, with one row per repeated run, evaluation and pool sequence that the run has trained on.

    The columns that do not identify the run or its pool:
        step, sequence      the step of the evaluation, and the sequence's slot in the pool
        copies              copies trained on so far
        steps_since         training steps since the last copy, counting the step that contained it; at least 1
        tokens_since        the same number in tokens
        retention           the clean run's loss minus the run's own loss, nats per token

    Runs without a clean run of the same seed are left out. So are runs by older versions, which did not record these losses.
    """
    done = runs.done
    clean = {key: str(run["name"]) for key, run in _by_pool(done[done.is_clean_control])}
    tables = []
    for key, run in _by_pool(done[done.repeats > 1]):
        own = runs.pool_sequences(str(run["name"]))
        control = runs.pool_sequences(clean[key]) if key in clean else None
        if own is None or control is None or len(own) != len(control) or own.shape[1] > control.shape[1]:
            continue
        steps = runs.curve(str(run["name"])).step.to_numpy(int)
        table = _of_run(runs, str(run["name"]), steps, control[:, : own.shape[1]] - own)
        tables.append(table.assign(**{column: run[column] for column in OF_POOL}))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _by_pool(table: pd.DataFrame) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    rows = table.to_dict("records")
    return [(tuple(str(row[column]) for column in SAME_POOL), row) for row in rows]


def _of_run(runs: Runs, name: str, steps: np.ndarray, retained: np.ndarray) -> pd.DataFrame:
    """One run's rows. `retained` has shape [evaluations, sequences]."""
    run = recorded_run(RunDirectory(runs.folder / name))
    mixture = run.mixture()
    columns = []
    for slot in range(retained.shape[1]):
        trained_in = mixture.occurrences(slot) // run.sequences_per_step  # each copy's step, counting from 0
        copies = np.searchsorted(trained_in, steps)  # copies trained on before each evaluation
        trained = copies > 0
        since = steps[trained] - trained_in[copies[trained] - 1]
        columns.append(
            pd.DataFrame(
                {
                    "step": steps[trained],
                    "sequence": slot,
                    "copies": copies[trained],
                    "steps_since": since,
                    "tokens_since": since * run.tokens_per_step,
                    "retention": retained[trained, slot],
                }
            )
        )
    return pd.concat(columns, ignore_index=True)


def by_tokens_since(table: pd.DataFrame) -> pd.DataFrame:
    """Average each run's retention in bins of `steps_since` that double in width: 1, 2-3, 4-7, ... steps.

    A sequence counts only after the run has trained on at least half of its copies. Otherwise, low retention after few copies would be
    mistaken for forgetting. `tokens_since` is the center of the bin, the rounded geometric mean of its smallest and largest token
    counts.
    """
    known = table[2 * table.copies >= table.repeats]
    doubling = np.floor(np.log2(known.steps_since)).astype(int)
    steps = np.sqrt(2.0**doubling * (2.0 ** (doubling + 1) - 1))
    center = (steps * (known.tokens_since // known.steps_since)).round().astype(int)
    return (
        known.assign(tokens_since=center)
        .groupby([*OF_POOL, "tokens_since"], dropna=False)
        .retention.mean()
        .reset_index()
    )


def half_life(curve: pd.DataFrame) -> Estimate:
    """The number of tokens after which a run's retention is half of what it is right after a copy.

    curve: the run's rows in the table from `by_tokens_since`. The result is interpolated in the logarithm of tokens. It is a lower bound
    if no bin falls below half, and NaN if nothing was retained.
    """
    line = curve.sort_values("tokens_since")
    tokens, retained = line.tokens_since.to_numpy(float), line.retention.to_numpy(float)
    half = retained[0] / 2
    if half <= 0:
        return Estimate(math.nan)
    below = np.flatnonzero(retained < half)
    if not len(below):
        return Estimate(float(tokens[-1]), bound=Bound.AT_LEAST)
    after = int(below[0])
    share = (retained[after - 1] - half) / (retained[after - 1] - retained[after])
    return Estimate(float(np.exp(np.interp(share, [0, 1], np.log(tokens[after - 1 : after + 1])))))


def half_lives(curves: pd.DataFrame) -> pd.DataFrame:
    """Average half-lives over the seeds of each arm. `curves` is a table from `by_tokens_since`.

    Returns one row per arm: `half_life` in tokens, the ends `low` and `high` of its 95% t interval over seeds, its `bound`, and the mean
    `retention` in nats right after a copy. The half-life is the geometric mean over seeds. If any seed's half-life is a bound, the arm's
    half-life is a bound too: the smallest of the seeds' values, without an interval.
    """
    by = [column for column in OF_POOL if column not in ("name", "seed", "pool_seed")]
    rows = []
    for arm, arm_curves in curves.groupby(by, dropna=False):
        seeds = [
            (half_life(curve), curve.sort_values("tokens_since").retention.iloc[0])
            for _, curve in arm_curves.groupby("name")
        ]
        lives = [life for life, _ in seeds if not math.isnan(life.value)]
        if not lives:
            continue
        bounded = any(life.bound for life in lives)
        logs = np.log([life.value for life in lives])
        half_width = math.nan if bounded else t_half_width(logs)
        center = float(logs.min() if bounded else logs.mean())
        rows.append(
            {
                **dict(zip(by, arm, strict=True)),
                "seeds": len(seeds),
                "retention": float(np.mean([first for _, first in seeds])),
                "half_life": math.exp(center),
                "low": math.exp(center - half_width),
                "high": math.exp(center + half_width),
                "bound": str(Bound.AT_LEAST if bounded else Bound.EXACT),
            }
        )
    return pd.DataFrame(rows)
