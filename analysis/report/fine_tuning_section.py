"""The section about fine-tuned runs: sentences, figures and a row per run."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from analysis import published
from analysis.figures.plot import Missing, SavedPlot
from analysis.formatting import NOTHING, cell, short_count, span
from analysis.intervals import Bound
from analysis.measures import fine_tuning
from analysis.measures.fine_tuning import ordered_starts, paired
from analysis.report.collect import Figures, save_figure
from analysis.report.figure_list import FIGURES_OF_FINE_TUNING
from analysis.report.progress import Progress, report_figure
from analysis.report.section import Section, Table, missing_section
from analysis.runs import Runs

EXPLANATION = (
    "Excess: final test loss minus the mean of runs from scratch of the same size; negative if the parent helped. Size ×: size of"
    " the model from scratch with the same final test loss, divided by the run's own size, from a power law through the runs from"
    " scratch; ≤ and ≥ mark values outside their sizes. Parent's test text, pool and unique text: loss on the parent's own texts"
    " before and after fine-tuning, in nats per token; the parent saw the unique text once."
)
LEARNT = 0.01  # nats by which the pool's loss must be below the test text's to call the pool memorized


@dataclass(frozen=True)
class FineTuning:
    """What the report shows of a study's fine-tuned runs; `numbers` is `fine_tuning.table`."""

    numbers: pd.DataFrame
    figures: list[SavedPlot]
    missing: list[Missing]

    def sections(self) -> Iterator[Section]:
        """Their sections of the page, the findings first."""
        yield Section("What fine-tuning showed", sentences(self.numbers))
        yield from (Section(figure.title, figure=figure) for figure in self.figures)
        if self.missing:
            yield missing_section(self.missing)
        if len(self.numbers):
            links = [f"{name}/" for name in self.numbers.run]
            table = Table(EXPLANATION, short(self.numbers), "fine_tuning", links=links)
            yield Section("Fine-tuned runs", tables=[table])


def collect(runs: Runs, figures: Figures, progress: Progress) -> FineTuning:
    """Plot and save the figures that changed; nothing else is written."""
    pieces = []
    for place, name in enumerate(FIGURES_OF_FINE_TUNING, start=1):
        piece = figures.reused(name, runs) or save_figure(name, name, runs)
        figures.keep(name, runs, piece)
        pieces.append(piece)
        report_figure(progress, place, len(FIGURES_OF_FINE_TUNING), name)
    saved = [piece for piece in pieces if isinstance(piece, SavedPlot)]
    return FineTuning(fine_tuning.table(runs), saved, [piece for piece in pieces if isinstance(piece, Missing)])


def sentences(numbers: pd.DataFrame) -> list[str]:
    """What happened, computed from `fine_tuning.table`. Null results are reported too."""
    if numbers.empty or (numbers.parent == "").all():
        return ["No fine-tuned run has finished yet."]
    lines: list[str] = []
    for start in ordered_starts(numbers.start[numbers.parent != ""]):
        lines += _start(start, numbers[numbers.start == start])
    return [*lines, *_ossification(numbers), *_forgetting(numbers), *_heads(numbers)]


def _start(start: str, runs: pd.DataFrame) -> Iterator[str]:
    """One kind of start, compared with training from scratch."""
    name = start[0].upper() + start[1:]
    excess = runs.dropna(subset="excess").groupby(["parameters_non_embedding", "model"]).excess.mean()
    if excess.empty:
        yield f"{name}: not comparable with training from scratch, because no run from scratch is finished or they are of several kinds."
        return
    by_size = ", ".join(f"{value:+.3f} ({model})" for (_, model), value in excess.items())
    worse = (excess > 0).sum()
    verdict = "worse than" if worse == len(excess) else "better than" if not worse else "worse at some sizes than"
    if (runs.parent_repeats > 1).all():
        repeats = runs.groupby("model", sort=False).parent_repeats.first()
        name += f" ({', '.join(f'R = {value:,} at {model}' for model, value in repeats.items())})"
    yield f"{name}: {verdict} training from scratch; test loss differs by {by_size} nats."
    known = runs[runs.multiplier.notna()]
    if len(known):
        sizes = known.groupby(["parameters_non_embedding", "model"]).agg(
            value=("multiplier", "mean"), bound=("bound", "max")
        )
        ratios = ", ".join(f"{row.bound}{row.value:.2f} ({model})" for (_, model), row in sizes.iterrows())
        yield f"{start[0].upper()}{start[1:]}: effective size over own size is {ratios}."


