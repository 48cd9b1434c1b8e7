"""Write the section on runs that look unhealthy, with links to the records that show it."""

import pandas as pd

from analysis.formatting import plural
from analysis.measures.run_health import HIGH_NORM, OFTEN, SPIKE
from analysis.report.section import Section, Table

CSV = "run_health"
CHECKS = (
    f"Checked for every run: whether it failed, was resumed {OFTEN - 1} times or more, was trained in another precision than most runs or"
    f" in several, whether its training loss between two evaluations exceeds that before and after by more than {SPIKE} nats, and whether"
    f" its gradient norm exceeds {HIGH_NORM:g} times its median."
)


def section(problems: pd.DataFrame, runs: int) -> Section:
    """The section for a table from `run_health`. runs: the number of runs that were checked."""
    if problems.empty:
        return Section("Run health", [f"No problem was found in {plural(runs, 'run')}. {CHECKS}"])
    table = pd.DataFrame(
        {"record": problems.record, "run": problems.label, "problem": problems.problem, "details": problems.details}
    )
    links = [f"{run}/{record}" for run, record in zip(problems.run, problems.record, strict=True)]
    affected = problems.run.nunique()
    sentence = f"{affected} of {plural(runs, 'run')} look unhealthy. Check them before trusting their numbers."
    return Section("Run health", [sentence], tables=[Table(CHECKS, table, CSV, links=links)])
