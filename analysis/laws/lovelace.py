"""The law of Lovelace et al. 2026, with a penalty for overfitting [L26].

The penalty grows with the number of passes over the data and with the number of parameters per unique token.
"""

from dataclasses import replace

from analysis.laws.clean import DATA, FLOOR, SIZE
from analysis.laws.law import Constant, Constants, Law, Power
from analysis.laws.points import Floats, Points


def loss(constants: Constants, points: Points) -> Floats:
    """E + A/N^alpha + B/(U·(1 + r))^beta + P·r^delta·(N/U)^kappa.

    If only some of the data is repeated, U counts all unique tokens, and 1 + r is the mean number of passes over them.
    """
    r = points.tokens / points.unique - 1
    penalty = constants["P"] * r ** constants["delta"] * (points.params / points.unique) ** constants["kappa"]
    clean = constants["E"] + constants["A"] * points.params ** -constants["alpha"]
    return clean + constants["B"] * points.tokens ** -constants["beta"] + penalty


LAW = Law(
    "lovelace",
    "Lovelace et al.",
    "many passes over few tokens cause overfitting",
    (
        FLOOR,
        *SIZE,
        *(
            replace(constant, needs_several="tokens", default=default)
            for constant, default in zip(DATA, (0.0, 1.0), strict=True)
        ),
        Constant("P", (0.03, 0.3), 1e-9, 1e3, multiplies=(Power("tokens", "kappa", -1), Power("params", "kappa", 1))),
        Constant("delta", (0.5, 1.5), 0.01, 10.0),
        Constant("kappa", (0.3, 1.0), 1e-3, 5.0),
    ),
    loss,
)
LAWS = (LAW,)
