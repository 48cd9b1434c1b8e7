"""Write the sections on fine-tuned runs: findings, figures and a table with one row per run."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from analysis import published
from analysis.figures.plot import Missing, SavedPlot
from analysis.formatting import NOTHING, cell, listed, signed, signed_span, size_name, span
from analysis.intervals import Bound
from analysis.measures import fine_tuning
from analysis.measures.fine_tuning import ordered_starts, paired, with_repeats
from analysis.report.collect import FigureCache, save_figure
from analysis.report.figure_list import FINE_TUNING_FIGURES
from analysis.report.progress import Progress, report_figure
from analysis.report.section import Section, Table, figure_sections, missing_section
from analysis.runs import Runs

EXPLANATION = (
    "Excess: final test loss minus that of the run from scratch with the same size and seed; it is negative if the parent helped. Size ×:"
    " the size of a model trained from scratch with the same excess, divided by the run's own size. It comes from a power law fitted"
    " to the runs from scratch; ≤ and ≥ mark values outside the range of their sizes. Parent's test text, pool and unique text: loss on"
    " text from the parent's data before and after fine-tuning, in nats per token. The parent trained on its unique text only once."
)


@dataclass(frozen=True)
class FineTuning:
    """The report's content on fine-tuned runs; `numbers` is the result of `fine_tuning.table`."""

    numbers: pd.DataFrame
    figures: list[SavedPlot]
    missing: list[Missing]

    def sections(self) -> Iterator[Section]:
        """The sections on fine-tuning, with the findings first."""
        yield Section("Summary of fine-tuning", sentences(self.numbers))
        yield from figure_sections(self.figures)
        if self.missing:
            yield missing_section(self.missing)
        if len(self.numbers):
            links = [f"{name}/" for name in self.numbers.run]
            table = Table(EXPLANATION, short(self.numbers), "fine_tuning", links=links)
            yield Section("Fine-tuned runs", tables=[table])


def collect(runs: Runs, cache: FigureCache, progress: Progress) -> FineTuning:
    """Compute the table, and plot and save the figures whose inputs have changed."""
    pieces = []
    for number, name in enumerate(FINE_TUNING_FIGURES, start=1):
        piece = cache.reused(name, runs) or save_figure(name, name, runs)
        cache.keep(name, runs, piece)
        pieces.append(piece)
        report_figure(progress, number, len(FINE_TUNING_FIGURES), name)
    saved = [piece for piece in pieces if isinstance(piece, SavedPlot)]
    return FineTuning(fine_tuning.table(runs), saved, [piece for piece in pieces if isinstance(piece, Missing)])


def sentences(numbers: pd.DataFrame) -> list[str]:
    """The findings, computed from `fine_tuning.table`. Null results are reported too."""
    if numbers.empty or (numbers.parent == "").all():
        return ["No fine-tuned run has finished yet."]
    lines: list[str] = []
    for start in ordered_starts(numbers.start[numbers.parent != ""]):
        lines += _start(start, numbers[numbers.start == start])
    return [*lines, *_ossification(numbers), *_forgetting(numbers), *_heads(numbers)]


def _start(start: str, runs: pd.DataFrame) -> Iterator[str]:
    """Compare runs from one kind of starting point with runs from scratch."""
    name = start[0].upper() + start[1:]
    excess = runs.dropna(subset="excess").groupby(["parameters_non_embedding", "model"]).excess.mean()
    if excess.empty:
        yield (
            f"{name}: cannot be compared with training from scratch, because no run from scratch has finished or the runs from scratch"
            " differ in their settings."
        )
        return
    by_size = listed([f"{signed(value)} nats at {size_name(model, size)}" for (size, model), value in excess.items()])
    worse = (excess > 0).sum()
    verdict = "worse" if worse == len(excess) else "better" if not worse else "worse at some sizes"
    if (runs.parent_repeats > 1).all() and ", R = " not in start:
        repeats = runs.groupby(["parameters_non_embedding", "model"]).parent_repeats.first()
        name += (
            f" ({listed([f'R = {value:,} at {size_name(model, size)}' for (size, model), value in repeats.items()])})"
        )
    yield f"{name}: {verdict} than training from scratch. The difference in test loss is {by_size}."
    sized = runs[runs.multiplier.notna()]
    if len(sized):
        sizes = sized.groupby(["parameters_non_embedding", "model"]).agg(
            value=("multiplier", "mean"), bound=("bound", "max")
        )
        ratios = listed(
            [f"{row.bound}{row.value:.2f} at {size_name(model, size)}" for (size, model), row in sizes.iterrows()]
        )
        yield f"{start[0].upper()}{start[1:]}: effective size divided by actual size is {ratios}."


