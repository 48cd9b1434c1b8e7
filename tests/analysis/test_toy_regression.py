"""The toy of repeated data, whose loss is known exactly."""

import numpy as np
import pytest

from analysis.toy_regression import TOY, Toy, study

SMALL = Toy(inputs=60, seen=30, rows=240, fraction=0.5)


def test_the_closed_form_is_what_least_squares_does() -> None:
    found = study(SMALL, repeats=(1, 4, 12, 60), seeds=3, samples=200)
    off = (found.simulated - found.expected) / found.error_given_inputs
    assert (off.abs() < 4).all(), found
    assert (found.error_given_inputs < 0.02 * found.expected).all()


def test_the_worst_number_of_repeats_is_inside() -> None:
    repeats = (1, 2, 4, 8, 12, 16, 24, 48, 96, 480)
    losses = [np.mean([TOY.expected_loss(value, seed) for seed in range(4)]) for value in repeats]
    worst = int(np.argmax(losses))
    assert repeats[worst] in (8, 12, 16)
    assert losses[worst] > losses[0] + 0.1 and losses[worst] > losses[-1] + 0.05


def test_a_pool_is_part_of_the_pool_for_fewer_repeats() -> None:
    unique, large = SMALL.training_inputs(4, 0)
    same, small = SMALL.training_inputs(12, 0)
    assert (unique == same).all() and (large[: len(small)] == small).all()
    with pytest.raises(ValueError, match="cannot form a pool that is seen 7 times"):
        SMALL.pool_rows(7)
