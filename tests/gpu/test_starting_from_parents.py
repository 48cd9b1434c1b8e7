"""On a GPU, fine-tuned runs start from the weights of their parents, each in its own lane."""

from pathlib import Path

import pytest

from data_prep.token_store import TokenStore
from repeat_study.config.resources import Resources
from repeat_study.config.run import Parent, Run
from repeat_study.records.outcome import Outcome
from repeat_study.records.run_directory import RunDirectory
from repeat_study.training.trainer import train_bundle
from tests.gpu.conftest import STEPS
from tests.gpu.records import assert_close_records, rows

pytestmark = pytest.mark.gpu


def child_of(parent: Run, folder: Path) -> Run:
    origin = Parent(
        study=folder.name,
        label=parent.label,
        identity=parent.identity,
        repeats=parent.repeats,
        repeated_fraction=parent.repeated_fraction,
        seed=parent.seed,
    )
    return parent.model_copy(update={"parent": origin, "learning_rate": 1e-3, "seed": 7})


def test_runs_fine_tuned_in_a_bundle_start_where_their_parents_ended(
    lanes: list[Run], singles: Path, store: TokenStore, resources: Resources
) -> None:
    """Two lanes start from different parents, and a third one starts from random weights."""
    children, scratch = [child_of(parent, singles) for parent in lanes[:2]], lanes[0]
    folder = singles.parent / "children"
    endings = train_bundle([children[0], scratch, children[1]], store, folder, resources=resources)
    assert set(endings.values()) == {Outcome.DONE}
    for child, parent in zip(children, lanes[:2], strict=True):
        first, *_, last = rows(folder, child)
        end = rows(singles, parent)[-1]
        same = ("test_loss", "copying_loss", "random_copying_loss", "prefix_matching", "in_context_score")
        assert_close_records({key: first[key] for key in same}, {key: end[key] for key in same}, 1e-4)
        assert first["parent_pool_loss"] == pytest.approx(end["pool_loss"], abs=1e-4)
        assert last["step"] == STEPS and last["test_loss"] < first["test_loss"]
        assert RunDirectory(folder / child.name).session_rows()[0]["parent_weights_sha256"]
    assert rows(folder, scratch)[0]["test_loss"] > rows(folder, children[0])[0]["test_loss"] + 1
    assert "parent_test_loss" not in rows(folder, scratch)[0]
