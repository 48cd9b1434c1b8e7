"""Find runs that look unhealthy: failed, resumed often, trained in mixed precisions, or with spikes in training loss or gradient norm."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from analysis.formatting import listed, plural, short_count
from analysis.runs import Runs
from data_prep.mixture import Spacing
from repeat_study.records.run_directory import RunDirectory, Status

# Training loss is averaged between evaluations. It rose above both of its neighbors by at most 0.04 nats in 140 healthy runs.
SPIKE = 0.2  # nats
HIGH_NORM = 5.0  # times the run's median gradient norm; it was at most 3.6 in the same runs
OFTEN = 4  # sessions
FIRST = 3  # evaluations at the start of training that are not checked, because loss and gradients change quickly there


def run_health(runs: Runs) -> pd.DataFrame:
    """One row per problem of a run: `run` (its name), `label`, `problem`, `details`, and `record`, the file that shows it."""
    table = runs.combined.table
    precisions = table.precision.dropna()
    usual = precisions.mode().iloc[0] if len(precisions) else ""
    rows = [
        {"run": run.name, "label": run.label, "problem": problem, "details": details, "record": record}
        for run in table.itertuples()
        for problem, details, record in _problems(runs.combined, run, usual)
    ]
    return pd.DataFrame(rows, columns=["run", "label", "problem", "details", "record"])


def _problems(runs: Runs, run: Any, usual: str) -> Iterator[tuple[str, str, str]]:
    directory = RunDirectory(runs.folder / run.name)
    if run.status == Status.FAILED:
        yield "failed", directory.failure(), directory.failed.name
    sessions = directory.session_rows()
    if len(sessions) >= OFTEN:
        steps = listed([f"{session['step']:,}" for session in sessions[1:]])
        yield "resumed often", f"{plural(len(sessions), 'session')}; resumed at steps {steps}", directory.sessions.name
    found = list(dict.fromkeys(str(session["precision"]) for session in sessions if session.get("precision")))
    if len(found) > 1:
        yield "mixed precision", f"trained in {listed(found)}", directory.sessions.name
    elif found and found[0] != usual:
        yield "different precision", f"{found[0]}; most runs use {usual}", directory.sessions.name
    yield from _spikes(runs.curve(str(run.name)), str(run.spacing))


def _spikes(curve: pd.DataFrame, spacing: str) -> Iterator[tuple[str, str, str]]:
    curve = curve.iloc[FIRST:]
    if len(curve) < 3:
        return
    loss, tokens = curve.train_loss.to_numpy(float), curve.tokens.to_numpy()
    # In bursts, the share of repeated text changes during training, and training loss with it.
    if spacing != Spacing.BURSTS:
        above = np.minimum(loss[1:-1] - loss[:-2], loss[1:-1] - loss[2:])
        if (high := int((above > SPIKE).sum())) > 0:
            at = short_count(int(tokens[1:-1][np.nanargmax(above)]))
            details = f"{plural(high, 'spike')}; the largest is {np.nanmax(above):.2f} nats, at {at} tokens"
            yield "spike in training loss", details, "metrics.jsonl"
    norms = curve.gradient_norm.to_numpy(float) if "gradient_norm" in curve else np.full(len(curve), np.nan)
    if np.isfinite(norms).any() and (median := np.nanmedian(norms)) > 0 and np.nanmax(norms) > HIGH_NORM * median:
        at = short_count(int(tokens[np.nanargmax(norms)]))
        details = f"{np.nanmax(norms):.3g} at {at} tokens, {np.nanmax(norms) / median:.1f} times the median"
        yield "high gradient norm", details, "metrics.jsonl"
