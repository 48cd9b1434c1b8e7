"""Select the parents of fine-tuned runs from the runs of another study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from pydantic import Field

from data_prep.errors import InputError
from data_prep.validation import toml_text
from repeat_study.config.base import Spec
from repeat_study.config.run import Parent, Run

SCRATCH, CLEAN, WORST = "scratch", "clean", "worst"
LABEL = "label"  # selector key for a run's short label
POOL_TOKENS = "pool_tokens"  # selector key for the size of a fixed pool
SELECTORS = Run.model_fields.keys() - Run.internal_fields | {LABEL, POOL_TOKENS}
ACCEPTED = (
    f'expected "{SCRATCH}", "{CLEAN}", "{WORST}", or a table that selects one run, e.g. {{repeats = 100,'
    f' repeated_fraction = 0.9}}, {{repeats = "{WORST}", repeated_fraction = 0.9}} or {{{LABEL} = "f0.9-R100"}}'
)


class FineTune(Spec):
    """The `[finetune]` table: the parent study, and training settings for runs that have a parent."""

    study: str = Field(alias="from")  # name or path of the parent study
    learning_rate_share: float = Field(0.5, gt=0, le=1)  # multiplies the learning rate [H22, figs. 12, 15]
    warmup_fraction: float = Field(0.01, ge=0, lt=1)  # replaces training.warmup_fraction


class ParentNotKnown(InputError):
    """Raised if the choice of a parent depends on unfinished runs."""


@dataclass(frozen=True)
class ChosenParent:
    """The parent selected for a run. `record` becomes part of the child's spec, and `run` is the parent's own spec."""

    record: Parent
    run: Run


@dataclass(frozen=True)
class Parents:
    """The candidate parents: the runs in another study.

    losses: final test loss in nats of each finished run, by name. None for a plan, which does not require any training.
    """

    study: str
    runs: Sequence[Run]
    losses: Mapping[str, float] | None = None

    def needed(self, selector: Any, model: str, seed: int) -> list[Run]:
        """Runs that must finish before a run with this model and seed can start: its parent, or all candidates.

        Raises InputError unless the selector matches exactly one run or, for the worst R, one run for each R and seed.
        """
        if selector == SCRATCH:
            return []
        criteria = _criteria(selector)
        matching = self._matching(criteria, model, selector)
        seed = criteria.get("seed", seed)
        of_seed = [run for run in matching if run.seed == seed]
        worst = criteria.get("repeats") == WORST
        if worst and of_seed and len({(run.repeats, run.seed) for run in matching}) == len(matching):
            return matching
        if worst or len(of_seed) != 1:
            expected = "one for each R and seed" if worst else "exactly one"
            ignored = {"seed", "repeats"} if worst else {"seed"}
            differing = sorted(
                key for key in SELECTORS - ignored - {LABEL} if len({_value(run, key) for run in of_seed}) > 1
            )
            hint = f"; they differ in {', '.join(differing)}" if differing else ""
            raise InputError(
                f"{_selector_text(selector)} matches {len(of_seed)} runs in {self.study} with model {model} and seed {seed};"
                f" expected {expected}{hint}; available: {_labels(of_seed or matching)}"
            )
        return of_seed

    def choose(self, selector: Any, model: str, seed: int) -> ChosenParent | None:
        """Select the parent of a run with this model and seed; None for a run from scratch.

        In a plan, a parent at the worst R is represented by a record with `worst` in its label and an empty identity.
        Raises InputError for the same reasons as `needed`, and ParentNotKnown if the worst R depends on an unfinished run.
        """
        needed = self.needed(selector, model, seed)
        if not needed:
            return None
        criteria = _criteria(selector)
        if criteria.get("repeats") != WORST:
            return self._chosen(needed[0])
        if self.losses is None:
            run = next(run for run in needed if run.seed == criteria.get("seed", seed))
            label = run.label.replace(f"-R{run.repeats}-", f"-{WORST}-")
            chosen = self._chosen(run)
            return ChosenParent(chosen.record.model_copy(update={"label": label, "identity": ""}), chosen.run)
        return self._chosen(self._worst(needed, selector, criteria.get("seed", seed)))

    def _matching(self, criteria: dict[str, Any], model: str, selector: Any) -> list[Run]:
        of_model = [run for run in self.runs if run.model == model]
        if not of_model:
            models = ", ".join(dict.fromkeys(run.model for run in self.runs))
            raise InputError(f"{self.study} has no run with model {model}; its models are {models}")
        keys = {key: value for key, value in criteria.items() if key != "seed" and (key, value) != ("repeats", WORST)}
        for key, value in keys.items():
            if key not in SELECTORS:
                raise InputError(f"{key}: unknown key; {ACCEPTED}")
            if key == POOL_TOKENS and not isinstance(value, int):
                raise InputError(f"{key} = {toml_text(value)}: expected a number of tokens, as printed by plan")
            if value == WORST or isinstance(value, bool):
                raise InputError(f"{key} = {value}: no run can have this value; {ACCEPTED}")
        matching = [run for run in of_model if all(_matches(run, key, value) for key, value in keys.items())]
        if selector == CLEAN:
            matching = [run for run in matching if run.is_clean_control]
        if criteria.get("repeats") == WORST:
            matching = [run for run in matching if run.repeats > 1]
            if len(pools := sorted({_pool(run) for run in matching})) > 1:
                raise InputError(
                    f"{_selector_text(selector)} matches several pools in {self.study} ({', '.join(pools)}); choose one, e.g."
                    f' {{repeats = "{WORST}", {pools[-1]}}}'
                )
        if not matching:
            text = _selector_text(selector)
            raise InputError(
                f"{text} matches no run in {self.study} with model {model}; available: {_labels(of_model)}"
            )
        return matching

    def _worst(self, candidates: Sequence[Run], selector: Any, seed: int) -> Run:
        """The run with this seed at the worst R: the R with the highest final test loss, averaged over all seeds.

        Values of R for which this seed has no run are ignored.
        """
        losses = self.losses or {}
        if unfinished := [run.name for run in candidates if run.name not in losses]:
            raise ParentNotKnown(
                f"{_selector_text(selector)} depends on {len(candidates)} runs in {self.study}, and {len(unfinished)} of them"
                f" are unfinished, e.g. {unfinished[0]}"
            )
        by_repeats: dict[int, list[float]] = {}
        for run in candidates:
            by_repeats.setdefault(run.repeats, []).append(losses[run.name])
        return max((run for run in candidates if run.seed == seed), key=lambda run: fmean(by_repeats[run.repeats]))

    def _chosen(self, run: Run) -> ChosenParent:
        record = Parent(
            study=self.study,
            label=run.label,
            identity=run.identity,
            repeats=run.repeats,
            repeated_fraction=run.repeated_fraction,
            seed=run.seed,
        )
        return ChosenParent(record, run)


def short_label(label: str, model: str, seed: int) -> str:
    """A run's label without its model and seed, e.g. `clean`, `f0.9-R100` or `from-clean`."""
    return label.removeprefix(f"{model}-").removesuffix(f"-s{seed}")


