"""Prepare the data for a study and its ancestors: token stores and additional test sets."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data_prep.data_spec import DataSpec
from data_prep.document_batch import Progress
from data_prep.errors import InputError
from data_prep.prepare import prepare
from data_prep.token_store import TokenStore, find_store
from repeat_study.config.corpora import FurtherTest, MixedCorpus, PoolCorpus, StudyTexts
from repeat_study.config.grid import KnownRuns
from repeat_study.config.parents import Parents
from repeat_study.config.run import Run
from repeat_study.config.study import Study
from repeat_study.overlap_checks import check_overlaps, table_of
from repeat_study.records.recorded_run import final_test_losses


@dataclass(frozen=True)
class PreparedStudy:
    """A study whose data is on disk. Its runs have their final identities and can be trained."""

    study: Study
    sources: tuple[TokenStore, ...]  # the stores of the training text: one, or one per source of a mixture
    pool: TokenStore | None  # the store of a named pool, which can also be in `sources`
    further_tests: tuple[FurtherTest, ...]
    parent: "PreparedStudy | None"  # the study that [finetune] selects parents from

    @property
    def store(self) -> TokenStore:
        """The (first) store of the training text. Runs find their other stores in the same folder."""
        return self.sources[0]

    def runs(self, runs_dir: Path) -> list[Run]:
        """All runs of the study. `runs_dir` contains one folder per study.

        Raises InputError if a grid point is invalid, and ParentNotKnown if a parent depends on unfinished runs.
        """
        return self.study.runs(self.texts, self.parents(runs_dir))

    def known_runs(self, runs_dir: Path) -> KnownRuns:
        """Like `runs`, but lists points whose parent is not known yet in `waiting` instead of raising ParentNotKnown."""
        return self.study.known_runs(self.texts, self.parents(runs_dir))

    @cached_property
    def texts(self) -> StudyTexts:
        """The prepared stores, for `Study.runs`."""
        pool = None if self.pool is None else PoolCorpus.of(self.pool)
        mix = tuple(
            MixedCorpus(name=source.label, share=source.share, fingerprint=store.fingerprint)
            for source, store in zip(self.study.data.mix, self.sources, strict=False)
        )
        return StudyTexts(self.store.fingerprint, self.further_tests, pool, mix)

    def check(self) -> None:
        """Check that every run has enough data and that no test document is in a training split.

        Ancestors' training splits are checked too. Raises InputError if a check fails, or if
        `evaluation.copying_text` is unsuitable for the copying probe.
        """
        check_overlaps(self)
        if drawn_from := self.pool_drawn_from:
            self.study.refuse_entire_pool(f"its text equals the text of {drawn_from}")
        data_dir = self.store.folder.parent
        test_stores = {test.name: find_store(data_dir, test.fingerprint) for test in self.further_tests}
        for run in self.study.runs(self.texts):
            run.draw(self.store)
            for name, test_store in test_stores.items():
                if not test_store.sequences_in("test", run.context):
                    raise InputError(
                        f"{table_of(name)}: the test set has {test_store.test.size} tokens, too few for one sequence of"
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
    def source_names(self) -> dict[str, str]:
        """The name of each source of training text, by the fingerprint of its store: its name in a mixture, `data` or `pool`."""
        names = [source.label for source in self.study.data.mix] or ["data"]
        named = zip(self.training_stores, [*names, "pool"], strict=False)
        return {store.fingerprint: name for store, name in named}

    @property
    def pool_drawn_from(self) -> str | None:
        """The name of the source with the same text as the named pool; None if there is no named pool, or if its text is separate."""
        return (
            self.source_names[self.pool.fingerprint]
            if self.pool and self.pool.fingerprint in self._fingerprints
            else None
        )

    @property
    def training_stores(self) -> tuple[TokenStore, ...]:
        """The stores of all text that the study's runs can train on, without duplicates."""
        return (
            self.sources
            if self.pool is None or self.pool.fingerprint in self._fingerprints
            else (*self.sources, self.pool)
        )

    @property
    def _fingerprints(self) -> set[str]:
        return {store.fingerprint for store in self.sources}

    @cached_property
    def lineage(self) -> "list[PreparedStudy]":
        """This study and its ancestors, oldest first."""
        return [*(self.parent.lineage if self.parent else []), self]


def prepare_study(
    study: Study, data_dir: Path, progress: Progress = lambda what, share: None, processes: int = 1
) -> PreparedStudy:
    """Build missing token stores, and check the data of the study and its ancestors.

    processes: see `data_prep.prepare.prepare`. Raises InputError if a store cannot be built or if `PreparedStudy.check` fails.
    """
    prepared = _with_stores(study, lambda data: prepare(data, data_dir, progress, processes))
    for ancestor in prepared.lineage:
        ancestor.check()
    return prepared


def open_study(study: Study, data_dir: Path) -> PreparedStudy:
    """Open existing token stores. Raises InputError if one is missing."""
    return _with_stores(study, lambda data: TokenStore(data_dir / data.store_name))


def _with_stores(study: Study, store_of: Callable[[DataSpec], TokenStore]) -> PreparedStudy:
    parent = _with_stores(study.parent_study, store_of) if study.parent_study else None
    trained = {table: _located(table, store_of, data) for table, data in study.training_tables.items()}
    named = study.pool and study.pool.data(study.data)
    pool = next((trained[table] for table, data in study.training_tables.items() if data == named), None)
    sources = [store for table, store in trained.items() if table != "pool"]
    test_stores = {name: _located(table_of(name), store_of, data) for name, data in study.test_sets.items()}
    further = tuple(FurtherTest(name=name, fingerprint=test.fingerprint) for name, test in test_stores.items())
    return PreparedStudy(study, tuple(sources), pool, further, parent)


def _located(table: str, store_of: Callable[[DataSpec], TokenStore], data: DataSpec) -> TokenStore:
    """Open or build a store. Errors name the table that declares it instead of `data`."""
    try:
        return store_of(data)
    except InputError as error:
        if table == "data":
            raise
        keys = "source|max_tokens" if table.startswith("data.mix") else "source|max_tokens|test_fraction"
        message = re.sub(rf"\bdata(?=:|\.(?:{keys})\b)", table, str(error))  # other keys exist only in [data]
        raise InputError(message if message.startswith(table) else f"{table}: {message}") from error
