"""The copied paragraph token by token, clean beside repeated [H22 figs. 8-9]: one self-contained page."""

import html
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from analysis.figures.panels import Arms, arms
from analysis.runs import Runs

STEPS = 10  # of the colour scale, even in the square root of the probability: small models are rarely sure of anything
DROPS = 12  # listed
MOST_SEEDS = 4
BEFORE = 6  # tokens shown before a listed one
SHOWN = {code: chr(0x2400 + code) for code in range(32)} | {9: "⇥", 10: "⏎", 127: "␡"}  # control characters, visible

STYLE = """
:root { color-scheme: light dark; --low: #f6b26b; --middle: #f7f3e8; --high: #8fc1e3; --ink: #111; --page: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --low: #a3500c; --middle: #33322e; --high: #1f5f8b; --ink: #f2f2f2; --page: #161616; }
}
body { font: 16px/1.5 system-ui, sans-serif; max-width: 90rem; margin: 1.5rem auto; padding: 0 1rem;
  background: var(--page); color: var(--ink); }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: .5rem 2rem; }
.copy { margin: .4rem 0; line-height: 1.75; font-size: .9rem; overflow-wrap: anywhere; }
.copy b { font-size: .75rem; opacity: .7; margin-right: .5rem; }
.t { padding: .1rem 0; border-radius: 2px; }
i { font-style: normal; position: relative; } i::before { content: "·"; position: absolute; left: 0; opacity: .35; }
u { text-decoration: none; opacity: .45; }
.legend span { padding: .15rem .5rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .2rem .6rem; text-align: left; } th { border-bottom: 1px solid; } .n { text-align: right; }
td.text { overflow-wrap: anywhere; } summary { cursor: pointer; margin: .6rem 0; } h3 { margin: .4rem 0; font-size: 1rem; }
"""


@dataclass(frozen=True)
class Beside:
    """A clean run and the repeated runs of its seed at one fraction.

    clean, repeated: a row per token of every copy, `copy`, `token`, `loss` in nats and `probability`.
    """

    seed: int
    clean: pd.DataFrame
    repeated: dict[int, pd.DataFrame]  # by R, the most damaged first


def page(title: str, variants: list[tuple[str, Runs]]) -> str | None:
    """The page of a study's variants, each with its name; None where no clean run has a repeated one beside it."""
    parts = [part for variant, runs in variants for part in _variant(variant, runs)]
    if not parts:
        return None
    scale = "".join(
        f".p{step} {{ background: color-mix(in oklab, {mixed}); }}\n"
        for step, mixed in enumerate(map(_mixed, range(STEPS)))
    )
    legend = "".join(
        f'<span class="p{step}">{f"{(step / STEPS) ** 2:.0%}" if step % 3 == 0 else "&nbsp;"}</span>'
        for step in range(STEPS)
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}{scale}</style></head><body>'
        f"<h1>{html.escape(title)}</h1><p>A paragraph, copied, at the end of training: the colour of a token is the probability"
        " that the model gave it, which a pointer held over it shows. A model that copies knows every token from copy 2 on."
        " Left the clean run, beside it (on a narrow screen, below it) the repeated run of the same seed whose copying loss is"
        " the highest. Hernandez et al. (figs. 8-9, two layers): 92% in the clean run against 10% on a copied name.</p>"
        f'<p class="legend">probability {legend} 100%</p>{"".join(parts)}</body></html>\n'
    )


def beside(panel: Arms, runs: Runs) -> list[Beside]:
    """The runs of a panel that are shown: of the first seeds that have a clean and a repeated run with their paragraphs."""
    shown: list[Beside] = []
    for seed, of_seed in panel.runs.sort_values(["seed", "pool_seed"]).groupby("seed"):
        clean, repeated = of_seed[of_seed.repeats == 1], of_seed[of_seed.repeats > 1].drop_duplicates("repeats")
        if len(clean) and len(repeated) and len(shown) < MOST_SEEDS:
            worst_first = repeated.sort_values("final_copying_loss", ascending=False)
            found = {int(run.repeats): _last(runs, run.name) for run in worst_first.itertuples()}
            shown.append(Beside(int(seed), _last(runs, clean.name.iloc[0]), found))
    return shown


