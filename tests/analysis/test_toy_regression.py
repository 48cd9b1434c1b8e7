"""The simulated toy regression agrees with the closed form of its loss."""

import numpy as np
import pytest

from analysis.toy_regression import TOY, Toy, study

SMALL = Toy(inputs=60, seen=30, rows=240, fraction=0.5)


def test_the_closed_form_is_the_mean_loss_of_least_squares() -> None:
    losses = study(SMALL, repeats=(1, 4, 12, 60), seeds=3, samples=200)
    deviation = (losses.simulated - losses.expected) / losses.error_given_inputs
    assert (deviation.abs() < 4).all(), losses
    assert (losses.error_given_inputs < 0.02 * losses.expected).all()


def test_the_worst_number_of_repeats_is_interior() -> None:
    repeats = (1, 2, 4, 8, 12, 16, 24, 48, 96, 480)
    losses = [np.mean([TOY.expected_loss(value, seed) for seed in range(4)]) for value in repeats]
    worst = int(np.argmax(losses))
    assert repeats[worst] in (8, 12, 16)
    assert losses[worst] > losses[0] + 0.1 and losses[worst] > losses[-1] + 0.05


def test_the_pool_of_more_repeats_is_a_prefix_of_the_pool_of_fewer() -> None:
    unique, large = SMALL.training_inputs(4, 0)
    same, small = SMALL.training_inputs(12, 0)
    assert (unique == same).all() and (large[: len(small)] == small).all()
    with pytest.raises(ValueError, match="cannot be split into 7 copies of a pool"):
        SMALL.pool_rows(7)
