"""Fits of the clean scaling law recover known constants."""

import numpy as np
import pytest

from analysis.measures.clean_law import fit_power_law


@pytest.mark.parametrize(("floor", "coefficient", "exponent"), [(1.7, 400.0, 0.34), (0.8, 12.0, 0.1), (2.5, 4e4, 0.7)])
def test_the_fit_recovers_a_known_law(floor: float, coefficient: float, exponent: float) -> None:
    sizes = np.geomspace(1e5, 1e9, 7)
    law = fit_power_law(sizes, floor + coefficient * sizes**-exponent)
    assert law.irreducible == pytest.approx(floor, rel=0.02)
    assert law.exponent == pytest.approx(exponent, rel=0.02)
    assert law.residual < 1e-3 and law.points == 7
    assert law.size(float(law.loss(3e6))) == pytest.approx(3e6, rel=1e-6)


def test_one_outlier_hardly_moves_the_fit() -> None:
    sizes = np.geomspace(1e5, 1e9, 9)
    losses = 1.7 + 400 * sizes**-0.34
    losses[4] += 0.5
    assert fit_power_law(sizes, losses).exponent == pytest.approx(0.34, rel=0.1)


def test_fewer_sizes_than_parameters_are_rejected() -> None:
    with pytest.raises(ValueError, match="clean runs of at least 3 sizes, found 2"):
        fit_power_law([1e5, 1e6, 1e6], [4.0, 3.0, 3.1])
