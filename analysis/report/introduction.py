"""Write the top of the page: the settings that all runs share, and warnings about the runs."""

from collections.abc import Iterator

import pandas as pd

from analysis.formatting import listed, plural, size_name
from analysis.report.section import Note
from analysis.runs import Runs
from repeat_study.records.run_directory import Status

SHARED = {
    "trained_tokens": "{:,} training tokens",
    "context": "a context of {:,} tokens",
    "sequences_per_step": "{:,} sequences per step",
    "vocabulary": "a vocabulary of {:,} tokens",
}


# Without a tokenizer, training records a space and the id of each token of the copied sequence.
TOKEN_IDS = r" \d+"
NO_TOKENIZER = (
    "The training data has no tokenizer. The copying probe copies sequences from the test split instead of paragraphs, and tokens"
    " are shown as ids."
)


def introduction(runs: Runs) -> str:
    """How many runs are finished, and the settings that all of them share."""
    shared = [text.format(runs.table[key].iloc[0]) for key, text in SHARED.items() if runs.table[key].nunique() == 1]
    copies = sorted(runs.evaluations.copying_loss_per_copy.dropna().map(len).unique())
    if copies:
        shared.append(f"{' or '.join(map(str, copies))} copies of each paragraph in the copying probe")
    corpora = ", ".join(sorted(set(runs.table.corpus)))
    settings = f" Every run uses {listed(shared)}." if shared else ""
    smallest = runs.table.sort_values("parameters_non_embedding").iloc[0]
    return (
        f"{plural(len(runs.done), 'finished run')}.{settings} Corpus: {corpora}. Losses are in nats per token. In model sizes such as"
        f" {size_name(smallest.model, smallest.parameters_non_embedding)}, the number in parentheses is N, the number of non-embedding"
        " parameters."
    )


def notes(runs: Runs) -> Iterator[Note]:
    """Warnings about unfinished, unknown and duplicate runs and about mixed settings."""
    unfinished = [
        f"Not yet finished: {run.name} ({run.status})." for run in runs.table.itertuples() if run.status != Status.DONE
    ]
    absent = [f"Not yet started: {name}." for name in runs.not_started]
    yield Note(
        unfinished + absent,
        f"{len(unfinished)} runs have not finished and {len(absent)} have not started. Training curves include unfinished"
        " runs, but final metrics do not.",
    )
    yield Note(
        [f"Left out: {name}. The study does not declare this run." for name in runs.undeclared],
        f"Left out: {plural(len(runs.undeclared), 'run')} that the study does not declare.",
    )
    yield Note(
        [
            f"Left out: {name}. It was trained in the same way as {kept}, so it does not count as another seed."
            for name, kept in runs.duplicates.items()
        ],
        f"Left out: {plural(len(runs.duplicates), 'run')} trained in the same way as another run.",
    )
    yield Note(list(_mixed_settings(runs)))
    yield Note([NO_TOKENIZER] if _shows_ids(runs) else [])


def _shows_ids(runs: Runs) -> bool:
    """Whether the first finished run recorded token ids instead of text."""
    tables = (runs.last_table(name, "paragraph") for name in runs.done.name)
    first = next((table for table in tables if len(table)), None)
    return first is not None and bool(first.token.str.fullmatch(TOKEN_IDS).all())


def _mixed_settings(runs: Runs) -> Iterator[str]:
    precisions = sorted(runs.table.precision.dropna().unique())
    if len(precisions) > 1:
        yield f"Runs were trained at different precisions ({', '.join(precisions)}), which affects losses noticeably."
    settings = pd.DataFrame(runs.table.evaluation.to_list()).astype(str)
    if varied := [name for name in settings if settings[name].nunique() > 1]:
        yield (
            f"Runs were evaluated with different settings ({', '.join(varied)}), so their numbers can differ for reasons other"
            " than training."
        )
    if runs.table[runs.table.repeats > 1].pool_seed.nunique() > 1:
        yield "Runs with the same seed but different pools count as separate runs in means and intervals."