def _ossification(numbers: pd.DataFrame) -> Iterator[str]:
    """Compare repeated parents with clean ones of the same size and seed."""
    pairs = paired(numbers)
    if pairs.empty:
        return
    loss = pairs.test_loss_repeated - pairs.test_loss_clean
    sized = pairs[pairs.multiplier_clean.notna() & pairs.multiplier_repeated.notna()]
    exact = sized[(sized.bound_repeated == Bound.EXACT) & (sized.bound_clean == Bound.EXACT)]
    text = (
        f"Starting from a repeated instead of a clean parent changes test loss after fine-tuning by {signed_span(loss)} nats"
        f" (higher in {(loss > 0).sum()} of {len(loss)} pairs)"
    )
    if len(exact):
        ratio = exact.multiplier_clean / exact.multiplier_repeated
        text += f" and makes the effective size {span(ratio, '{:.2f}'.format)} times smaller"
    if 0 < len(exact) < len(loss):
        bounds = sized.drop(exact.index)
        named = [
            f"{size_name(row.model, row.parameters_non_embedding)}: {row.bound_clean}{row.multiplier_clean:.2f} times the actual size with"
            f" a clean parent, {row.bound_repeated}{row.multiplier_repeated:.2f} with a repeated one"
            for row in bounds.itertuples()
        ]
        text += f" in {len(exact)} of {len(loss)} pairs"
        text += f" (in the others, an effective size is only a bound: {'; '.join(named)})" if named else ""
    yield (
        f"{text}. Hernandez et al. (figs. 12, 15) compare with training from scratch instead of a clean parent: fine-tuning a repeated"
        f" model gives an effective size {published.H22_OSSIFICATION} times smaller."
    )


def _forgetting(numbers: pd.DataFrame) -> Iterator[str]:
    """State how much of the parent's pool is still memorized after fine-tuning, in one sentence per starting point and size."""
    repeated = numbers[(numbers.parent_repeats > 1) & numbers.parent_pool_loss_after.notna()]
    repeated = repeated.assign(
        before=repeated.parent_test_loss_before - repeated.parent_pool_loss_before,
        after=repeated.parent_test_loss_after - repeated.parent_pool_loss_after,
    )
    for (name, size, model), runs in repeated.groupby(["start", "parameters_non_embedding", "model"]):
        start = with_repeats(str(name), runs.parent_repeats)
        if (runs.before < fine_tuning.MEMORIZED).any():
            yield f"{size_name(model, size)}, {start}: the parent had not memorized its pool, so there is nothing to forget."
            continue
        share = runs.after / runs.before
        seeds = f" ({share.min():.0%} to {share.max():.0%} in {len(runs)} seeds)" if len(runs) > 1 else ""
        yield (
            f"{size_name(model, size)}, {start}: fine-tuning changes the loss on the parent's pool from"
            f" {runs.parent_pool_loss_before.mean():.2f} to {runs.parent_pool_loss_after.mean():.2f}. The gap to the loss on the parent's"
            f" test text changes from {runs.before.mean():.2f} to {runs.after.mean():.2f} nats, so {share.mean():.0%} of it"
            f" remains{seeds}."
        )


def _heads(numbers: pd.DataFrame) -> Iterator[str]:
    """How fine-tuning changes the best head and copying."""
    ends = numbers[numbers.prefix_matching_after.notna()]
    if ends.empty:
        return
    scores = [
        (ends[f"prefix_matching_{when}"] / ends[f"prefix_matching_null_{when}"]).max() for when in ("before", "after")
    ]
    if max(scores) <= 2:
        yield (
            "No run has a head whose prefix matching exceeds twice its null, either before or after fine-tuning. These runs therefore"
            " cannot show whether fine-tuning repairs induction heads damaged by repetition."
        )
        return
    for (size, model), runs in paired(ends).groupby(["parameters_non_embedding", "model"]):
        mean = runs.mean(numeric_only=True)
        yield (
            f"{size_name(model, size)}, means over {len(runs)} pairs: the best head's prefix matching changes from"
            f" {mean.prefix_matching_before_repeated:.3f} to"
            f" {mean.prefix_matching_after_repeated:.3f} with a repeated parent and from {mean.prefix_matching_before_clean:.3f} to"
            f" {mean.prefix_matching_after_clean:.3f} with a clean one. Copying gain changes from"
            f" {mean.copying_gain_before_repeated:.3f} to {mean.copying_gain_after_repeated:.3f} nats with a repeated parent and from"
            f" {mean.copying_gain_before_clean:.3f} to {mean.copying_gain_after_clean:.3f} nats with a clean one."
        )


def short(numbers: pd.DataFrame) -> pd.DataFrame:
    """The table for the page: one row per run, with rounded numbers and bounds."""

    def text(column: str, form: str = ".3f") -> list[str]:
        return [cell(value, form) for value in numbers[column]]

    def change(name: str) -> list[str]:
        pairs = zip(text(f"{name}_before"), text(f"{name}_after"), strict=True)
        return [NOTHING if NOTHING in pair else " to ".join(pair) for pair in pairs]

    prefix, suffix = "test_loss_", "_after"
    other_texts = [
        str(name).removeprefix(prefix).removesuffix(suffix)
        for name in numbers
        if str(name).startswith(prefix) and str(name).endswith(suffix)
    ]
    return pd.DataFrame(
        {
            "run": numbers.label,
            "model": list(map(size_name, numbers.model, numbers.parameters_non_embedding)),
            "start": numbers.start,
            "parent's R": [f"{value:,}" if value else NOTHING for value in numbers.parent_repeats],
            "test loss": text("test_loss"),
            "excess": text("excess", "+z.3f"),
            "size ×": [bound + size for bound, size in zip(numbers.bound, text("multiplier"), strict=True)],
            "parent's test text": change("parent_test_loss"),
            "parent's pool": change("parent_pool_loss"),
            "parent's unique text": change("parent_seen_unique_loss"),
            **{f"loss on {name}": change(f"test_loss_{name}") for name in other_texts},
            "copying gain": change("copying_gain"),
            "prefix matching": change("prefix_matching"),
        }
    )
