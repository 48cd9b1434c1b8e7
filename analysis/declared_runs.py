"""List the runs that a study declares. The corpus comes from the run directories, so no token store is needed."""

from pathlib import Path

from data_prep.errors import InputError
from data_prep.files import read_record
from repeat_study.config.base import validated
from repeat_study.config.parents import Parents
from repeat_study.config.run import FurtherTest, Run
from repeat_study.config.study import Study
from repeat_study.records.recorded_run import final_test_losses


def declared_names(folder: Path, study: Study) -> list[str]:
    """Names of the runs that `declared_runs` returns."""
    return [run.name for run in declared_runs(folder, study)]


def declared_runs(folder: Path, study: Study) -> list[Run]:
    """All runs that the study declares, on the corpus and additional test sets recorded in the run directories in `folder`.

    Returns [] if `folder` contains no run of the study. A fine-tuning study also needs the folder of its parent study next to
    `folder`. Raises InputError if that folder has no runs of the parent study, or if `folder` contains runs of the study on more
    than one corpus.
    """
    parents = None
    if study.parent_study:
        parent_folder = folder.parent / study.parent_study.name
        if not (parent_runs := declared_runs(parent_folder, study.parent_study)):
            raise InputError(
                f"{parent_folder}: no runs of study {study.parent_study.name} here; the runs of {study.name} start from them"
            )
        parents = Parents(study.parent_study.name, parent_runs, final_test_losses(parent_folder, parent_runs))
    texts_of = {path.parent.name: _texts(path) for path in folder.glob("*/spec.json")}
    test_sets = tuple(text.name for text in study.evaluate)
    candidates = {texts for texts in texts_of.values() if tuple(text.name for text in texts[1]) == test_sets}
    runs_on = {texts: study.known_runs(*texts, parents).runs for texts in candidates}
    texts_of_study = {
        texts
        for name, texts in texts_of.items()
        if texts in candidates and name in {run.name for run in runs_on[texts]}
    }
    if len(texts_of_study) > 1:
        corpora = sorted({corpus for corpus, _ in texts_of_study})
        raise InputError(
            f"{folder}: runs on {len(texts_of_study)} corpora ({', '.join(corpora)}); expected one corpus; move the other runs elsewhere"
        )
    return runs_on[texts_of_study.pop()] if texts_of_study else []


def _texts(spec: Path) -> tuple[str, tuple[FurtherTest, ...]]:
    """Read the corpus and the additional test sets of a run from its spec.json."""
    record = read_record(spec, "corpus")
    texts = record.get("further_tests", [])
    if not isinstance(record["corpus"], str) or not isinstance(texts, list):
        raise InputError(f"{spec}: corpus or further_tests is malformed; move the folder of this run away")
    return record["corpus"], tuple(validated(FurtherTest, text, f"{spec}: further_tests: ") for text in texts)
