"""Prepare the data for a study and its ancestors: token stores and additional test sets."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data_prep.build import Progress
from data_prep.data_spec import DataSpec
from data_prep.errors import InputError
from data_prep.overlap import require_disjoint
from data_prep.prepare import prepare
from data_prep.token_store import TokenStore, find_store
from repeat_study.config.grid import KnownRuns
from repeat_study.config.parents import Parents
from repeat_study.config.run import FurtherTest, Run
from repeat_study.config.study import Study
from repeat_study.records.recorded_run import final_test_losses


@dataclass(frozen=True)
class PreparedStudy:
    """A study whose data is on disk. Its runs have their final identities and can be trained."""

    study: Study
    store: TokenStore
    further_tests: tuple[FurtherTest, ...]
    parent: "PreparedStudy | None"  # the study that [finetune] selects parents from

    def runs(self, runs_dir: Path) -> list[Run]:
        """All runs of the study. `runs_dir` contains one folder per study.

        Raises InputError if a grid point is invalid, and ParentNotKnown if a parent depends on unfinished runs.
        """
        return self.study.runs(self.store.fingerprint, self.further_tests, self.parents(runs_dir))

    def known_runs(self, runs_dir: Path) -> KnownRuns:
        """Like `runs`, but lists points whose parent is not known yet in `waiting` instead of raising ParentNotKnown."""
        return self.study.known_runs(self.store.fingerprint, self.further_tests, self.parents(runs_dir))

    def check(self) -> None:
        """Check that every run has enough data and that no test document is in a training split.

        Ancestors' training splits are checked too. Raises InputError if a check fails, or if
        `evaluation.copying_text` is unsuitable for the copying probe.
        """
        test_stores = {test.name: find_store(self.store.folder.parent, test.fingerprint) for test in self.further_tests}
        for name, test_store in test_stores.items():
            for ancestor in self.lineage:
                require_disjoint(test_store, ancestor.store, f"evaluate, {name}")
        for ancestor in self.lineage[:-1]:
            require_disjoint(self.store, ancestor.store, f"test split of {self.study.name}")
            require_disjoint(ancestor.store, self.store, f"test split of {ancestor.study.name}")
        for run in self.study.runs(self.store.fingerprint):
            run.draw(self.store)
            for name, test_store in test_stores.items():
                if not test_store.sequences_in("test", run.context):
                    raise InputError(
                        f"evaluate, {name}: the test set has {test_store.test.size} tokens, too few for one sequence of"
                        f" {run.context} tokens and its target; provide more text or increase max_tokens"
                    )
        if (text := self.study.evaluation.copying_text) is not None:
            from repeat_study.probes.copying import CopyingTextError, copying_probe, store_tokenizer

            try:
                copying_probe(store_tokenizer(self.store), self.store.end_of_text, self.study.training.context, text)
            except CopyingTextError as error:
                raise InputError(f"evaluation.copying_text: {error}") from error

    def parents(self, runs_dir: Path) -> Parents | None:
        """The candidate parents and the losses of the finished ones; None if the study has no [finetune] table."""
        if not self.parent:
            return None
        name, runs = self.parent.study.name, self.parent.known_runs(runs_dir).runs
        return Parents(name, runs, final_test_losses(runs_dir / name, runs))

    def parents_needed(self, runs_dir: Path) -> list[Run]:
        """Runs in the parent study that this study's runs depend on."""
        parents = self.parents(runs_dir)
        return self.study.parents_needed(parents) if parents else []

    def ancestors(self, runs_dir: Path) -> "Iterator[tuple[PreparedStudy, list[Run]]]":
        """Yield each ancestor study, oldest first, with the list of its runs that the next study depends on.

        This is a generator because one ancestor's losses can determine which runs in the next ancestor are needed.
        """
        if self.parent:
            yield from self.parent.ancestors(runs_dir)
            yield self.parent, self.parents_needed(runs_dir)

    @cached_property
    def lineage(self) -> "list[PreparedStudy]":
        """This study and its ancestors, oldest first."""
        return [*(self.parent.lineage if self.parent else []), self]


def prepare_study(study: Study, data_dir: Path, progress: Progress = lambda what, share: None) -> PreparedStudy:
    """Build missing token stores, and check the data of the study and its ancestors.

    Raises InputError if a store cannot be built or if `PreparedStudy.check` fails.
    """
    prepared = _with_stores(study, lambda data: prepare(data, data_dir, progress))
    for ancestor in prepared.lineage:
        ancestor.check()
    return prepared


def open_study(study: Study, data_dir: Path) -> PreparedStudy:
    """Open existing token stores. Raises InputError if one is missing."""
    return _with_stores(study, lambda data: TokenStore(data_dir / data.store_name))


def _with_stores(study: Study, store_of: Callable[[DataSpec], TokenStore]) -> PreparedStudy:
    parent = _with_stores(study.parent_study, store_of) if study.parent_study else None
    store = store_of(study.data)
    test_stores = {test.name: store_of(test.data(study.data)) for test in study.evaluate}
    further = tuple(FurtherTest(name=name, fingerprint=test.fingerprint) for name, test in test_stores.items())
    return PreparedStudy(study, store, further, parent)
