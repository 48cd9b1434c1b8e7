"""Make the report's tables for the page and the console, with rounded numbers."""

from typing import Any

import pandas as pd

from analysis.formatting import NOTHING, percent, size_name, three_digits
from analysis.report.collect import Variant
from analysis.report.section import Table
from analysis.report.summary_table import short_summary
from analysis.runs import Runs
from repeat_study.records.run_directory import Status

IN_CONSOLE = ["run", "status", "test loss", "over clean", "size ×", "rise", "rise at", "won back"]
EXPLANATION = (
    "Each row describes one run directory. Size ×: the size of a clean model with the same test loss, divided by the run's own size (≤: the"
    " run is worse than the smallest clean model). Rise: the largest increase in test loss above its earlier minimum. Rise at: the"
    " number of training tokens at that point. The table omits a rise if it could be due to the choice of test sequences, or if"
    " it is no more than twice the largest rise in any clean run. Won back: the decrease in test loss between the rise and the"
    " end of training."
    " Copying loss: loss on the second and later copies of a paragraph, averaged over several paragraphs. Copying gain: loss on the"
    " first copy minus loss on later copies. Null gain: copying gain when the tokens of every copy are shuffled. Copying × and prefix ×:"
    " the same as size ×, but computed from copying loss and from 1 − prefix matching; empty if these metrics do not order clean runs by"
    " size. Prefix matching: the best head's score at the end of training. Null score: the best score on text without repetition. Heads"
    " from: the number of training tokens after which prefix matching exceeds twice its null and twice the untrained model's score."
)
PUBLISHED = (
    "Published numbers are shown next to this study's. The study's models and token counts are much smaller than the papers', and its"
    " data differ. Expect the same direction, not the same values. Intervals are 95% intervals over seeds; with a single seed, there are"
    " none. The CSV file also contains this study's numbers that have no published counterpart."
)


def joined(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Concatenate the tables of all variants, adding the variant's name as the column `variant`."""
    return pd.concat([table.assign(variant=name) for name, table in tables.items()]) if tables else pd.DataFrame()


def with_declared_repeats(runs: Runs, numbers: pd.DataFrame) -> pd.DataFrame:
    """Set R to 0 for the clean controls of a named pool, as the study declares them."""
    if not runs.has_named_pool or numbers.empty:
        return numbers
    return numbers.assign(repeats=numbers.repeats.where(numbers.repeated_fraction > 0, 0))


def console_table(runs: Runs, numbers: pd.DataFrame) -> pd.DataFrame:
    """A short summary of the finished runs, or the status of every run if none has finished."""
    if numbers.empty:
        return runs.combined.table.rename(columns={"label": "run"})[["run", "status"]]
    short = short_summary(with_declared_repeats(runs, numbers))
    if runs.table.label.duplicated().any():
        short["run"] = numbers.run.to_list()  # variants share labels
    return short[[column for column in IN_CONSOLE if column in short]]


def runs_table(variant: Variant) -> Table:
    """The table of a variant's runs. For unfinished runs, the status gives the progress, and final metrics are missing."""
    numbers = with_declared_repeats(variant.runs, variant.numbers)
    short = short_summary(numbers) if len(numbers) else pd.DataFrame()
    names = variant.numbers.run.to_list() if len(variant.numbers) else []
    unfinished = variant.runs.table[variant.runs.table.status != Status.DONE]
    if len(unfinished):
        rows = [
            {
                "run": run.label,
                "status": _progress(variant.runs.curve(str(run.name)), run),
                "model": size_name(str(run.model), run.parameters_non_embedding),
                "f": percent(run.repeated_fraction) if run.repeats > 1 else "clean",
                "R": run.repeats if run.repeats > 1 or not variant.runs.has_named_pool else 0,
            }
            for run in unfinished.itertuples()
        ]
        finished = short.assign(status="done") if len(short) else short
        short = pd.concat([finished, pd.DataFrame(rows)], ignore_index=True).fillna(NOTHING)
        short.insert(1, "status", short.pop("status"))
        names += unfinished.name.to_list()
    return Table(EXPLANATION, short, "summary", links=[f"{name}/" for name in names])


def _progress(curve: pd.DataFrame, run: Any) -> str:
    if curve.empty:
        return f"{run.status}, not yet evaluated"
    share = curve.tokens.iloc[-1] / run.trained_tokens
    return f"{run.status}, {share:.0%} trained, test loss so far {curve.test_loss.iloc[-1]:.3f}"


def published_table(table: pd.DataFrame) -> Table:
    """Format the rows of `published_comparison.table` for which a paper reports a number or a qualitative finding."""
    table = table[table.source != ""]
    has_interval = table.low.notna() & (table.low < table.high)
    sources = [source.partition(": ") for source in table.source]  # "H22, fig. 3: long plateaus"
    has_number = table.published.notna()
    texts = table[["here", "low", "high", "published"]].map(three_digits).astype(str)
    rows = pd.DataFrame(
        {
            "quantity": table.quantity,
            "where": table["where"],
            "this study": table.bound + texts["here"],
            "95% interval": (texts.low + " to " + texts.high).where(has_interval, NOTHING),
            "published": texts.published.where(has_number, [finding for _, _, finding in sources]),
            "source": table.source.where(has_number, [source for source, _, _ in sources]),
        }
    )
    return Table(PUBLISHED, rows, "published_comparison")
