"""Probe all models in a table, and write a table and figures of their scores."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.errors import InputError
from repeat_study_cli.arguments import console
from repeat_study_cli.tables import WrappedTable

if TYPE_CHECKING:
    import pandas as pd

    from analysis.probed_models.listed_models import ListedModel
    from repeat_study.probes.path_probe import ProbeOptions
    from repeat_study_cli.progress import Report

TABLE = "models.csv"
DIFFERENT_TOKENS = (
    "The models divide text into different tokens, so their losses per token cannot be compared, but the scores of their attention"
    " heads can be."
)


def probe_models(table: Path, out: Path, options: "ProbeOptions") -> None:
    """Probe every model in a CSV file, and write its scores, a table of all scores and two figures below the folder `out`.

    Scores are saved after each model and reused by later calls. Raises InputError if a line of the table or a model cannot be used.
    """
    from analysis.figures.plot import Missing
    from analysis.probed_models.figures import copying, prefix_matching
    from analysis.probed_models.listed_models import read_models
    from analysis.probed_models.scores import differing_tokens, score_table
    from data_prep.files import write_atomically
    from repeat_study.probes.path_probe import check_device, check_model

    models = read_models(table)
    check_device(options.device)
    for model in models:
        with naming(model):
            check_model(model.path)
    (out / "scores").mkdir(parents=True, exist_ok=True)
    records = _records(models, out / "scores", options)
    scores = score_table(models, records)
    write_atomically(out / TABLE, scores.to_csv(index=False).encode())
    console.print(_summary(scores))
    if differing_tokens(records):
        console.print(DIFFERENT_TOKENS)
    console.print(f"written: {out / TABLE}")
    for plot in (copying(scores), prefix_matching(scores)):
        if isinstance(plot, Missing):
            console.print(f"no figure {plot.name}: {plot.reason}")
        else:
            plot.save(out)
            console.print(f"written: {out / 'figures' / plot.name}.png, .svg and .pdf")


def _records(models: "Sequence[ListedModel]", folder: Path, options: "ProbeOptions") -> list[Mapping[str, Any]]:
    """The scores of every model, reused if they were saved before and nothing has changed."""
    from repeat_study.probes.saved_scores import measure_and_save, saved_scores, scores_file
    from repeat_study_cli.progress import show_progress

    records: list[Mapping[str, Any]] = []
    reused = 0
    with show_progress() as report:
        for model in models:
            share = len(records) / len(models)
            report(f"probing {model.name}", share)
            file = scores_file(folder, model.path)
            with naming(model):
                record = saved_scores(file, model.path, options)
                reused += record is not None
                records.append(record or measure_and_save(file, model.path, options, partial(_report, report, share)))
    console.print(f"models: {len(models)}; measured: {len(models) - reused}; unchanged since the last call: {reused}\n")
    return records


def _report(report: "Report", share: float, stage: str) -> None:
    report(f"probing {stage}", share)


@contextmanager
def naming(model: "ListedModel") -> Iterator[None]:
    """Add the table's line to an InputError."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{model.where}: {error}") from error


def _summary(scores: "pd.DataFrame") -> WrappedTable:
    """The training and the main scores of every model."""
    from analysis.formatting import cell, percent, short_count
    from repeat_study.records.metrics import BY_KEY

    keys = [key for key in ("copying_loss", "random_copying_gain", "prefix_matching") if key in scores]
    headings = [name for key in keys for name in (BY_KEY[key].name, *(["null"] if BY_KEY[key].null_key else []))]
    table = WrappedTable("model", "params", "tokens", "f", "R", "seed", *headings)
    for row in scores.to_dict("records"):
        numbers = [row[name] for key in keys for name in (key, BY_KEY[key].null_key) if name]
        table.add_row(
            row["path"],
            short_count(row["params"]),
            short_count(row["tokens"]),
            percent(row["fraction"]),
            f"{row['repeats']:g}",
            row["seed"],
            *map(cell, numbers),
        )
    return table