def drops(clean: pd.DataFrame, repeated: pd.DataFrame) -> pd.DataFrame:
    """The tokens of copies 2 onwards whose probability falls most from the clean to the repeated run, largest first.

    Columns: the place in the sequence as index, `copy`, `token`, `clean` and `repeated` as probabilities. Those that
    fall only.
    """
    both = clean[["copy", "token"]].assign(clean=clean.probability, repeated=repeated.probability)
    both = both[both["copy"] > 1]
    fall = both.clean - both.repeated
    return both.loc[fall[fall > 0].sort_values(ascending=False, kind="stable").index[:DROPS]]


@cache  # the same few hundred tokens, copied, in hundreds of runs
def visible(token: str) -> str:
    """A token as HTML: escaped, its spaces and control characters marked."""
    return "".join(_character(character) for character in token)


def _character(character: str) -> str:
    if character == " ":
        return "<i> </i>"
    shown = SHOWN.get(ord(character))
    return f"<u>{shown}</u>" if shown else html.escape(character)


def _mixed(step: int) -> str:
    """The two colours of a step of the scale, from low over the middle to high, and their shares."""
    share = step / (STEPS - 1) * 2
    ends, part = (("low", "middle"), share) if share <= 1 else (("middle", "high"), share - 1)
    return f"var(--{ends[0]}) {1 - part:.0%}, var(--{ends[1]})"


def _last(runs: Runs, name: str) -> pd.DataFrame:
    table = runs.last(name, "paragraph")
    return table.assign(probability=np.exp(-table.loss))


def _variant(variant: str, runs: Runs) -> Iterator[str]:
    done = runs.done
    done = done[[(runs.folder / name / "paragraph.parquet").is_file() for name in done.name]]
    if done.empty or not (done.repeats > 1).any():
        return
    if variant:
        yield f"<h1>{html.escape(variant)}</h1>"
    for panel in arms(done):
        besides = beside(panel, runs)
        for shown in besides:
            seed = f", seed {shown.seed}" if len(besides) > 1 else ""
            yield f"<h2>{html.escape(panel.title)}{seed}</h2>"
            (worst, table), *others = shown.repeated.items()
            yield f'<div class="pair">{_text("clean", shown.clean)}{_text(f"R = {worst:,}", table)}</div>'
            yield _drops_html(shown.clean, table, worst)
            for repeats, other in others:
                yield (
                    f"<details><summary>R = {repeats:,}</summary>{_text(f'R = {repeats:,}', other)}"
                    f"{_drops_html(shown.clean, other, repeats)}</details>"
                )


def _text(name: str, table: pd.DataFrame) -> str:
    """Every copy of one run as coloured text."""
    step = np.minimum((np.sqrt(table.probability) * STEPS).astype(int), STEPS - 1)
    spans = [
        f'<span class="t p{colour}" title="{probability:.1%}, {loss:.2f} nats">{visible(token)}</span>'
        for colour, probability, loss, token in zip(step, table.probability, table.loss, table.token, strict=True)
    ]
    copies = [
        f'<p class="copy"><b>copy {number}</b>{"".join(spans[place] for place in places)}</p>'
        for number, places in table.groupby("copy").indices.items()
    ]
    return f"<section><h3>{html.escape(name)}</h3>{''.join(copies)}</section>"


def _drops_html(clean: pd.DataFrame, repeated: pd.DataFrame, repeats: int) -> str:
    found = drops(clean, repeated)
    if found.empty:
        return f"<p>No token of copies 2 onwards is less probable at R = {repeats:,} than in the clean run.</p>"
    tokens = clean.token.to_list()
    rows = [
        f'<tr><td class="text">…{"".join(map(visible, tokens[max(0, place - BEFORE) : place]))}'
        f'<strong>{visible(row.token)}</strong></td><td class="n">{row[1]}</td><td class="n">{row.clean:.1%}</td>'
        f'<td class="n">{row.repeated:.1%}</td></tr>'
        for place, row in zip(found.index, found.itertuples(), strict=True)
    ]
    return (
        f'<h3>Largest drops in probability from copy 2 on</h3><div class="wide"><table><thead><tr><th>token, after</th>'
        f'<th class="n">copy</th><th class="n">clean</th><th class="n">R = {repeats:,}</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
