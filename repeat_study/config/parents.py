"""Fine-tuning: which finished runs of another study the runs of this one start from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from pydantic import Field

from data_prep.errors import InputError
from repeat_study.config.base import Spec
from repeat_study.config.run import Parent, Run

SCRATCH, CLEAN, WORST = "scratch", "clean", "worst"
LABEL = "label"  # a key of selectors beside those of a run: what its label says between model and seed
ACCEPTED = (
    f'accepted are "{SCRATCH}", "{CLEAN}", "{WORST}" and a table of what a parent has, as {{repeats = 100, repeated_fraction ='
    f' 0.9}}, {{repeats = "{WORST}", repeated_fraction = 0.9}} or {{{LABEL} = "f0.9-R100"}}'
)


class FineTune(Spec):
    """What a study whose runs have parents says of them: the `[finetune]` table."""

    study: str = Field(alias="from")  # name of the parents' study, or the path of its file
    learning_rate_share: float = Field(
        0.5, gt=0, le=1
    )  # of [training]'s, in runs that have a parent [H22 figs. 12, 15]
    warmup_fraction: float = Field(0.01, ge=0, lt=1)  # in these; [training]'s is of runs from scratch


class ParentNotKnown(InputError):
    """The parent depends on runs that are not finished."""


@dataclass(frozen=True)
class Parents:
    """The runs that there are to choose from.

    losses: final test loss of those that are finished, by name; None while nothing was trained, as for a plan.
    """

    study: str
    runs: Sequence[Run]
    losses: Mapping[str, float] | None = None

    def needed(self, selector: Any, model: str, seed: int) -> list[Run]:
        """The runs that have to be finished before the parent of a run is known and can be started from.

        Raises InputError where no run or several are meant.
        """
        if selector == SCRATCH:
            return []
        wanted = _wanted(selector)
        alike = self._alike(wanted, model, selector)
        seed = wanted.get("seed", seed)
        of_seed = [run for run in alike if run.seed == seed]
        worst = wanted.get("repeats") == WORST
        if worst and of_seed and len({(run.repeats, run.seed) for run in alike}) == len(alike):
            return alike
        if worst or len(of_seed) != 1:
            one = "one for each R and seed" if worst else "one"
            raise InputError(
                f"{_say(selector)} means {len(of_seed)} runs of {self.study} with {model} and seed {seed}, {one} is needed;"
                f" there are {_labels(of_seed or alike)}"
            )
        return of_seed

    def choose(self, selector: Any, model: str, seed: int) -> tuple[Parent, Run] | None:
        """The parent of a run of this model and seed; None from scratch.

        Raises InputError as `needed`, and ParentNotKnown where the worst R is asked for and a run that might have it is not
        finished. For a plan that one is called so, and stands for all.
        """
        needed = self.needed(selector, model, seed)
        if not needed:
            return None
        wanted = _wanted(selector)
        if wanted.get("repeats") != WORST:
            return _parent(self.study, needed[0]), needed[0]
        if self.losses is None:
            fraction = f"f{needed[0].repeated_fraction:g}-{WORST}"
            unknown = {"label": f"{model}-{fraction}-s{seed}", "identity": ""}
            return _parent(self.study, needed[0]).model_copy(update=unknown), needed[0]
        chosen = self._worst(needed, selector, wanted.get("seed", seed))
        return _parent(self.study, chosen), chosen

    def _alike(self, wanted: dict[str, Any], model: str, selector: Any) -> list[Run]:
        of_model = [run for run in self.runs if run.model == model]
        if not of_model:
            there = ", ".join(dict.fromkeys(run.model for run in self.runs))
            raise InputError(f"{model} is the shape of no run of {self.study}, whose models are {there}")
        keys = {key: value for key, value in wanted.items() if key != "seed" and (key, value) != ("repeats", WORST)}
        for key, value in keys.items():
            if key not in Run.model_fields and key != LABEL:
                raise InputError(f"{key}: not a key of a run of {self.study}; {ACCEPTED}")
            if value == WORST or isinstance(value, bool):
                raise InputError(f"{key} = {value}: not a value of a run of {self.study}; {ACCEPTED}")
        alike = [run for run in of_model if all(_value(run, key) == value for key, value in keys.items())]
        if wanted.get("repeats") == WORST:
            alike = [run for run in alike if run.repeats > 1]
            if len(fractions := sorted({run.repeated_fraction for run in alike})) > 1:
                known = ", ".join(f"{fraction:g}" for fraction in fractions)
                raise InputError(
                    f'{_say(selector)} is of several fractions in {self.study} ({known}); say {{repeats = "{WORST}",'
                    f" repeated_fraction = {fractions[-1]:g}}}"
                )
        if not alike:
            raise InputError(f"{_say(selector)} is no run of {self.study} with {model}; there are {_labels(of_model)}")
        return alike

    def _worst(self, alike: Sequence[Run], selector: Any, seed: int) -> Run:
        """That of this seed at the R whose mean final test loss over seeds is the highest, of those R that it has."""
        losses = self.losses or {}
        if unfinished := [run for run in alike if run.name not in losses]:
            raise ParentNotKnown(
                f"{_say(selector)} chooses among {len(alike)} runs of {self.study}, {len(unfinished)} of which are not finished"
                f" ({unfinished[0].name})"
            )
        of_repeats: dict[int, list[float]] = {}
        for run in alike:
            of_repeats.setdefault(run.repeats, []).append(losses[run.name])
        return max((run for run in alike if run.seed == seed), key=lambda run: fmean(of_repeats[run.repeats]))


def short_label(label: str, model: str, seed: int) -> str:
    """A run's label without model and seed, e.g. `clean`, `f0.9-R100` or `from-clean`."""
    return label.removeprefix(f"{model}-").removesuffix(f"-s{seed}")


def _value(run: Run, key: str) -> Any:
    return short_label(run.label, run.model, run.seed) if key == LABEL else getattr(run, key)


def _wanted(selector: Any) -> dict[str, Any]:
    if isinstance(selector, dict):
        return selector
    if selector == CLEAN:
        return {"repeats": 1, "parent": None}
    if selector == WORST:
        return {"repeats": WORST}
    raise InputError(f"{selector!r} found; {ACCEPTED}")


def _say(selector: Any) -> str:
    if isinstance(selector, dict):
        return "{" + ", ".join(f"{key} = {value}" for key, value in selector.items()) + "}"
    return str(selector)


def _labels(runs: Sequence[Run], most: int = 8) -> str:
    return ", ".join(run.label for run in runs[:most]) + (", ..." if len(runs) > most else "")


def _parent(study: str, run: Run) -> Parent:
    return Parent(
        study=study,
        label=run.label,
        identity=run.identity,
        repeats=run.repeats,
        repeated_fraction=run.repeated_fraction,
        seed=run.seed,
    )
