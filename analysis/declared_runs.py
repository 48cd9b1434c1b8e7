"""The runs that a study declares, as far as the run directories tell which corpus it was prepared on."""

from pathlib import Path

from data_prep.errors import InputError
from data_prep.files import read_record
from repeat_study.config.base import validated
from repeat_study.config.parents import Parents
from repeat_study.config.run import FurtherTest, Run
from repeat_study.config.study import Study
from repeat_study.records.run_directory import final_test_losses


def declared_names(folder: Path, study: Study) -> list[str]:
    """Names of the runs of `declared_runs`."""
    return [run.name for run in declared_runs(folder, study)]


def declared_runs(folder: Path, study: Study) -> list[Run]:
    """The study's runs, on the corpus and further test sets that the run directories in `folder` name; [] if none do.

    No token store is needed. For a fine-tuning study, the folder of the parent study must be next to `folder`. Raises
    InputError if it is not, or if the directories hold runs of the study on more than one corpus.
    """
    parents = None
    if study.parent_study:
        parent_folder = folder.parent / study.parent_study.name
        if not (parent_runs := declared_runs(parent_folder, study.parent_study)):
            raise InputError(
                f"{parent_folder}: no runs of {study.parent_study.name} here; the runs of {study.name} start from them"
            )
        parents = Parents(study.parent_study.name, parent_runs, final_test_losses(parent_folder, parent_runs))
    texts_of = {path.parent.name: _texts(path) for path in folder.glob("*/spec.json")}
    test_sets = tuple(text.name for text in study.evaluate)
    candidates = {texts for texts in texts_of.values() if tuple(text.name for text in texts[1]) == test_sets}
    runs_on = {texts: study.known_runs(*texts, parents).runs for texts in candidates}
    found = {
        texts
        for name, texts in texts_of.items()
        if texts in candidates and name in {run.name for run in runs_on[texts]}
    }
    if len(found) > 1:
        corpora = sorted({corpus for corpus, _ in found})
        raise InputError(
            f"{folder}: found runs on {len(found)} corpora ({', '.join(corpora)}); expected one: move the others away"
        )
    return runs_on[found.pop()] if found else []


def _texts(spec: Path) -> tuple[str, tuple[FurtherTest, ...]]:
    """The corpus and the further test sets that a spec.json names."""
    record = read_record(spec, "corpus")
    texts = record.get("further_tests", [])
    if not isinstance(record["corpus"], str) or not isinstance(texts, list):
        raise InputError(f"{spec}: corpus or further_tests: not what a run writes; move its folder away")
    return record["corpus"], tuple(validated(FurtherTest, text, f"{spec}: further_tests: ") for text in texts)
