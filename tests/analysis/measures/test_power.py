"""What a grid can detect follows from the spread of finished runs, and simulated studies agree with it."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from written_runs import write_run

from analysis.intervals import t_half_width, t_quantile
from analysis.measures.power import (
    POWER,
    degrees_of_freedom,
    detectable_in_sd,
    paired_seeds,
    pooled_spread,
    sensitivities,
    spreads_of_arms,
)
from analysis.runs import load_runs
from data_prep.token_store import TokenStore
from repeat_study.config.corpora import StudyTexts
from repeat_study.config.run import Run
from repeat_study.config.study import Study

EXCESSES = {4: (0.1, 0.2, 0.3), 16: (0.1, 0.1, 0.4)}  # variances over seeds 0.01 and 0.03, in nats
OF_SEQUENCES = (-0.2, 0.0, 0.2)  # variance over test sequences 0.04


def arms_of(variances: list[float], pairs: int, model: str = "1x16", fraction: float = 0.5) -> pd.DataFrame:
    """Finished arms that share their clean runs."""
    columns = {"model": model, "repeated_fraction": fraction, "fixed_pool": 0, "of_sequences": math.nan}
    return pd.DataFrame({"variance": variances, "pairs": pairs}).assign(**columns)


@pytest.fixture(scope="module")
def folder(study: Study, store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two arms in three seeds. Seeds differ by nats, and an arm's excess differs between test sequences."""
    folder, template = tmp_path_factory.mktemp("runs"), study.runs(StudyTexts(store.fingerprint))[0]
    for seed in range(3):
        level = 3.0 + seed
        write_run(folder, template, store, [9.0, level], repeats=1, seed=seed, of_test=[[9.0] * 3, [level] * 3])
        for repeats, excesses in EXCESSES.items():
            loss = level + excesses[seed]
            of_test = [[9.0] * 3, [loss + deviation for deviation in OF_SEQUENCES]]
            fields = {"repeats": repeats, "repeated_fraction": 0.5, "seed": seed}
            write_run(folder, template, store, [9.0, loss], of_test=of_test, **fields)
    return folder


def planned(study: Study, **grid: object) -> list[Run]:
    """The runs of `study` with another grid, on a token store that is not built yet."""
    values = {"model": "1x16", "repeats": [1, 4], "repeated_fraction": 0.5, **grid}
    return Study.model_validate(study.model_dump() | {"data": study.data, "grid": [values]}).runs()


def test_a_small_case_computed_by_hand(study: Study, folder: Path) -> None:
    arms = spreads_of_arms(load_runs(folder))
    assert arms.variance.tolist() == pytest.approx([0.01, 0.03]) and arms.pairs.tolist() == [3, 3]
    (row,) = sensitivities(planned(study, seed=[0, 1, 2]), arms)
    spread = row.spread
    assert (spread.pairs, spread.arms, spread.scope) == (6, 2, "1x16, f = 50%")
    assert spread.degrees == pytest.approx(4 / 1.25), "two degrees per arm, whose variances have a correlation of 1/4"
    assert spread.sd == pytest.approx(0.02**0.5) and spread.low < spread.sd < spread.high
    assert (row.model, row.fraction, row.seeds) == ("1x16", 0.5, 3)
    assert row.half_width == pytest.approx(4.302653 * 0.02**0.5 / 3**0.5)
    assert row.test_sequences == 16 and row.test_error == pytest.approx(2.131450 * 0.2 / 16**0.5)
    assert row.detectable > row.half_width


def test_more_seeds_detect_smaller_differences_and_one_seed_detects_none(study: Study, folder: Path) -> None:
    arms = spreads_of_arms(load_runs(folder))
    single, three, five = sensitivities(planned(study), arms)
    assert [row.seeds for row in (single, three, five)] == [1, 3, 5]
    assert math.isnan(single.half_width) and math.isnan(single.detectable)
    assert five.half_width < three.half_width and five.detectable < three.detectable


