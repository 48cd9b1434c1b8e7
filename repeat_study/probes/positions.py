"""The early and late windows of a context for the in-context score [O22], and position bands over which losses are averaged."""

from itertools import pairwise

import numpy as np

# In [O22], the in-context score is the loss at token 500 minus the loss at token 50, in a context of 512 tokens.
EARLY, LATE, CONTEXT = 50, 500, 512
WINDOW = 0.1  # share of the context; the loss at a single position is too noisy with only a few dozen sequences
BANDS = 16


def windows(context: int) -> tuple[slice, slice]:
    """The early and late windows over which losses are averaged. The loss at position t is the loss on token t + 1.

    The windows are centered on tokens 50 and 500, or on the same fractions of a context that is shorter than 512 tokens.
    """
    length = min(context, CONTEXT)
    half = max(1, round(WINDOW * length / 2))

    def around(token: int) -> slice:
        center = min(max(round(token * length / CONTEXT) - 1, 0), context - 1)
        return slice(max(0, center - half), min(center + half, context))

    return around(EARLY), around(LATE)


def position_bands(context: int) -> list[tuple[int, int]]:
    """Divide a context into up to 16 log-spaced bands, each given by its first position and the position after its last."""
    edges = sorted({round(edge) for edge in np.geomspace(1, context + 1, BANDS + 1)})
    return [(low - 1, high - 1) for low, high in pairwise(edges)]
