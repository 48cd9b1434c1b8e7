"""Format the summary table for readers: one row per run, with rounded numbers and bounds."""

import pandas as pd

from analysis.formatting import NOTHING, cell, percent, size_name

HEAD_COLUMNS = ("copying ×", "prefix ×", "prefix matching", "null score", "heads from")  # dropped if empty for all runs


def short_summary(numbers: pd.DataFrame) -> pd.DataFrame:
    """One row per finished run, from `degradation.summary`. Rises that do not count appear as "–"."""

    def text(column: pd.Series, form: str) -> list[str]:
        return [cell(value, form) for value in column]

    def sizes(column: str) -> list[str]:
        values = text(numbers[column], ".3f")
        return [bound + value for bound, value in zip(numbers[f"{column}_bound"], values, strict=True)]

    rise = numbers.where(numbers.rise_counts != False)  # noqa: E712  (None: not judged)
    short = pd.DataFrame(
        {
            "run": numbers.label,
            "model": list(map(size_name, numbers.model, numbers.parameters_non_embedding)),
            "f": [percent(value) if value else "clean" for value in numbers.repeated_fraction],
            "R": numbers.repeats,
            "test loss": text(numbers.test_loss, ".3f"),
            "over clean": text(numbers.excess_over_clean, "+z.3f"),
            "size ×": sizes("size_multiplier"),
            "rise": text(rise.rise, ".3f"),
            "rise at": text(rise.rise_at_tokens, ",.0f"),
            "won back": text(rise.won_back, ".3f"),
            "pool loss": text(numbers.pool_loss, ".3f"),
            "copying loss": text(numbers.copying_loss, ".3f"),
            "copying gain": text(numbers.copying_gain, ".3f"),
            "null gain": text(numbers.copying_gain_null, ".3f"),
            "copying ×": sizes("copying_multiplier"),
            "prefix ×": sizes("prefix_matching_multiplier"),
            "prefix matching": text(numbers.prefix_matching, ".3f"),
            "null score": text(numbers.prefix_matching_null, ".3f"),
            "heads from": text(numbers.heads_formed_at, ",.0f"),
        }
    )
    return short.drop(columns=[name for name in HEAD_COLUMNS if (short[name] == NOTHING).all()])