def test_only_seeds_with_a_clean_run_count(study: Study) -> None:
    both = planned(study, seed=[0, 1], spacing=["passes", "uniform"], pool_seed=[0, 1])
    assert paired_seeds(both) == {("1x16", 0.5): {2}}, "clean runs serve every order of copies and every pool"
    without = [run for run in both if not (run.is_clean_control and run.seed == 1)]
    assert paired_seeds(without) == {("1x16", 0.5): {1}}
    decayed = [run for run in planned(study, weight_decay=0.5) if not run.is_clean_control]
    assert paired_seeds([*decayed, *planned(study, repeats=1)]) == {}, "their clean runs have another weight decay"


def test_the_most_similar_arms_with_enough_degrees_of_freedom_are_pooled() -> None:
    arms = pd.concat(
        [arms_of([1.0], 5), arms_of([4.0], 3, fraction=0.25), arms_of([9.0], 3, "2x16")], ignore_index=True
    )
    scopes = {
        ("1x16", 0.5): ("1x16, f = 50%", 1.0),
        ("1x16", 0.25): ("1x16", (4 * 1 + 2 * 4) / 6),  # two degrees of freedom are too few
        ("1x16", None): ("1x16", (4 * 1 + 2 * 4) / 6),
        ("2x16", 0.5): ("all sizes", (4 * 1 + 2 * 4 + 2 * 9) / 8),
        ("4x16", 0.5): ("all sizes", (4 * 1 + 2 * 4 + 2 * 9) / 8),
    }
    for (model, fraction), (scope, variance) in scopes.items():
        spread = pooled_spread(arms, model, fraction)
        assert spread.scope == scope and spread.sd == pytest.approx(variance**0.5)


def test_unfinished_runs_and_single_seeds_have_no_spread(
    runs: list[Run], store: TokenStore, folder: Path, tmp_path: Path
) -> None:
    for repeats, fraction in ((1, 0.0), (4, 0.5)):
        name = write_run(tmp_path, runs[0], store, [9.0, 3.0], repeats=repeats, repeated_fraction=fraction)
    assert spreads_of_arms(load_runs(tmp_path)).empty
    for path in tmp_path.glob("*/done.json"):
        path.unlink()
    assert spreads_of_arms(load_runs(tmp_path, [name])).empty


@pytest.mark.parametrize(("arms", "pilot_seeds", "seeds"), [(1, 3, 3), (3, 5, 3), (6, 2, 5)])
def test_simulated_studies_have_the_stated_interval_and_power(arms: int, pilot_seeds: int, seeds: int) -> None:
    """Every draw estimates the sd from arms that share clean runs, and then makes one new arm with the excess that is detectable."""
    rng, draws, sd = np.random.default_rng(0), 10_000, 2.0
    clean = rng.normal(0, sd / 2**0.5, (draws, 1, pilot_seeds))
    excess = rng.normal(0, sd / 2**0.5, (draws, arms, pilot_seeds)) - clean
    variances = excess.var(axis=2, ddof=1).mean(axis=1)
    degrees = degrees_of_freedom(arms_of([1.0] * arms, pilot_seeds))
    assert variances.var() / sd**4 == pytest.approx(2 / degrees, rel=0.1)
    new = rng.normal(0, sd, (draws, seeds))
    half_widths = t_quantile(seeds - 1) * new.std(axis=1, ddof=1) / seeds**0.5
    assert half_widths[0] == pytest.approx(t_half_width(new[0])), "the interval of the report"
    assert (abs(new.mean(axis=1)) < half_widths).mean() == pytest.approx(0.95, abs=0.01)
    stated = t_quantile(seeds - 1) * variances**0.5 / seeds**0.5
    assert (stated**2).mean() == pytest.approx((half_widths**2).mean(), rel=0.05)
    detectable = detectable_in_sd(seeds, degrees) * variances**0.5
    power = (new.mean(axis=1) + detectable > half_widths).mean()
    # Satterthwaite's distribution has a longer lower tail than the true one, so with many arms and few seeds, the power is 0.83.
    assert POWER - 0.02 < power < POWER + (0.02 if arms == 1 else 0.04)


def test_with_a_known_sd_the_detectable_difference_has_the_power_of_a_t_test() -> None:
    from scipy.stats import nct

    for seeds in (2, 3, 5, 20):
        difference = detectable_in_sd(seeds, 1e6)
        power = nct.sf(t_quantile(seeds - 1), seeds - 1, difference * seeds**0.5)
        assert power == pytest.approx(POWER, abs=0.003)
