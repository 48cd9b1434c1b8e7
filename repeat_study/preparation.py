"""A study with all that its runs stand on: token store, further test sets, and the parents' study likewise."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data_prep.build import DataSpec, Progress, prepare
from data_prep.errors import InputError
from data_prep.overlap import require_apart
from data_prep.token_store import TokenStore, find_store
from repeat_study.config.parents import Parents
from repeat_study.config.run import FurtherTest, Run
from repeat_study.config.study import KnownRuns, Study
from repeat_study.records.run_directory import final_test_losses


@dataclass(frozen=True)
class PreparedStudy:
    """What is needed to name a study's runs and to train them."""

    study: Study
    store: TokenStore
    further_tests: tuple[FurtherTest, ...]
    parent: "PreparedStudy | None"

    def runs(self, runs_dir: Path) -> list[Run]:
        """All runs of the study on this corpus; `runs_dir` holds a folder for each study.

        Raises InputError for a bad point of the grid, and ParentNotKnown if a parent depends on unfinished runs.
        """
        return self.study.runs(self.store.fingerprint, self.further_tests, self.parents(runs_dir))

    def known_runs(self, runs_dir: Path) -> KnownRuns:
        """As `runs`, but points whose parent is not known yet are listed instead of raising ParentNotKnown."""
        return self.study.known_runs(self.store.fingerprint, self.further_tests, self.parents(runs_dir))

    def check(self) -> None:
        """Raises InputError where a test set shares a document with what this study or one before it trains on, the corpus or a
        test set holds too little for a run, or there is no text to copy."""
        further = {text.name: find_store(self.store.folder.parent, text.fingerprint) for text in self.further_tests}
        for name, tested in further.items():
            for ancestor in self.lineage:
                require_apart(tested, ancestor.store, f"evaluate, {name}")
        for ancestor in self.lineage[:-1]:
            require_apart(self.store, ancestor.store, f"data of {self.study.name}, its test split")
            require_apart(ancestor.store, self.store, f"data of {ancestor.study.name}, its test split")
        for run in self.study.runs(self.store.fingerprint):
            run.draw(self.store)
            for name, tested in further.items():
                if not tested.sequences_in("test", run.context):
                    raise InputError(
                        f"evaluate, {name}: {tested.test.size} tokens to be tested on, less than one sequence of {run.context} and"
                        f" its target; give more text or a larger max_tokens"
                    )
        if (text := self.study.evaluation.copying_text) is not None:
            from repeat_study.probes.copying import copying_probe

            copying_probe(self.store.tokenizer(), self.store.end_of_text, self.study.training.context, text)

    def parents(self, runs_dir: Path) -> Parents | None:
        """What the study's runs choose their parents from; None where they have none."""
        if not self.parent:
            return None
        name, runs = self.parent.study.name, self.parent.known_runs(runs_dir).runs
        return Parents(name, runs, final_test_losses(runs_dir / name, runs))

    def parents_needed(self, runs_dir: Path) -> list[Run]:
        """Runs of the parents' study that have to be done before this one's start."""
        parents = self.parents(runs_dir)
        return self.study.parents_needed(parents) if parents else []

    def ancestors(self, runs_dir: Path) -> "Iterator[tuple[PreparedStudy, list[Run]]]":
        """Studies with those of their runs that have to be done before this one's start, the eldest first. Each is named when
        it is asked for: which runs are parents may hang on how those before them ended."""
        if self.parent:
            yield from self.parent.ancestors(runs_dir)
            yield self.parent, self.parents_needed(runs_dir)

    @cached_property
    def lineage(self) -> "list[PreparedStudy]":
        """This study and those it descends from, the eldest first."""
        return [*(self.parent.lineage if self.parent else []), self]


def prepare_study(study: Study, data_dir: Path, progress: Progress = lambda what, share: None) -> PreparedStudy:
    """Build what does not stand yet, and check that what is tested on is nowhere trained on.

    Raises InputError as `data_prep.build.prepare` does, and where a test set shares a document with a training text.
    """
    prepared = _with_stores(study, lambda spec: prepare(spec, data_dir, progress))
    for one in prepared.lineage:
        one.check()
    return prepared


def open_study(study: Study, data_dir: Path) -> PreparedStudy:
    """The same of what stands already; InputError where something does not."""
    return _with_stores(study, lambda spec: TokenStore(data_dir / spec.store_name))


def _with_stores(study: Study, store_of: Callable[[DataSpec], TokenStore]) -> PreparedStudy:
    parent = _with_stores(study.parent_study, store_of) if study.parent_study else None
    store = store_of(study.data)
    stores = {text.name: store_of(text.data(study.data)) for text in study.evaluate}
    further = tuple(FurtherTest(name=name, fingerprint=found.fingerprint) for name, found in stores.items())
    return PreparedStudy(study, store, further, parent)
