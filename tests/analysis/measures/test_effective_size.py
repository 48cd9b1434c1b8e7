"""The effective size of a run."""

import numpy as np
import pytest

from analysis.intervals import Bound
from analysis.measures.clean_law import fit_power_law
from analysis.measures.effective_size import multiplier


def test_the_multiplier_is_never_extrapolated() -> None:
    sizes = np.geomspace(1e5, 1e8, 7)
    law = fit_power_law(sizes, 1.7 + 400 * sizes**-0.34)
    half = multiplier(law, 1e7, float(law.loss(5e6)))
    assert half.bound is Bound.EXACT and half.value == pytest.approx(0.5, rel=0.01)
    worse, better = multiplier(law, 1e7, 20.0), multiplier(law, 1e7, 1.0)
    assert (worse.bound, worse.value) == (Bound.AT_MOST, pytest.approx(0.01))
    assert (better.bound, better.value) == (Bound.AT_LEAST, pytest.approx(10))