def _ossification(numbers: pd.DataFrame) -> Iterator[str]:
    """Repeated parents compared with clean ones of the same size and seed."""
    pairs = paired(numbers)
    if pairs.empty:
        return
    loss = pairs.test_loss_repeated - pairs.test_loss_clean
    known = pairs[pairs.multiplier_clean.notna() & pairs.multiplier_repeated.notna()]
    exact = known[(known.bound_repeated == Bound.EXACT) & (known.bound_clean == Bound.EXACT)]
    text = (
        f"A repeated instead of a clean parent changes test loss after fine-tuning by {span(loss, '{:+.3f}'.format)} nats"
        f" (higher in {(loss > 0).sum()} of {len(loss)} pairs)"
    )
    if len(exact):
        ratio = exact.multiplier_clean / exact.multiplier_repeated
        text += f" and makes effective size {span(ratio, '{:.2f}'.format)} times smaller"
    yield (
        f"{text}. Hernandez et al. (figs. 12, 15): fine-tuning a repeated model gives an effective size"
        f" {published.H22_OSSIFICATION} times smaller than training from scratch."
    )


def _forgetting(numbers: pd.DataFrame) -> Iterator[str]:
    """How much lower the loss on the parent's pool still is than on its test text, a sentence per start and size."""
    known = numbers[(numbers.parent_repeats > 1) & numbers.parent_pool_loss_after.notna()]
    known = known.assign(
        before=known.parent_test_loss_before - known.parent_pool_loss_before,
        after=known.parent_test_loss_after - known.parent_pool_loss_after,
    )
    for (start, _, model), runs in known.groupby(["start", "parameters_non_embedding", "model"]):
        if (runs.before < LEARNT).any():
            yield f"{model}, {start}: the parent had not memorized its pool, so there is nothing to forget."
            continue
        share = runs.after / runs.before
        seeds = f" ({share.min():.0%} to {share.max():.0%} in {len(runs)} seeds)" if len(runs) > 1 else ""
        yield (
            f"{model}, {start}: loss on the parent's pool goes from {runs.parent_pool_loss_before.mean():.2f} to"
            f" {runs.parent_pool_loss_after.mean():.2f}. It is {runs.before.mean():.2f} nats below the loss on the parent's test text"
            f" before fine-tuning and {runs.after.mean():.2f} after, so {share.mean():.0%} of the gap is left{seeds}."
        )


def _heads(numbers: pd.DataFrame) -> Iterator[str]:
    """What fine-tuning does to the best head and to copying."""
    ends = numbers[numbers.prefix_matching_after.notna()]
    if ends.empty:
        return
    scores = [
        (ends[f"prefix_matching_{when}"] / ends[f"prefix_matching_null_{when}"]).max() for when in ("before", "after")
    ]
    if max(scores) <= 2:
        yield (
            "No best head's prefix matching exceeds twice its null, before or after fine-tuning. These runs cannot show whether"
            " fine-tuning repairs induction heads that repetition broke."
        )
        return
    for (_, model), runs in paired(ends).groupby(["parameters_non_embedding", "model"]):
        mean = runs.mean(numeric_only=True)
        yield (
            f"{model}: prefix matching of the best head goes from {mean.prefix_matching_before_repeated:.3f} to"
            f" {mean.prefix_matching_after_repeated:.3f} with a repeated parent and from {mean.prefix_matching_before_clean:.3f} to"
            f" {mean.prefix_matching_after_clean:.3f} with a clean one; copying gain from {mean.copying_gain_before_repeated:.3f} to"
            f" {mean.copying_gain_after_repeated:.3f} and from {mean.copying_gain_before_clean:.3f} to"
            f" {mean.copying_gain_after_clean:.3f} nats (means of {len(runs)} pairs)."
        )


def short(numbers: pd.DataFrame) -> pd.DataFrame:
    """The table for readers: one row per run, rounded, with bounds written out."""

    def text(column: str, form: str = ".3f") -> list[str]:
        return [cell(value, form) for value in numbers[column]]

    def ends(name: str) -> list[str]:
        pairs = zip(text(f"{name}_before"), text(f"{name}_after"), strict=True)
        return [NOTHING if NOTHING in pair else " to ".join(pair) for pair in pairs]

    prefix, suffix = "test_loss_", "_after"
    further = [
        str(name).removeprefix(prefix).removesuffix(suffix)
        for name in numbers
        if str(name).startswith(prefix) and str(name).endswith(suffix)
    ]
    return pd.DataFrame(
        {
            "run": numbers.label,
            "N": [short_count(size) for size in numbers.parameters_non_embedding],
            "start": numbers.start,
            "parent's R": [f"{value:,}" if value else NOTHING for value in numbers.parent_repeats],
            "test loss": text("test_loss"),
            "excess": text("excess", "+.3f"),
            "size ×": [bound + size for bound, size in zip(numbers.bound, text("multiplier"), strict=True)],
            "parent's test text": ends("parent_test_loss"),
            "parent's pool": ends("parent_pool_loss"),
            "parent's unique text": ends("parent_seen_unique_loss"),
            **{f"loss on {name}": ends(f"test_loss_{name}") for name in further},
            "copying gain": ends("copying_gain"),
            "prefix matching": ends("prefix_matching"),
        }
    )
