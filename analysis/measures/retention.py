"""How much of a pool sequence a model retains, by the tokens it was trained on since the sequence's last copy.

Retention is the loss of the clean run of the same seed on that sequence, minus the run's own loss on it: 0 if repetition taught
the model nothing about the sequence in particular.
"""

import math
from typing import Any

import numpy as np
import pandas as pd

from analysis.intervals import Bound, Estimate, t_half_width
from analysis.runs import ARM, FACTORS, OF_THE_POOL, Runs
from repeat_study.records.recorded_run import recorded_run
from repeat_study.records.run_directory import RunDirectory

# A clean run evaluates the same pool sequences as the repeated runs that agree with it in all of these.
SAME_POOL = ["model", "seed", "pool_seed", *(factor for factor in FACTORS if factor not in OF_THE_POOL)]
OF_POOL = [*ARM, *OF_THE_POOL]


def retention(runs: Runs) -> pd.DataFrame:
    """A row per repeated run, evaluation and pool sequence that the run has trained on.

    Columns: those that identify the run and its pool, and
        step, sequence      the evaluation, and the sequence's slot in the pool
        copies              copies trained on so far
        steps_since         training steps since the last copy, including the step that contained it, so 1 or more
        tokens_since        the same in tokens
        retention           nats per token, clean run's loss minus own loss

    Runs without a clean run of the same seed, and runs of older versions, which did not record these losses, are left out.
    """
    done = runs.done
    clean = {key: str(run["name"]) for key, run in _by_pool(done[done.repeats == 1])}
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
    """The rows of one run; `retained` has the shape [evaluations, sequences]."""
    run = recorded_run(RunDirectory(runs.folder / name))
    mixture = run.mixture()
    columns = []
    for slot in range(retained.shape[1]):
        trained_in = mixture.occurrences(slot) // run.sequences_per_step  # the step that contains each copy, from 0
        copies = np.searchsorted(trained_in, steps)  # copies in steps before each evaluation
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
    """Mean retention of each run in bins of `steps_since` that double in width: 1, 2-3, 4-7, ... steps.

    Only sequences of which at least half of the copies were trained on count, so that few copies are not mistaken for
    forgetting. `tokens_since` is the bin's center, the geometric mean of its first and last token count, rounded.
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
    """The tokens after which a run's retention is half of what it is right after a copy; `curve`: its rows of `by_tokens_since`.

    Interpolated in the logarithm of tokens. A lower bound if the last bin still has more than half. NaN if nothing was retained.
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
    """A row per arm of `by_tokens_since`, averaged over seeds in the logarithm: `half_life` in tokens with `low` and `high` (95% t
    interval over seeds), `bound`, and `retention` right after a copy in nats.

    If the half-life of any seed is a bound, the arm's is the smallest value as a bound, without an interval.
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
