"""Linear regression as a toy model of partial repetition. Its expected loss has a closed form [C26].

`python -m analysis.toy_regression FOLDER` writes the figure and the table to FOLDER.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.figures.axes import log_label
from analysis.figures.panels import grid_of_axes
from analysis.figures.plot import Plot
from analysis.figures.style import colors

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Toy:
    """Noiseless regression of y = x·beta on the first `seen` of the `inputs` coordinates of x ~ N(0, I).

    Of the `rows` training rows, a share `fraction` comes from a repeated pool; the other rows are seen once. The unseen coordinates
    act as noise that is the same in every copy of a row. Every coordinate of beta is 1/sqrt(inputs).
    """

    inputs: int
    seen: int
    rows: int
    fraction: float

    def pool_rows(self, repeats: int) -> int:
        """Number of distinct rows in the pool, f·rows/R. Raises ValueError if it is not an integer."""
        pool, rest = divmod(round(self.fraction * self.rows), repeats)
        if rest:
            raise ValueError(f"{self.fraction:g} of {self.rows} rows cannot be split into {repeats} copies of a pool")
        return pool

    @property
    def unseen_variance(self) -> float:
        """|beta_out|², the variance that the unseen coordinates add to y."""
        return (self.inputs - self.seen) / self.inputs

    def training_inputs(self, repeats: int, seed: int) -> tuple[Floats, Floats]:
        """The inputs of the rows seen once, shape [(1-f)·rows, inputs], and of the pool, shape [f·rows/R, inputs].

        The rows seen once are the same for every R. The pool for a larger R is a prefix of the pool for a smaller R.
        """
        once = self.rows - round(self.fraction * self.rows)
        unique = np.random.default_rng([seed, 0]).standard_normal((once, self.inputs))
        return unique, np.random.default_rng([seed, 1]).standard_normal((self.pool_rows(repeats), self.inputs))

    def expected_loss(self, repeats: int, seed: int) -> float:
        """Expected test loss for the given training inputs, averaged over their unseen coordinates.

        It is |beta_out|²·(1 + tr(A⁻¹·B·A⁻¹)) with A = C_u + R·C_d and B = C_u + R²·C_d, where C_u and C_d are the Gram matrices of the
        rows seen once and of the pool [C26].
        """
        unique, pool = (rows[:, : self.seen] for rows in self.training_inputs(repeats, seed))
        gram_unique, gram_pool = unique.T @ unique, pool.T @ pool
        inverse = np.linalg.inv(gram_unique + repeats * gram_pool)
        product = inverse @ (gram_unique + repeats**2 * gram_pool) @ inverse
        return float(self.unseen_variance * (1 + np.trace(product)))

    def simulated_loss(self, repeats: int, seed: int, samples: int) -> Floats:
        """Test loss of least squares on all rows, including copies, for random unseen coordinates; shape [samples]."""
        unique, pool = (rows[:, : self.seen] for rows in self.training_inputs(repeats, seed))
        rows = np.concatenate([unique, *[pool] * repeats])
        random = np.random.default_rng([seed, 2])
        beta = np.full(self.inputs, self.inputs**-0.5)
        beta_in, beta_out = beta[: self.seen], beta[self.seen :]
        unseen = [random.standard_normal((samples, len(kind), len(beta_out))) @ beta_out for kind in (unique, pool)]
        noise = np.concatenate([unseen[0], *[unseen[1]] * repeats], axis=1)
        fitted = np.linalg.lstsq(rows, (rows @ beta_in + noise).T, rcond=None)[0]
        return ((fitted.T - beta_in) ** 2).sum(axis=1) + self.unseen_variance


TOY = Toy(inputs=200, seen=100, rows=960, fraction=0.5)
REPEATS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 96, 240, 480)


def study(toy: Toy = TOY, repeats: tuple[int, ...] = REPEATS, seeds: int = 8, samples: int = 40) -> pd.DataFrame:
    """Mean test loss over seeds for every R. `expected` comes from the closed form, and `simulated` from least squares.

    `error` is the standard error of the simulated loss, and `error_given_inputs` is its standard error for fixed inputs.
    """
    rows = []
    for value in repeats:
        expected = [toy.expected_loss(value, seed) for seed in range(seeds)]
        simulated = np.array([toy.simulated_loss(value, seed, samples) for seed in range(seeds)])
        rows.append(
            {
                "repeats": value,
                "pool_rows": toy.pool_rows(value),
                "expected": np.mean(expected),
                "simulated": simulated.mean(),
                "error": simulated.mean(axis=1).std(ddof=1) / seeds**0.5 if seeds > 1 else float("nan"),
                "error_given_inputs": (simulated.std(axis=1, ddof=1) / samples**0.5).mean() / seeds**0.5,
            }
        )
    return pd.DataFrame(rows)


def plot(table: pd.DataFrame, toy: Toy = TOY) -> Plot:
    """Plot the closed form as a line and the simulations as points."""
    figure, axes = grid_of_axes(1, 1, height=3.2)
    ax, shade = axes[0][0], colors([0, 1])
    ax.plot(table.repeats, table.expected, color=shade[0], label="closed form")
    bars = 1.96 * table.error_given_inputs
    ax.errorbar(
        table.repeats,
        table.simulated,
        yerr=bars,
        fmt="o",
        color=shade[1],
        markersize=4,
        capsize=2,
        label="least squares",
    )
    ax.axhline(toy.unseen_variance, color="gray", linewidth=0.8, linestyle=":", label="lowest possible loss")
    ax.set(xscale="log", xlabel=log_label("repeats R of the pool"), ylabel="expected test loss")
    ax.legend(fontsize=8)
    return Plot(
        "toy_regression",
        "The worst number of repeats in a linear regression",
        f"Least squares on {toy.rows} rows with {toy.seen} of {toy.inputs} inputs; {toy.fraction:.0%} of the rows come from a repeated"
        " pool. The unused inputs act as noise that is the same in every copy of a row. The more often the pool is repeated, the more"
        " closely the regression fits its noise, but a small pool affects only a few dimensions. Bars: 95% intervals of the simulation"
        " for fixed inputs. After Chudnovsky et al. 2026.",
        figure,
        table,
    )


if __name__ == "__main__":
    losses = study()
    worst = losses.loc[losses.expected.idxmax()]
    print(losses.round(4).to_string(index=False))
    print(f"worst R: {worst.repeats:.0f} (closed form), {losses.repeats[losses.simulated.idxmax()]:.0f} (simulation)")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    folder.mkdir(parents=True, exist_ok=True)
    plot(losses).save(folder)
