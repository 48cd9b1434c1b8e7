"""C26's exact toy model of partial repetition: linear regression whose loss has a worst number of repeats in closed form.

`python -m analysis.toy_regression FOLDER` writes its figure and table.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.figures.panels import grid_of_axes
from analysis.figures.plot import Plot
from analysis.figures.style import colours

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Toy:
    """x ~ N(0, I_p), y = x·beta without noise; the learner sees the first `seen` of `inputs` coordinates.

    Of `rows` training rows the share `fraction` comes from a pool that is seen `repeats` times; the others are seen once. What the
    learner does not see acts as noise, the same for every copy of a row. Each coordinate of beta is 1/sqrt(inputs).
    """

    inputs: int
    seen: int
    rows: int
    fraction: float

    def pool_rows(self, repeats: int) -> int:
        """d = f·rows/R, which has to be whole."""
        pool, rest = divmod(round(self.fraction * self.rows), repeats)
        if rest:
            raise ValueError(f"{self.fraction:g} of {self.rows} rows are no whole pool seen {repeats} times")
        return pool

    @property
    def unseen_variance(self) -> float:
        """|beta_out|²."""
        return (self.inputs - self.seen) / self.inputs

    def draw(self, repeats: int, seed: int) -> tuple[Floats, Floats]:
        """Inputs of the rows seen once, [(1-f)·rows, inputs], the same for every R, and of the pool, [d, inputs], a prefix of the
        pool of a smaller R."""
        once = self.rows - round(self.fraction * self.rows)
        unique = np.random.default_rng([seed, 0]).standard_normal((once, self.inputs))
        return unique, np.random.default_rng([seed, 1]).standard_normal((self.pool_rows(repeats), self.inputs))

    def expected_loss(self, repeats: int, seed: int) -> float:
        """Test loss given the seen inputs, over what is not seen: |beta_out|²·(1 + tr(A⁻¹·B·A⁻¹)), A = C_u + R·C_d,
        B = C_u + R²·C_d with the Gram matrices of both kinds of rows [C26]."""
        unique, pool = (rows[:, : self.seen] for rows in self.draw(repeats, seed))
        gram_unique, gram_pool = unique.T @ unique, pool.T @ pool
        inverse = np.linalg.inv(gram_unique + repeats * gram_pool)
        spread = inverse @ (gram_unique + repeats**2 * gram_pool) @ inverse
        return float(self.unseen_variance * (1 + np.trace(spread)))

    def simulated_loss(self, repeats: int, seed: int, draws: int) -> Floats:
        """Test loss of least squares on all rows, copies and all, for `draws` draws of what is not seen; shape [draws]."""
        unique, pool = (rows[:, : self.seen] for rows in self.draw(repeats, seed))
        rows = np.concatenate([unique, *[pool] * repeats])
        random = np.random.default_rng([seed, 2])
        beta = np.full(self.inputs, self.inputs**-0.5)
        beta_in, beta_out = beta[: self.seen], beta[self.seen :]
        unseen = [random.standard_normal((draws, len(kind), len(beta_out))) @ beta_out for kind in (unique, pool)]
        noise = np.concatenate([unseen[0], *[unseen[1]] * repeats], axis=1)
        found = np.linalg.lstsq(rows, (rows @ beta_in + noise).T, rcond=None)[0]
        return ((found.T - beta_in) ** 2).sum(axis=1) + self.unseen_variance


TOY = Toy(inputs=200, seen=100, rows=960, fraction=0.5)
REPEATS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 96, 240, 480)


def study(toy: Toy = TOY, repeats: tuple[int, ...] = REPEATS, seeds: int = 8, draws: int = 40) -> pd.DataFrame:
    """Mean test loss over the seeds for every R: `expected` in closed form, `simulated` with its standard error."""
    rows = []
    for value in repeats:
        expected = [toy.expected_loss(value, seed) for seed in range(seeds)]
        simulated = np.array([toy.simulated_loss(value, seed, draws) for seed in range(seeds)])
        rows.append(
            {
                "repeats": value,
                "pool_rows": toy.pool_rows(value),
                "expected": np.mean(expected),
                "simulated": simulated.mean(),
                "error": simulated.mean(axis=1).std(ddof=1) / seeds**0.5 if seeds > 1 else float("nan"),
                "error_given_inputs": (simulated.std(axis=1, ddof=1) / draws**0.5).mean() / seeds**0.5,
            }
        )
    return pd.DataFrame(rows)


def draw(table: pd.DataFrame, toy: Toy = TOY) -> Plot:
    """Closed form as a line, simulation as points."""
    figure, axes = grid_of_axes(1, 1, height=3.2)
    ax, shade = axes[0][0], colours([0, 1])
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
    ax.axhline(toy.unseen_variance, color="grey", linewidth=0.8, linestyle=":", label="the best that can be")
    ax.set(xscale="log", xlabel="repeats R of the pool", ylabel="expected test loss")
    ax.legend(fontsize=8)
    return Plot(
        "toy_regression",
        "The worst number of repeats in a linear regression",
        f"Least squares on {toy.rows} rows, {toy.fraction:.0%} of them copies of a pool, that sees {toy.seen} of {toy.inputs} inputs."
        " What it does not see is noise that comes again with every copy: a pool seen often is fitted with its noise, unless it is"
        " so small that this takes few of the dimensions. Bars: 95% of the simulation, given the inputs (Chudnovsky et al. 2026).",
        figure,
        table,
    )


if __name__ == "__main__":
    found = study()
    worst = found.loc[found.expected.idxmax()]
    print(found.round(4).to_string(index=False))
    print(f"worst R: {worst.repeats:.0f} in closed form, {found.repeats[found.simulated.idxmax()]:.0f} simulated")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    folder.mkdir(parents=True, exist_ok=True)
    draw(found).save(folder)
