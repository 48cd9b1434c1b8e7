"""Warnings about too little text: from `max_tokens` before a store is built, and from the store afterwards."""

from pathlib import Path

import pytest
from pyarrow import parquet

from data_prep.draw import Unit
from data_prep.errors import InputError
from data_prep.shares import ShareOrder, exact_shares
from data_prep.token_store import TokenStore
from repeat_study.config.corpora import StudyTexts
from repeat_study.config.run import Run
from repeat_study.config.study import Study, load_study
from repeat_study.config.study_file import INSTALLED_STUDIES
from repeat_study.preparation import PreparedStudy
from repeat_study.records.run_directory import RunDirectory
from repeat_study.shortages import actual_test_shortage, expected_test_shortage, expected_train_shortage
from repeat_study.training.trainer import train

SHIPPED = sorted(INSTALLED_STUDIES.glob("*.toml"))


def with_data(study: Study, **changes: object) -> Study:
    return study.model_copy(update={"data": study.data.model_copy(update=changes)})


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_no_shipped_study_is_short_of_text(path: Path) -> None:
    for declared in load_study(path).lineage:
        assert expected_train_shortage(declared) == expected_test_shortage(declared) == []


def test_the_warning_gives_the_smallest_max_tokens_that_is_enough(study: Study) -> None:
    """512 positions and a pool of 512 / 2 / 4 = 64 sequences of 33 tokens; 10% of the text is test text."""
    needed = (512 + 64) * 33
    (warning,) = expected_train_shortage(with_data(study, max_tokens=10_000))
    assert (
        f"1x16-f0.5-R4-s0 needs {needed:,} training tokens, but the training split will contain about 9,000" in warning
    )
    assert warning.endswith("increase data.max_tokens to 21,120") and needed == 21_120 * 9 // 10
    assert expected_train_shortage(with_data(study, max_tokens=21_120)) == []
    assert expected_train_shortage(with_data(study, max_tokens=21_118)) != []


def test_a_study_without_a_warning_has_enough_text(study: Study, store: TokenStore) -> None:
    """A store with exactly the expected number of training tokens passes the exact check, and one with a sequence less fails it."""

    class Cut(TokenStore):
        sequences = 0

        def sequences_in(self, split: str, context: int) -> int:
            return self.sequences if split == "train" else super().sequences_in(split, context)  # type: ignore[arg-type]

    for run in study.runs(StudyTexts(store.fingerprint)):
        cut = Cut(store.folder)
        cut.sequences = run.positions + run.pool
        run.draw(cut)
        cut.sequences -= 1
        with pytest.raises(InputError, match="the run needs"):
            run.draw(cut)


def test_a_pool_of_documents_needs_half_of_the_split(study: Study) -> None:
    table = study.model_dump() | {"data": study.data, "evaluation": study.evaluation}
    table["grid"] = [{"model": "1x16", "repeats": 2, "repeated_fraction": 1, "unit": "document"}]
    declared = Study.model_validate(table)
    (run,) = declared.runs()
    assert run.unit is Unit.DOCUMENT and run.pool == 256
    enough = -(-(512 + 256) * 33 * 10 // 9)
    assert expected_train_shortage(with_data(declared, max_tokens=enough)) == []
    assert expected_train_shortage(with_data(declared, max_tokens=enough - 2)) != []


def test_a_test_split_that_is_too_small_is_reported_and_recorded(
    study: Study, store: TokenStore, tmp_path: Path
) -> None:
    """Every run is tested on the whole split, and test_sequences.parquet shows how many sequences it has."""
    available = store.sequences_in("test", 32)
    assert actual_test_shortage(PreparedStudy(study, (store,), None, (), None)) == []
    large = study.model_copy(
        update={
            "evaluation": study.evaluation.model_copy(
                update={"test_sequences": 10 * available, "even_points": 1, "log_points": 0}
            )
        }
    )
    assert actual_test_shortage(PreparedStudy(large, (store,), None, (), None)) == [
        f"warning: tiny: evaluation.test_sequences = {10 * available:,}, but the test split contains only {available:,} sequences"
        " of 33 tokens; runs are tested on all of it"
    ]
    run: Run = large.runs(StudyTexts(store.fingerprint))[0]
    train(run, store, tmp_path)
    table = parquet.read_table(RunDirectory(tmp_path / run.name).test_sequences)
    assert table["step"].to_pylist().count(0) == available


def test_a_mixture_with_a_short_test_split_states_how_many_sequences_are_used(study: Study) -> None:
    """A source with a share of one fifth and 3 test sequences is read at the positions 4, 9 and 14 or earlier."""
    mix = [
        {"name": name, "source": {"kind": kind}, "share": share, "max_tokens": max_tokens}
        for name, kind, share, max_tokens in (
            ("code", "installed-python", 0.8, 10**6),
            ("prose", "installed-prose", 0.2, 2 * 3 * 33),
        )
    ]
    evaluation = study.evaluation.model_copy(update={"test_sequences": 40})
    table = study.model_dump() | {"data": {"mix": mix, "test_fraction": 0.5}, "evaluation": evaluation}
    (warning,) = expected_test_shortage(Study.model_validate(table))
    order = ShareOrder(exact_shares([0.8, 0.2]))
    used = next(n for n in range(40) if order.counts(n + 1)[1] > 3)
    assert 15 <= used < 20 and warning.endswith(f"; runs are tested on a mixture of {used} sequences")
    assert (
        "(8 of them from this source), but the test split of prose will contain at most about 3 sequences of 33"
        in warning
    )


def test_the_expected_size_of_every_test_set_is_compared(study: Study) -> None:
    prose = {"name": "prose", "source": {"kind": "installed-prose"}, "max_tokens": 330, "test_fraction": 0.5}
    table = study.model_dump() | {"data": study.data, "evaluation": study.evaluation, "evaluate": [prose]}
    declared = with_data(Study.model_validate(table), max_tokens=3_300)
    split, test_set = expected_test_shortage(declared)
    assert "evaluation.test_sequences = 16, but the test split will contain at most about 10 sequences of 33" in split
    assert "but the test set prose will contain at most about 5 sequences of 33 tokens" in test_set
    (warning,) = expected_test_shortage(with_data(study, max_tokens=329, test_fraction=0.1))
    assert warning.startswith("warning: tiny: the test split will probably be shorter than one sequence of 33 tokens;")
