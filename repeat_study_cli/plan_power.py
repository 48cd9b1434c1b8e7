"""Show which differences a grid can detect, based on how much finished runs vary between seeds."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.errors import InputError
from repeat_study.formatting import plural
from repeat_study_cli.arguments import load_runs_of
from repeat_study_cli.tables import WrappedTable

if TYPE_CHECKING:
    from analysis.measures.power import Sensitivity
    from analysis.runs import Runs
    from repeat_study.config.run import Run
    from repeat_study.config.study import Study


def power_of(
    study: "Study", runs: "Sequence[Run]", spread_from: str | None, runs_dir: Path
) -> "Iterator[WrappedTable | str]":
    """Yield a table of what the grid can detect, with an explanation. Without finished runs, yield a hint.

    runs: the study's runs. spread_from: the study or folder that contains finished runs; None for the study itself. Raises InputError if
    `spread_from` is given and no table can be made.
    """
    if spread_from is None and not any(run.repeats > 1 and run.parent is None for run in runs):
        return  # fine-tuned runs are compared with runs from clean parents
    if spread_from is None and not any(run.is_clean_control for run in runs):
        yield "\nThe grid has no clean runs, so the plan cannot show which differences it can detect."
        return
    try:
        finished = load_runs_of(spread_from, runs_dir) if spread_from is not None else _own_runs(study, runs_dir)
    except InputError as error:
        if spread_from is not None:
            raise
        yield f"\nThe finished runs of {study.name} cannot show which differences the grid can detect: {error}"
        return
    rows = []
    if finished:
        from analysis.measures.power import sensitivities, spreads_of_arms

        arms = spreads_of_arms(finished)
        if spread_from is not None and arms.empty:
            raise InputError(
                f"{finished.folder}: no finished arm with two or more seeds and their clean runs; expected at least one"
            )
        rows = sensitivities(runs, arms)
        if spread_from is not None and not rows:
            raise InputError(
                f"{study.name}: no repeated run has a clean run of the same size and seed; add it to the grid"
            )
    if rows and finished:
        yield ""
        yield _table(rows)
        yield f"\n{_explanation(rows, finished.folder)}"
    else:
        yield (
            "\nTo see which differences this grid can detect, add --spread-from STUDY. Choose a study with finished"
            " runs in two or more seeds."
        )


def _own_runs(study: "Study", runs_dir: Path) -> "Runs | None":
    """The study's own runs; None if none is finished."""
    folder = runs_dir / study.name
    if not any(folder.glob("*/done.json")):
        return None
    from analysis.declared_runs import declared_names
    from analysis.runs import load_runs

    names = declared_names(folder, study)
    return load_runs(folder, names) if any((folder / name / "done.json").is_file() for name in names) else None


def _table(rows: "list[Sensitivity]") -> WrappedTable:
    from analysis.formatting import NOTHING, percent

    def nats(value: float) -> str:
        return NOTHING if math.isnan(value) else f"{value:#.2g}".rstrip(".")

    table = WrappedTable(
        "size", "f", "seeds", "sd over seeds", "half-width", "detectable", "test error", notes="measured on"
    )
    for row in rows:
        spread = row.spread
        table.add_row(
            row.model,
            "varies" if row.fraction is None else percent(row.fraction),
            str(row.seeds),
            f"{nats(spread.sd)} [{nats(spread.low)}, {nats(spread.high)}]",
            *map(nats, (row.half_width, row.detectable, row.test_error)),
            note=f"{plural(spread.pairs, 'pair')} in {plural(spread.arms, 'arm')} ({spread.scope})",
        )
    return table


def _explanation(rows: "list[Sensitivity]", folder: Path) -> str:
    from analysis.measures.power import POWER

    lines = [
        "The measure is a repeated run's final test loss minus that of the clean run with the same seed, in nats per token. The column"
        " 'sd over seeds' is its standard deviation and the 95% interval of that, from the finished runs in"
        f" {folder}. The column 'half-width' is the root-mean-square half-width of the 95% interval for the mean of one arm."
        f" The column 'detectable' is the true mean at which this interval excludes 0 with {POWER:.0%} power. The column 'test error'"
        f" is the half-width of the 95% interval due to the choice of {plural(rows[0].test_sequences, 'test sequence')}, which all"
        " seeds share; more seeds hardly reduce it."
    ]
    if any(row.seeds == 1 for row in rows):
        lines.append(
            "With one seed, there is no interval over seeds; the rows with 3 and 5 seeds show what more seeds would detect."
        )
    return " ".join(lines)
