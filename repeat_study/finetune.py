"""Fine-tuning: which finished runs of another study the runs of this one start from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from pydantic import ConfigDict, Field

from data_prep.errors import InputError
from repeat_study.run import Parent, Run
from repeat_study.spec import Spec

SCRATCH, CLEAN, WORST = "scratch", "clean", "worst"
ACCEPTED = (
    f'accepted are "{SCRATCH}", "{CLEAN}", "{WORST}" and a table of what a parent has, as {{repeats = 100, repeated_fraction ='
    f' 0.9}} or {{repeats = "{WORST}", repeated_fraction = 0.9}}'
)


class Undecided(InputError):
    """Which run is the parent is not known before others are finished."""


class FineTune(Spec):
    """What a study whose runs have parents says of them: the `[finetune]` table."""

    model_config = ConfigDict(populate_by_name=True)

    study: str = Field(alias="from")  # name of the parents' study, or the path of its file
    learning_rate_share: float = Field(
        0.5, gt=0, le=1
    )  # of [training]'s, in runs that have a parent [H22 figs. 12, 15]
    warmup_fraction: float = Field(0.01, ge=0, lt=1)  # in these; [training]'s is of runs from scratch


@dataclass(frozen=True)
class Parents:
    """The runs that there are to choose from.

    losses: final test loss of those that are finished, by name; None while nothing was trained, as for a plan.
    """

    study: str
    runs: Sequence[Run]
    losses: Mapping[str, float] | None = None

    def needed(self, selector: Any, model: str, seed: int) -> list[Run]:
        """The runs that have to be finished before the parent of a run is known and can be started from."""
        if selector == SCRATCH:
            return []
        wanted = _wanted(selector)
        alike = self._alike(wanted, model, selector)
        if wanted.get("repeats") == WORST:
            return alike
        of_seed = [run for run in alike if run.seed == wanted.get("seed", seed)]
        if len(of_seed) != 1:
            raise InputError(
                f"{_say(selector)} means {len(of_seed)} runs of {self.study} with {model} and seed"
                f" {wanted.get('seed', seed)}, one is needed; there are {_labels(of_seed or alike)}"
            )
        return of_seed

    def choose(self, selector: Any, model: str, seed: int) -> Parent | None:
        """The parent of a run of this model and seed; None from scratch.

        Raises InputError where no run or several are meant, Undecided where the worst R is asked for and a run that might
        have it is not finished.
        """
        needed = self.needed(selector, model, seed)
        if not needed:
            return None
        if _wanted(selector).get("repeats") != WORST:
            return _parent(self.study, needed[0])
        if self.losses is None:
            some = next(run for run in needed if run.repeats > 1)
            return _parent(self.study, some).model_copy(update={"label": f"{model}-{WORST}-s{seed}", "identity": ""})
        return _parent(self.study, self._worst(needed, selector, seed))

    def _alike(self, wanted: dict[str, Any], model: str, selector: Any) -> list[Run]:
        of_model = [run for run in self.runs if run.model == model]
        if not of_model:
            there = ", ".join(dict.fromkeys(run.model for run in self.runs))
            raise InputError(f"{model} is the shape of no run of {self.study}, whose models are {there}")
        keys = {key: value for key, value in wanted.items() if value != WORST and key != "seed"}
        if strange := keys.keys() - Run.model_fields.keys():
            raise InputError(f"{sorted(strange)[0]}: not a key of a run of {self.study}; {ACCEPTED}")
        alike = [run for run in of_model if all(getattr(run, key) == value for key, value in keys.items())]
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
        """That of this seed at the R whose mean final test loss over seeds is the highest."""
        losses = self.losses or {}
        if unfinished := [run for run in alike if run.name not in losses]:
            raise Undecided(
                f"{_say(selector)} chooses among {len(alike)} runs of {self.study}, {len(unfinished)} of which are not finished"
                f" ({unfinished[0].name}); train them first: repeat-study run {self.study}, or sweep"
            )
        of_repeats: dict[int, list[float]] = {}
        for run in alike:
            of_repeats.setdefault(run.repeats, []).append(losses[run.name])
        worst = max(of_repeats, key=lambda repeats: fmean(of_repeats[repeats]))
        seed = _wanted(selector).get("seed", seed)
        found = [run for run in alike if run.repeats == worst and run.seed == seed]
        if len(found) != 1:
            raise InputError(
                f"{_say(selector)} is R = {worst}, of which {self.study} has {len(found) or 'no'} runs with seed {seed}"
            )
        return found[0]


def _wanted(selector: Any) -> dict[str, Any]:
    if isinstance(selector, dict):
        return selector
    if selector == CLEAN:
        return {"repeats": 1}
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
