"""Render tokens.html, which compares clean and repeated runs on the copied paragraph, token by token [H22, figs. 8-9]."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from analysis.figures.panels import Arms, arms
from analysis.report.html import COLOR_STEPS, color_scale, render_template
from analysis.runs import Runs

DROPS = 12  # tokens in the list of largest drops
MOST_SEEDS = 4
CONTEXT = 6  # tokens before a listed token
SYMBOLS = {code: chr(0x2400 + code) for code in range(32)} | {9: "⇥", 10: "⏎", 127: "␡"}  # for control characters


@dataclass(frozen=True)
class Comparison:
    """A clean run and the repeated runs with the same seed, at one fraction.

    clean, repeated: one row per token of every copy, with the columns `copy`, `token`, `loss` in nats and `probability`.
    """

    seed: int
    clean: pd.DataFrame
    repeated: dict[int, pd.DataFrame]  # by R, highest copying loss first


@dataclass(frozen=True)
class Token:
    """A token with its background color, given as a step of the color scale."""

    text: Markup
    color: int
    probability: float
    loss: float


@dataclass(frozen=True)
class Drop:
    """A token that the repeated run predicts less well than the clean one."""

    before: Markup
    text: Markup
    copy: int
    clean: float
    repeated: float


@dataclass(frozen=True)
class RepeatedText:
    """The colored text of one repeated run."""

    repeats: int
    copies: list[tuple[int, list[Token]]]
    drops: list[Drop]


@dataclass(frozen=True)
class Block:
    """The colored texts for one model, fraction and seed, under one heading."""

    variant: str  # empty unless this is the first block of a named variant
    title: str
    clean: list[tuple[int, list[Token]]]
    repeated: list[RepeatedText]


def page(title: str, variants: list[tuple[str, Runs]]) -> str | None:
    """Render the page for a study's named variants. Returns None if no clean run can be compared with a repeated one."""
    blocks = [block for name, runs in variants for block in _blocks(name, runs)]
    thresholds = [(step / COLOR_STEPS) ** 2 for step in range(COLOR_STEPS)]
    return (
        render_template("tokens.html.j2", title=title, blocks=blocks, scale=color_scale(), thresholds=thresholds)
        if blocks
        else None
    )


def comparisons(panel: Arms, runs: Runs) -> list[Comparison]:
    """The comparisons for one panel, for up to MOST_SEEDS seeds that have both a clean and a repeated run."""
    result: list[Comparison] = []
    for seed, of_seed in panel.runs.sort_values(["seed", "pool_seed"]).groupby("seed"):
        clean, repeated = of_seed[of_seed.repeats == 1], of_seed[of_seed.repeats > 1].drop_duplicates("repeats")
        if len(clean) and len(repeated) and len(result) < MOST_SEEDS:
            worst_first = repeated.sort_values("final_copying_loss", ascending=False)
            by_repeats = {int(run.repeats): _last(runs, run.name) for run in worst_first.itertuples()}
            result.append(Comparison(int(seed), _last(runs, clean.name.iloc[0]), by_repeats))
    return result


def drops(clean: pd.DataFrame, repeated: pd.DataFrame) -> pd.DataFrame:
    """The tokens in the second and later copies whose probability drops most from the clean to the repeated run.

    Index: position in the sequence. Columns: `copy`, `token`, `clean` and `repeated` (probabilities). Largest drop first.
    """
    both = clean[["copy", "token"]].assign(clean=clean.probability, repeated=repeated.probability)
    both = both[both["copy"] > 1]
    drop = both.clean - both.repeated
    return both.loc[drop[drop > 0].sort_values(ascending=False, kind="stable").index[:DROPS]]


@cache  # the same few hundred tokens occur in hundreds of runs
def visible(token: str) -> Markup:
    """A token as HTML: escaped, with spaces and control characters made visible."""
    return Markup("").join(map(_character, token))


def _character(character: str) -> Markup:
    if character == " ":
        return Markup("<i> </i>")
    symbol = SYMBOLS.get(ord(character))
    return Markup("<u>{}</u>").format(symbol) if symbol else escape(character)


def _last(runs: Runs, name: str) -> pd.DataFrame:
    table = runs.last_table(name, "paragraph")
    return table.assign(probability=np.exp(-table.loss))


def _blocks(variant: str, runs: Runs) -> Iterator[Block]:
    done = runs.done
    done = done[[(runs.folder / name / "paragraph.parquet").is_file() for name in done.name]]
    if done.empty or not (done.repeats > 1).any():
        return
    for panel in arms(done):
        panel_comparisons = comparisons(panel, runs)
        for comparison in panel_comparisons:
            seed = f", seed {comparison.seed}" if len(panel_comparisons) > 1 else ""
            repeated = [
                RepeatedText(repeats, _copies(table), _drops(comparison.clean, table))
                for repeats, table in comparison.repeated.items()
            ]
            yield Block(variant, panel.title + seed, _copies(comparison.clean), repeated)
            variant = ""


def _copies(table: pd.DataFrame) -> list[tuple[int, list[Token]]]:
    """The number of each copy, from 1, and its tokens."""
    probabilities = table.probability.to_numpy()
    color = np.minimum((np.sqrt(probabilities) * COLOR_STEPS).astype(int), COLOR_STEPS - 1)
    columns = (color.tolist(), probabilities.tolist(), table.loss.to_list(), table.token.to_list())
    tokens = [
        Token(visible(token), step, probability, loss) for step, probability, loss, token in zip(*columns, strict=True)
    ]
    return [(number, [tokens[index] for index in indices]) for number, indices in table.groupby("copy").indices.items()]


def _drops(clean: pd.DataFrame, repeated: pd.DataFrame) -> list[Drop]:
    tokens, largest = clean.token.to_list(), drops(clean, repeated)
    return [
        Drop(
            Markup("").join(map(visible, tokens[max(0, index - CONTEXT) : index])),
            visible(row.token),
            row[1],
            row.clean,
            row.repeated,
        )
        for index, row in zip(largest.index, largest.itertuples(), strict=True)
    ]
