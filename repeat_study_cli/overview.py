"""Collect a study's state for `status`: its runs, its token stores and its queued jobs."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.errors import InputError
from repeat_study.config.run import Run
from repeat_study.config.study import Study
from repeat_study.records.run_directory import evaluation_share
from slurm import client
from slurm.preparation_status import PreparationJobs, StoreProgress, preparation_states, store_progress
from slurm.resolution import known_runs, missing_stores
from slurm.status import RunState, State, run_states
from slurm.submissions import jobs_by_run, read_submissions


@dataclass(frozen=True)
class Overview:
    """The state of a study. Until the study's token stores are built, run names are provisional and are not printed."""

    study: str
    folder: Path  # contains the run directories
    missing_stores: list[Path]
    names_are_final: bool
    states: list[RunState]
    waiting: list[str] = field(default_factory=list)  # grid points whose parent is not known yet, one line each
    submitted: bool = False  # whether runs were ever submitted to SLURM
    queue_error: str = ""
    preparation: list[StoreProgress] = field(default_factory=list)  # of the missing stores whose preparation has begun
    preparation_jobs: PreparationJobs = field(default_factory=PreparationJobs)
    undeclared: list[str] = field(default_factory=list)  # runs in the queue that the study does not declare

    @property
    def counts(self) -> dict[str, int]:
        """The number of runs in each state, omitting states without runs."""
        counts = Counter(state.state for state in self.states)
        return {state.value: counts[state] for state in State if counts[state]}

    @property
    def active(self) -> bool:
        """Whether a run is training or in the queue, or the data is being prepared by jobs."""
        busy = {State.PREEMPTED, State.STARTING, State.RUNNING, State.STUCK}
        return bool(self.preparation_jobs.queued) or any(
            state.state in busy or (state.state is State.PENDING and state.job_id) for state in self.states
        )

    def record(self) -> dict[str, Any]:
        """The record printed by --json. Each key ends with its unit, except for tokens, steps and counts."""
        return {
            "study": self.study,
            "folder": str(self.folder),
            "prepared": not self.missing_stores,
            "missing_token_stores": [str(store) for store in self.missing_stores],
            "preparation": [progress.record() for progress in self.preparation],
            "preparation_jobs": self.preparation_jobs.record(),
            "counts": self.counts,
            "runs": [self._run_record(state) for state in self.states],
            "runs_waiting_for_a_parent": self.waiting,
            "runs_in_queue_not_declared": self.undeclared,
            "queue_error": self.queue_error or None,
        }

    def _run_record(self, state: RunState) -> dict[str, Any]:
        run, timing = state.run, state.timing or {}
        return {
            "label": run.label,
            "name": run.name if self.names_are_final else None,
            "folder": str(self.folder / run.name) if self.names_are_final else None,
            "model": run.model,
            "repeats": run.repeats,
            "repeated_fraction": run.repeated_fraction,  # 0 if the grid contains pool_tokens
            "exact_repeated_fraction": float(run.mixture().exact_fraction),
            "pool_tokens": run.pool * run.context,
            "hold_fixed": run.hold_fixed.value,
            "seed": run.seed,
            "state": state.state.value,
            "step": state.step,
            "steps": run.steps,
            "tokens": state.step * run.tokens_per_step,
            "test_loss_nats": state.test_loss,
            "tokens_per_second": timing.get("tokens_per_second"),
            "utilisation_share": timing.get("utilisation"),
            "memory_bytes": timing.get("memory_bytes"),
            "seconds_left": timing.get("seconds_left"),
            "evaluation_share": evaluation_share_of(timing),
            "job": state.job_id or None,
            "note": state.note or None,
        }


def evaluation_share_of(timing: dict[str, Any]) -> float | None:
    """Share of a run's time spent on evaluation so far; None before the first step."""
    return evaluation_share(timing) if timing.get("tokens_per_second") else None


def overview_of(declared: Study, data_dir: Path, runs_dir: Path, stuck_after: float) -> Overview:
    """Read a study's run directories, and the queue if runs were submitted. `stuck_after` is in seconds."""
    folder = runs_dir / declared.name
    for path in (folder, runs_dir):
        if path.exists() and not path.is_dir():
            raise InputError(f"{path}: not a folder; expected the folder that contains the run directories")
    missing = missing_stores(declared, data_dir)
    runs, waiting, names_are_final = _runs_of(declared, data_dir, runs_dir, prepared=not missing)
    submitted = read_submissions(folder)
    queue, queue_error = None, ""
    if submitted:
        try:
            queue = client.queued_jobs()
        except InputError as error:
            queue_error = f"{error}; states come from the run directories only"
    jobs = preparation_states(submitted, queue, prepared=not missing)
    return Overview(
        declared.name,
        folder,
        missing,
        names_are_final,
        list(run_states(runs, folder, submitted, queue, stuck_after)),
        waiting,
        any(submission.arrays for submission in submitted),
        queue_error,
        [progress for folder in missing if (progress := store_progress(folder, queued=jobs.queued > 0))],
        jobs,
        sorted(set(jobs_by_run(submitted, queue or {})) - {run.name for run in runs}),
    )


def _runs_of(declared: Study, data_dir: Path, runs_dir: Path, prepared: bool) -> tuple[list[Run], list[str], bool]:
    """The runs, the grid points that wait for a parent, and whether the run names are final.

    Without token stores, the names come from the existing run directories, if there are any.
    """
    known = known_runs(declared, data_dir, runs_dir)
    if prepared:
        return known.runs, known.waiting, True
    folder = runs_dir / declared.name
    if any(folder.glob("*/spec.json")):
        from analysis.declared_runs import declared_runs

        if runs := declared_runs(folder, declared):
            return runs, [], True
    return known.runs, known.waiting, False
