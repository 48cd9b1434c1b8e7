"""The laws of a study as a part of its report."""

import pandas as pd

from analysis.figures.plot import Missing
from analysis.formatting import cell
from analysis.laws.fit import NOT_DETERMINED
from analysis.laws.registry import LAWS
from analysis.laws.study_fits import StudyFits, fit_study
from analysis.report.html import Part, Table
from analysis.runs import Runs


def tell(runs: Runs) -> Part | Missing:
    """Sentences on which law predicts best, the comparison on runs left out, and every constant."""
    laws = fit_study(runs)
    if not laws.fits:
        return Missing("laws", "; ".join(dict.fromkeys(laws.reasons.values())))
    titles = {law.name: law.title for law in LAWS}
    sentences = [laws.verdict] if laws.verdict else []
    sentences += [
        f"{titles[name]} ({name}): off by {found.error:.3g} nats (root mean square) on the {found.points} points it was"
        f" fitted on, with {len(found.free)} constants."
        for name, found in laws.fits.items()
    ]
    sentences += [f"{titles[name]} ({name}) is not fitted: {reason}." for name, reason in laws.reasons.items()]
    tables = []
    if len(laws.cross_validation):
        tables.append(Table("Runs that were left out", LEFT_OUT, _compared(laws)))
    tables.append(Table("Constants", CONSTANTS, _constants(laws)))
    return Part("Laws", sentences, tables)


LEFT_OUT = (
    "<p>Each law is fitted without the runs of a size, or of a range of R, and then predicts them. Error: root mean square of"
    " predicted less measured test loss over the repeated runs left out; beside it the median of its absolute value. Worst R:"
    " predicted over measured, in decades, where the size left out has an interior one. Two rules that are no laws are there to be"
    ' beaten. All digits are in <a href="tables/cross_validation.csv">tables/cross_validation.csv</a>.</p>'
)
CONSTANTS = (
    "<p>In the papers' units: N without embeddings, tokens, nats. 95% intervals by a bootstrap that draws the residuals of the"
    ' runs anew, of any run; what a form misses is not in them. All digits are in <a href="tables/laws.csv">tables/laws.csv</a>.</p>'
)


def _compared(laws: StudyFits) -> pd.DataFrame:
    table = laws.cross_validation
    return pd.DataFrame(
        {
            "left out": table.held_out,
            "law": table.law,
            "runs": table.runs.map(str),
            "error (nats)": table.error.map(cell),
            "median (nats)": table["median"].map(cell),
            "worst R (decades)": table.peak.map(cell),
            "why not": table.reason.replace("", "–"),
        }
    )


def _constants(laws: StudyFits) -> pd.DataFrame:
    table = laws.constants()
    known = table.low.notna()
    interval = table.low.map("{:.4g}".format) + " to " + table.high.map("{:.4g}".format)
    return pd.DataFrame(
        {
            "law": table.law,
            "constant": table.constant,
            "value": table.value.map("{:.4g}".format),
            "95% interval": interval.where(known, "–").where(table.determined, NOT_DETERMINED),
        }
    )