def _value(run: Run, key: str) -> Any:
    if key == POOL_TOKENS:
        return run.fixed_pool * run.context
    return short_label(run.label, run.model, run.seed) if key == LABEL else getattr(run, key)


def _matches(run: Run, key: str, value: Any) -> bool:
    if key == POOL_TOKENS:  # rounded down to whole sequences, as in the grid
        value = value // run.context * run.context
    return bool(_value(run, key) == value)


def _pool(run: Run) -> str:
    """The key that selects the size of the run's pool, e.g. `repeated_fraction = 0.9`."""
    if run.fixed_pool:
        return f"{POOL_TOKENS} = {_value(run, POOL_TOKENS)}"
    return f"repeated_fraction = {run.repeated_fraction:g}"


def _criteria(selector: Any) -> dict[str, Any]:
    """The field values that a run must have to match the selector."""
    if isinstance(selector, dict):
        return selector
    if selector == CLEAN:
        return {"parent": None}
    if selector == WORST:
        return {"repeats": WORST}
    raise InputError(f"unknown parent {selector!r}; {ACCEPTED}")


def _selector_text(selector: Any) -> str:
    return toml_text(selector) if isinstance(selector, dict) else str(selector)


def _labels(runs: Sequence[Run], limit: int = 8) -> str:
    return ", ".join(run.label for run in runs[:limit]) + (", ..." if len(runs) > limit else "")
