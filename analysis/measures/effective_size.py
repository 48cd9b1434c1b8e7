"""Effective model size: the size at which clean runs reach a run's loss or score [H22 figs. 4-6]."""

from dataclasses import dataclass
from functools import lru_cache

import pandas as pd

from analysis.intervals import Bound, Estimate
from analysis.measures.clean_law import PARAMETERS, PowerLaw, fit_power_law
from analysis.runs import Runs, in_law


@dataclass(frozen=True)
class Metric:
    """A final number of runs that falls as clean models grow, so that it can be read as a size."""

    name: str  # in metrics.jsonl
    title: str
    column: str  # of the multiplier in the summary
    score: bool = False  # from 0 to 1 and better where it is higher: the law is of 1 - score [H22 fig. 6]

    def falling(self, runs: pd.DataFrame) -> pd.Series:
        """The number of each run of a table, as what falls with size; NaN where it was not measured."""
        final = runs.get(f"final_{self.name}", pd.Series(float("nan"), runs.index)).astype(float)
        return 1 - final if self.score else final


TEST_LOSS = Metric("test_loss", "test loss", "size_multiplier")
METRICS = (
    TEST_LOSS,
    Metric("copying_loss", "copying loss", "copying_multiplier"),
    Metric("random_copying_loss", "loss on copied random tokens", "random_copying_multiplier"),
    Metric("prefix_matching", "prefix matching", "prefix_matching_multiplier", score=True),
)


def test_sets(runs: Runs) -> list[Metric]:
    """The further test sets that finished runs were evaluated on: `test_loss_<set>` in metrics.jsonl."""
    done = runs.done
    prefix = f"final_{TEST_LOSS.name}_"
    names = [name for name in done if str(name).startswith(prefix) and done[name].notna().any()]
    sets = [str(name).removeprefix(prefix) for name in names if not str(name).endswith("_ci")]
    return [Metric(f"{TEST_LOSS.name}_{name}", f"loss on {name}", f"{name}_multiplier") for name in sorted(sets)]


@dataclass(frozen=True)
class NoLaw:
    """A metric that clean runs do not tell sizes apart by, and why."""

    reason: str


def clean_law(runs: Runs, metric: Metric = TEST_LOSS) -> PowerLaw | NoLaw:
    """The law of the finished clean runs' metric, one fit per metric [H22 figs. 4-6].

    There is none where the clean runs do not order the metric by size: where it falls over all their sizes by no more
    than twice the law's largest residual, or where no clean run's score exceeds twice its null.
    """
    table = in_law(runs)
    clean = table[(table.repeats == 1) & metric.falling(table).notna()]
    if table[table.repeats == 1].parameters_non_embedding.nunique() < PARAMETERS:
        return NoLaw(
            "the clean law has three parameters and needs finished clean runs of at least three sizes of one family"
        )
    if clean.parameters_non_embedding.nunique() < PARAMETERS:
        return NoLaw("it was not measured")
    if metric.score and (clean[f"final_{metric.name}"] <= 2 * clean[f"final_{metric.name}_null"]).all():
        return NoLaw("no clean run's score exceeds twice its null")
    law = _fitted(tuple(clean.parameters_non_embedding), tuple(metric.falling(clean)))
    span = float(law.loss(law.smallest) - law.loss(law.largest))
    if span <= 2 * law.residual:
        return NoLaw(
            f"clean runs do not order it by size: the law falls by {span:.3g} over all sizes and misses a run by"
            f" {law.residual:.3g}"
        )
    return law


@lru_cache
def _fitted(sizes: tuple[float, ...], losses: tuple[float, ...]) -> PowerLaw:
    """A fit takes a second, and several figures and the summary read the same one."""
    return fit_power_law(sizes, losses)


def multiplier(law: PowerLaw, size: float, loss: float) -> Estimate:
    """Effective-size multiplier of a run of `size` parameters and a final `loss` in the law's unit."""
    effective = law.size(loss)
    if effective < law.smallest:
        return Estimate(law.smallest / size, bound=Bound.AT_MOST)
    if effective > law.largest:
        return Estimate(law.largest / size, bound=Bound.AT_LEAST)
    return Estimate(effective / size)


def size_multipliers(runs: Runs, metric: Metric = TEST_LOSS) -> dict[str, Estimate]:
    """Effective-size multiplier of every finished run of the law's family by name; empty without a law."""
    law = clean_law(runs, metric)
    if isinstance(law, NoLaw):
        return {}
    table = in_law(runs)
    table = table[metric.falling(table).notna()]
    return {
        name: multiplier(law, size, value)
        for name, size, value in zip(table.name, table.parameters_non_embedding, metric.falling(table), strict=True)
    }
