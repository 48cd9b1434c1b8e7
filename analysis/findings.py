"""What happened, in sentences and in a table for people; both computed from the summary."""

import pandas as pd


def findings(numbers: pd.DataFrame) -> list[str]:
    """Sentences on double descent and on the worst R of every size and fraction; nulls are said as plainly as effects.

    numbers: `degradation.summary`. Losses and multipliers are means over the runs of one R, or say that they are not.
    """
    sentences = []
    for fraction, here in numbers[numbers.repeats > 1].groupby("repeated_fraction"):
        sentences.append(_double_descent(fraction, here))
        sentences += [_worst(model, fraction, line) for model, line in here.groupby("model")]
    return sentences or ["No repeated run has finished yet."]


def _double_descent(fraction: float, here: pd.DataFrame) -> str:
    found = here[here.double_descent == True]  # noqa: E712  (the column may hold None: no clean run to judge by)
    if found.empty:
        return f"No double descent at f = {fraction:.0%} in {len(here)} runs."
    best = found.loc[found[["rise", "won_back"]].min(axis=1).idxmax()]
    return (
        f"Double descent at f = {fraction:.0%}: in {len(found)} of {len(here)} runs test loss rises above its earlier"
        f" minimum and falls again, both by more than twice the noise of clean runs. The clearest is {best.run}: it rises by"
        f" {best.rise:.2f} nats up to {best.rise_at_tokens:,.0f} tokens and falls by {best.won_back:.2f} from there to the end."
    )


def _worst(model: str, fraction: float, line: pd.DataFrame) -> str:
    means = line.groupby("repeats")[["test_loss", "excess_over_clean", "size_multiplier"]].mean()
    worst = means.test_loss.idxmax()
    at_worst, runs = means.loc[worst], line[line.repeats == worst]
    said = f"{model}, f = {fraction:.0%}: the worst of the {len(means)} R tried is {worst:,} with test loss {at_worst.test_loss:.3f}"
    if pd.notna(at_worst.excess_over_clean):
        said += f" ({at_worst.excess_over_clean:+.3f} over clean)"
    if pd.notna(at_worst.size_multiplier):
        bounds = "".join(sorted(set(runs.size_multiplier_bound)))
        said += f", the loss of a clean model {bounds}{at_worst.size_multiplier:.3g} times its size"
    if len(runs) > 1:
        said += f" (means over {len(runs)} seeds)"
    inside = means.index.min() < worst < means.index.max()
    return said + ("; fewer and more repeats both do less harm." if inside else "; it is the edge of the range tried.")


def short_summary(numbers: pd.DataFrame) -> pd.DataFrame:
    """The summary for people: rounded, bounds written out, one row per run; a rise within the noise is left out."""

    def text(column: pd.Series, form: str) -> list[str]:
        return [format(value, form) if pd.notna(value) else "–" for value in column]

    rise = numbers.where(numbers.rise_counts != False)  # noqa: E712  (None: no clean run to judge by)
    return pd.DataFrame(
        {
            "run": numbers.label,
            "N": text(numbers.parameters_non_embedding, ",d"),
            "f": [f"{value:.0%}" if value else "clean" for value in numbers.repeated_fraction],
            "R": numbers.repeats,
            "test loss": text(numbers.test_loss, ".3f"),
            "over clean": text(numbers.excess_over_clean, "+.3f"),
            "size ×": [
                bound + value for bound, value in
                zip(numbers.size_multiplier_bound, text(numbers.size_multiplier, ".3f"), strict=True)
            ],
            "rise": text(rise.rise, ".3f"),
            "at tokens": text(rise.rise_at_tokens, ",.0f"),
            "won back": text(rise.won_back, ".3f"),
            "pool loss": text(numbers.pool_loss, ".3f"),
            "copying loss": text(numbers.copying_loss, ".3f"),
            "copying gain": text(numbers.copying_gain, ".3f"),
            "its null": text(numbers.copying_gain_null, ".3f"),
        }
    )  # fmt: skip
