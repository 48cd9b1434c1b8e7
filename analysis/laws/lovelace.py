"""The law of Lovelace et al. 2026, with a penalty for overfitting [L26].

The penalty grows with the number of passes over the data and with the number of parameters per unique token.
"""

from analysis.laws.law import Constant, Constants, Law, Power
from analysis.laws.points import Floats, Points


def penalty(constants: Constants, points: Points) -> Floats:
    """P·r^delta·(N/U)^kappa.

    If only some of the data is repeated, U counts all unique tokens, and 1 + r is the mean number of passes over them.
    """
    r = points.tokens / points.unique - 1
    return constants["P"] * r ** constants["delta"] * (points.params / points.unique) ** constants["kappa"]


LAW = Law(
    "lovelace",
    "Lovelace et al.",
    "many passes over few tokens cause overfitting",
    (
        Constant(
            "P",
            (0.03, 0.3),
            1e-9,
            1e3,
            multiplies=(Power("tokens", "kappa", -1), Power("params", "kappa", 1)),
            prior=(0.1, 4.0),
        ),
        Constant("delta", (0.5, 1.5), 0.01, 10.0, prior=(0.8, 0.5)),
        Constant("kappa", (0.3,), 1e-3, 5.0, prior=(0.4, 0.7)),
    ),
    penalty,
)
LAWS = (LAW,)
