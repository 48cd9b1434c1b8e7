"""The report's tables: CSV files with all digits, and short ones for the page and the console."""

from typing import Any

import pandas as pd

from analysis.formatting import NOTHING, three_digits
from analysis.report.collect import Variant
from analysis.report.section import Table
from analysis.report.summary_table import short_summary
from analysis.runs import Runs
from repeat_study.records.run_directory import Status

IN_CONSOLE = ["run", "status", "test loss", "over clean", "size ×", "rise", "rise at", "won back"]
EXPLANATION = (
    "Each row is one run directory. Size ×: size of the clean model with the same test loss, divided by the run's own size (≤: the"
    " run is worse than the smallest clean model). Rise: the largest increase in test loss above its earlier minimum, and the token"
    " count at which it occurs; shown only if chance over test sequences cannot explain it and it is more than"
    " twice the largest rise of clean runs. Won back: how far test loss falls from there to the end."
    " Copying loss: loss on the second and later copies of a paragraph, averaged over several paragraphs. Copying gain: loss"
    " on the first copy minus loss on later copies; its null is the same with every copy shuffled. Copying × and prefix ×: like"
    " size ×, from copying loss and from 1 − prefix matching; empty if clean runs do not order these by size. Prefix matching: score"
    " of the best head at the end; its null is the best score on text without repetition. Heads from: the tokens from which that"
    " score exceeds twice its null and twice the untrained model's score."
)
PUBLISHED = (
    "Published numbers next to the same numbers in this study. Models, data and token counts are different, and much smaller here:"
    " expect the same direction, not the same value. Intervals are 95% over seeds; with one seed there are none."
)


def joined(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Tables of all variants, by name, as one with a column `variant`."""
    return pd.concat([table.assign(variant=name) for name, table in tables.items()]) if tables else pd.DataFrame()


def console_table(runs: Runs, numbers: pd.DataFrame) -> pd.DataFrame:
    """The short summary of all finished runs; without any, the status of every run."""
    if numbers.empty:
        return runs.combined.table.rename(columns={"label": "run"})[["run", "status"]]
    short = short_summary(numbers)
    if runs.table.label.duplicated().any():
        short["run"] = numbers.run.to_list()  # labels do not tell variants apart
    return short[[column for column in IN_CONSOLE if column in short]]


def runs_table(variant: Variant) -> Table:
    """Every run of a variant; an unfinished one has its progress as status and no final number."""
    short = short_summary(variant.numbers) if len(variant.numbers) else pd.DataFrame()
    names = variant.numbers.run.to_list() if len(variant.numbers) else []
    unfinished = variant.runs.table[variant.runs.table.status != Status.DONE]
    if len(unfinished):
        rows = [
            {
                "run": run.label,
                "status": _progress(variant.runs.curve(str(run.name)), run),
                "N": f"{run.parameters_non_embedding:,}",
                "f": f"{run.repeated_fraction:.0%}" if run.repeats > 1 else "clean",
                "R": run.repeats,
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
    """`published_comparison.table` for the page."""
    known = table.low.notna() & (table.low < table.high)
    rows = pd.DataFrame(
        {
            "quantity": table.quantity,
            "where": table["where"],
            "this study": table.bound + table.here.map(three_digits),
            "95% interval": (table.low.map(three_digits) + " to " + table.high.map(three_digits)).where(known, NOTHING),
            "published": table.published.map(three_digits),
            "source": table.source.replace("", NOTHING),
        }
    )
    return Table(PUBLISHED, rows, "published_comparison")
