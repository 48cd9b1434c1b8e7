"""Our law with constants from several laboratories, for plans without runs of their own.

`python -m analysis.laws.compare` computes the numbers below from tables of runs (results/LOG.md lists the tables). Widths are measured by
leaving out one laboratory at a time.
"""

from functools import lru_cache
from itertools import zip_longest

import numpy as np

from analysis.laws.estimate import Problem
from analysis.laws.fit import Spread, SubsetFit
from analysis.laws.law import Domain
from analysis.laws.partial import LAW
from analysis.laws.points import Points

SOURCE = (
    "the constants were fitted to 467 repeated runs of four laboratories, and to numbers that Hernandez et al. and Chudnovsky et al."
    " published"
)
INTERVAL_HOLDS = "were widened until they contained 95% of the runs of held-out laboratories"
# In the order of the law's constants; see `estimate.Problem`.
THETA = (-1.171, 0.5629, -0.281, 1.375, -0.3641, 0.6873, 7.473, -0.5402, -0.08204, 0.3248)
COVARIANCE = (
    (0.003881, -8.29e-05, -5.84e-05, 8.121e-05, -0.0003781, 0.0001468, 0.001338, -0.0001586, -0.0004613, 0.0005143),
    (-8.29e-05, 0.02299, -0.004602, 0.00483, 0.01302, 0.004372, 0.01871, -0.003297, -9.072e-05, 0.00293),
    (-5.84e-05, -0.004602, 0.001879, -0.001714, 0.001277, 0.0002357, -0.003024, 0.001334, 3.05e-05, -0.0009008),
    (8.121e-05, 0.00483, -0.001714, 0.005522, 0.000689, 0.0005707, 0.00427, -0.001043, -0.0001351, 0.002301),
    (-0.0003781, 0.01302, 0.001277, 0.000689, 0.03686, 0.009772, 0.02147, 0.0008056, 1.959e-05, -6.383e-05),
    (0.0001468, 0.004372, 0.0002357, 0.0005707, 0.009772, 0.004055, 0.002504, 0.0003704, 0.0002199, -0.001309),
    (0.001338, 0.01871, -0.003024, 0.00427, 0.02147, 0.002504, 0.04571, -0.003482, -0.003749, 0.006488),
    (-0.0001586, -0.003297, 0.001334, -0.001043, 0.0008056, 0.0003704, -0.003482, 0.001457, -1.48e-05, -0.001415),
    (-0.0004613, -9.072e-05, 3.05e-05, -0.0001351, 1.959e-05, 0.0002199, -0.003749, -1.48e-05, 0.00109, -0.001162),
    (0.0005143, 0.00293, -0.0009008, 0.002301, -6.383e-05, -0.001309, 0.006488, -0.001415, -0.001162, 0.008712),
)
REFERENCE = {"params": 11925932.0, "tokens": 720404560.0, "fraction": 0.3}
SPREAD = Spread(noise=0.06384928808793876, relative=0.5018817289710074, widths={"laboratory": 5.708006314213201})
# Values of the runs in the fit, rounded.
TRIED = {
    "params": (
        6144.0,
        6311.0,
        25590.0,
        103800.0,
        147300.0,
        209000.0,
        1707000.0,
        4877000.0,
        9821000.0,
        13940000.0,
        39820000.0,
        56510000.0,
        80200000.0,
        113800000.0,
        161500000.0,
        229200000.0,
        325200000.0,
        461500000.0,
        654900000.0,
        929400000.0,
        1319000000.0,
        1871000000.0,
        2656000000.0,
        3769000000.0,
        7589000000.0,
        8670000000.0,
    ),
    "tokens": (
        1536000.0,
        1707000.0,
        6921000.0,
        461500000.0,
        654900000.0,
        929400000.0,
        1319000000.0,
        1871000000.0,
        2656000000.0,
        3769000000.0,
        5348000000.0,
        7589000000.0,
        10770000000.0,
        15280000000.0,
        21690000000.0,
        30780000000.0,
        43670000000.0,
        61980000000.0,
        87950000000.0,
        177100000000.0,
        178000000000.0,
    ),
    "fraction": (
        5e-06,
        6.79e-06,
        9.636e-06,
        1.367e-05,
        1.94e-05,
        2.754e-05,
        5.545e-05,
        7.869e-05,
        0.0001117,
        0.0001585,
        0.0002249,
        0.0003191,
        0.0004528,
        0.0006426,
        0.0009119,
        0.001836,
        0.002606,
        0.005248,
        0.007447,
        0.01057,
        0.015,
        0.02128,
        0.0302,
        0.04285,
        0.06081,
        0.08629,
        0.1738,
        0.2466,
        0.4966,
        0.7047,
        1.0,
    ),
    "repeats": (
        1.8,
        2.014,
        2.858,
        4.055,
        5.755,
        8.166,
        11.59,
        16.44,
        23.34,
        33.12,
        46.99,
        66.69,
        94.63,
        134.3,
        190.6,
        270.4,
        383.8,
        544.6,
        772.8,
        1097.0,
        2208.0,
        3134.0,
        4096.0,
    ),
}
RUNS = 595
DOMAIN = Domain(*((values[0], values[-1]) for values in TRIED.values()))


@lru_cache
def law() -> SubsetFit:
    """The fitted law."""
    # Only the tried values of each quantity matter for predictions, so they need not belong to the same runs.
    rows = np.array(list(zip_longest(*TRIED.values()))).T
    params, tokens, fraction, repeats = (
        np.array([values[0] if value is None else value for value in values], float) for values in rows
    )
    unknown = np.full(len(params), np.nan)
    points = Points(params, tokens, fraction, repeats, unknown, unknown)
    problem = Problem(LAW, points, LAW.constants, {}, REFERENCE)
    used = np.ones(len(points), bool)
    return SubsetFit(problem, used, np.array(THETA), np.array(COVARIANCE), SPREAD, 0.0)
