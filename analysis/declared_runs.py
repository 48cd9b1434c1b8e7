"""List the runs that a study declares. The corpus comes from the run directories, so no token store is needed."""

from pathlib import Path

from data_prep.errors import InputError
from data_prep.files import read_record
from repeat_study.config.base import validated
from repeat_study.config.corpora import FurtherTest, MixedCorpus, PoolCorpus, StudyTexts
from repeat_study.config.parents import Parents
from repeat_study.config.run import Run
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
    candidates = {texts for texts in texts_of.values() if _could_belong_to(texts, study)}
    runs_on = {texts: study.known_runs(texts, parents).runs for texts in candidates}
    texts_of_study = {
        texts
        for name, texts in texts_of.items()
        if texts in candidates and name in {run.name for run in runs_on[texts]}
    }
    if len(texts_of_study) > 1:
        corpora = sorted({texts.corpus for texts in texts_of_study})
        raise InputError(
            f"{folder}: runs on {len(texts_of_study)} corpora ({', '.join(corpora)}); expected one corpus; move the other runs elsewhere"
        )
    return runs_on[texts_of_study.pop()] if texts_of_study else []


def _could_belong_to(texts: StudyTexts, study: Study) -> bool:
    """Whether a run in the study could use these stores, judging by their names."""
    mix = [(source.label, source.share) for source in study.data.mix]
    return (
        [test.name for test in texts.further_tests or ()] == list(study.test_sets)
        and (texts.pool_corpus is None) == (study.pool is None)
        and [(mixed.name, mixed.share) for mixed in texts.mix or ()] == mix
    )


def _texts(spec: Path) -> StudyTexts:
    """Read a run's stores from its spec.json."""
    record = read_record(spec, "corpus")
    tests, pool, mix = record.get("further_tests", []), record.get("pool_corpus"), record.get("mix", [])
    if not isinstance(record["corpus"], str) or not isinstance(tests, list) or not isinstance(mix, list):
        raise InputError(f"{spec}: corpus, further_tests or mix is malformed; move this run's folder elsewhere")
    return StudyTexts(
        record["corpus"],
        tuple(validated(FurtherTest, test, f"{spec}: further_tests: ") for test in tests),
        None if pool is None else validated(PoolCorpus, pool, f"{spec}: pool_corpus: "),
        tuple(validated(MixedCorpus, mixed, f"{spec}: mix: ") for mixed in mix),
    )
