"""Write the section on scaling laws for repeated data: which law predicts best, and the constants of each."""

import pandas as pd

from analysis.figures.plot import Missing
from analysis.formatting import NOTHING, cell, size_names
from analysis.laws.fit import NOT_DETERMINED
from analysis.laws.registry import LAWS, title_of
from analysis.laws.study_fits import StudyFits, fit_study
from analysis.report.section import Section, Table
from analysis.runs import Runs, left_out_of_laws

CROSS_VALIDATION = (
    "Each law is fitted without the runs of one model size or one range of R, and then predicts the penalty of these held-out runs, their"
    " test loss above the clean run of the same size and tokens. Error: root-mean-square difference between predicted and measured penalty"
    " over the held-out runs. Median: median absolute error over the same runs. Worst R: error in log10 of the worst R, given only if the"
    " held-out size has an interior worst R. Coverage: share of the held-out runs inside the 95% interval. Two simple rules serve as"
    " baselines."
)
CONSTANTS = (
    "Constants are in the papers' units: N in non-embedding parameters, T in tokens, loss in nats. The 95% intervals come from the"
    " curvature of the fit and the priors; they are widened if the law predicts held-out runs worse than the runs of the fit."
)


def section(runs: Runs) -> Section | Missing:
    """The section with cross-validation errors and constants, or the reasons why no law could be fitted."""
    laws = fit_study(runs)
    headings = {law.name: f"{law.title} ({law.idea})" for law in LAWS}
    left_out = [sentence] if (sentence := left_out_of_laws(runs)) else []
    if not laws.fits:
        reasons = [f"{headings[name]}: {reason}" for name, reason in laws.reasons.items()]
        return Missing("laws", "; ".join([*reasons, *left_out]))
    sentences = [sentence for sentence in (laws.pairing, laws.verdict(_names_of_sizes(runs)), *left_out) if sentence]
    in_list = {name: heading[0].upper() + heading[1:] for name, heading in headings.items()}
    sentences += [
        f"{in_list[name]}: fitted to {fitted.points} points with {len(fitted.free)} constants; the root-mean-square error is"
        f" {fitted.error:.3g} nats."
        for name, fitted in laws.fits.items()
    ]
    sentences += [f"{in_list[name]} was not fitted: {reason}." for name, reason in laws.reasons.items()]
    cross_validation = (
        [Table(CROSS_VALIDATION, _cross_validation(laws, runs), "cross_validation", "Cross-validation")]
        if len(laws.cross_validation)
        else []
    )
    return Section(
        "Laws", sentences, tables=[*cross_validation, Table(CONSTANTS, _constants(laws), "laws", "Constants")]
    )


def _names_of_sizes(runs: Runs) -> dict[str, str]:
    """The names of model sizes by the names of the folds that leave them out."""
    names = size_names(runs.done.model, runs.done.parameters_non_embedding)
    return {f"N = {size:,.0f}": name for size, name in names.items()}


def _cross_validation(laws: StudyFits, runs: Runs) -> pd.DataFrame:
    table = laws.cross_validation
    return pd.DataFrame(
        {
            "held out": table.held_out.replace(_names_of_sizes(runs)),
            "law": table.law.map(title_of),
            "runs": table.runs.map(str),
            "error (nats)": table.error.map(cell),
            "median (nats)": table["median"].map(cell),
            "worst R (log10)": table.worst_repeats.map(cell),
            "coverage": table.coverage.map(lambda share: cell(share, ".0%")),
            "not fitted because": table.reason.replace("", NOTHING),
        }
    )


def _constants(laws: StudyFits) -> pd.DataFrame:
    table = laws.constants()
    has_interval = table.low.notna()
    interval = table.low.map("{:.4g}".format) + " to " + table.high.map("{:.4g}".format)
    return pd.DataFrame(
        {
            "law": table.law.map(title_of),
            "constant": table.constant,
            "value": table.value.map("{:.4g}".format),
            "95% interval": interval.where(has_interval, NOTHING).where(table.determined, NOT_DETERMINED),
        }
    )
