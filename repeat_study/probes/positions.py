"""Places in a context: what is early and late in it [O22], and the bands over which its losses are averaged; no torch."""

from itertools import pairwise

import numpy as np

EARLY, LATE, OF = 50, 500, 512  # tokens; the score is the loss at the one minus the loss at the other [O22]
WINDOW = 0.1  # of the context: one position of some dozens of sequences is all noise, so losses around it are averaged
BANDS = 16


def windows(context: int) -> tuple[slice, slice]:
    """Positions whose losses are averaged for `early` and `late`: around the tokens 50 and 500, or, in a context
    shorter than 512, around the same shares of it. Position t is the loss of token t + 1."""
    length = min(context, OF)
    half = max(1, round(WINDOW * length / 2))

    def around(token: int) -> slice:
        centre = min(max(round(token * length / OF) - 1, 0), context - 1)
        return slice(max(0, centre - half), min(centre + half, context))

    return around(EARLY), around(LATE)


def position_bands(context: int) -> list[tuple[int, int]]:
    """At most 16 log-spaced bands of positions, first and one past the last of each, which cover the context."""
    edges = sorted({round(edge) for edge in np.geomspace(1, context + 1, BANDS + 1)})
    return [(low - 1, high - 1) for low, high in pairwise(edges)]
