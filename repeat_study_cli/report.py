"""`repeat-study report`: write a study's report."""

from pathlib import Path

from repeat_study_cli.arguments import RunsOption, SetOption, StudyArgument, console, load
from repeat_study_cli.progress import show_progress
from repeat_study_cli.run import report_arguments
from repeat_study_cli.tables import WrappedTable


def report(study: StudyArgument, set_: SetOption = None, runs_dir: RunsOption = Path("runs")) -> None:
    """Write a study's report: tables, figures and report.html.

    Reads only the run directories. The token store is not needed.
    """
    from analysis.declared_runs import declared_names
    from analysis.report.build import write_report

    declared = load(study, set_)
    folder = runs_dir / declared.name
    with show_progress() as progress:
        arguments = report_arguments(study, set_, runs_dir)
        command = f"repeat-study run {arguments}\nrepeat-study report {arguments}"
        summary, page = write_report(
            folder, declared_names(folder, declared), progress, command, declared.text_in_words
        )
    table = WrappedTable(*map(str, summary.columns))
    for row in summary.itertuples(index=False):
        table.add_row(*map(str, row))
    console.print(table)
    console.print(f"report: {page}")
