"""Positions in a context: early and late windows [O22], and the bands that losses are averaged over. Needs no torch."""

from itertools import pairwise

import numpy as np

EARLY, LATE, OF = 50, 500, 512  # the in-context score is loss at token 500 minus loss at token 50 of 512 [O22]
WINDOW = 0.1  # of the context: with a few dozen sequences, the loss at a single position is too noisy
BANDS = 16


def windows(context: int) -> tuple[slice, slice]:
    """The early and the late positions whose losses are averaged; position t holds the loss of token t + 1.

    They surround tokens 50 and 500, or the same fractions of a context shorter than 512.
    """
    length = min(context, OF)
    half = max(1, round(WINDOW * length / 2))

    def around(token: int) -> slice:
        center = min(max(round(token * length / OF) - 1, 0), context - 1)
        return slice(max(0, center - half), min(center + half, context))

    return around(EARLY), around(LATE)


def position_bands(context: int) -> list[tuple[int, int]]:
    """At most 16 log-spaced bands that cover the context: the first position of each, and one past its last."""
    edges = sorted({round(edge) for edge in np.geomspace(1, context + 1, BANDS + 1)})
    return [(low - 1, high - 1) for low, high in pairwise(edges)]
