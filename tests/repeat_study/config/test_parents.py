"""Fine-tuning: selecting parents, starting from their weights, and resuming after a kill."""

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from data_prep.data_spec import DataSpec
from data_prep.errors import InputError
from data_prep.token_store import TokenStore
from repeat_study.checkpoints.files import read_weights, weights_sha256
from repeat_study.config.corpora import StudyTexts
from repeat_study.config.parents import ParentNotKnown, Parents
from repeat_study.config.run import Run
from repeat_study.config.study import EvaluateSpec, Study, load_study
from repeat_study.model.decoder import Decoder
from repeat_study.preparation import PreparedStudy, prepare_study
from repeat_study.records.outcome import Outcome, Progress
from repeat_study.records.run_directory import RunDirectory, Status
from repeat_study.training.trainer import train
from tests.repeat_study.training.test_trainer import assert_same_result
from tests.waiting import PATIENCE

PARENTS = """
[data]
source = "installed-python"
max_tokens = 4_000_000
[training]
tokens = 153_600
context = 128
sequences_per_step = 16
learning_rate = 3e-3
[[grid]]
model = ["2x32", "2x64"]
repeats = [1, 10, 30]
repeated_fraction = 0.9
"""
CHILD = """
[finetune]
from = "parents"
[data]
source = "installed-prose"
max_tokens = 1_000_000
[training]
tokens = 153_600
context = 128
sequences_per_step = 16
learning_rate = 2e-3
[[grid]]
model = ["2x32", "2x64"]
repeats = 1
parent = ["scratch", "clean", {repeats = 30}]
"""


@pytest.fixture
def declare(tmp_path: Path) -> Callable[..., Study]:
    """A function that writes and loads a child study and its parent study, after replacing parts of the child's text."""

    def declared(*changes: tuple[str, str], name: str = "child", parents: str = PARENTS) -> Study:
        (tmp_path / "parents.toml").write_text(parents)
        text = CHILD
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / f"{name}.toml").write_text(text)
        return load_study(tmp_path / f"{name}.toml")

    return declared


def test_runs_with_a_parent_have_half_the_learning_rate_and_a_shorter_warm_up(declare: Callable[..., Study]) -> None:
    runs = declare().runs()
    assert [run.label for run in runs[:3]] == ["2x32-clean-s0", "2x32-from-clean-s0", "2x32-from-f0.9-R30-s0"]
    assert [run.learning_rate for run in runs[:3]] == [2e-3, 1e-3, 1e-3]
    assert [run.warmup_fraction for run in runs[:3]] == [0.02, 0.01, 0.01]
    sizes = declare(("[[grid]]", "[models.2x64]\nlearning_rate = 1e-3\n[[grid]]")).runs()
    assert [run.learning_rate for run in sizes if run.parent] == [1e-3, 1e-3, 5e-4, 5e-4]
    swept = declare(("repeats = 1\n", "repeats = 1\nwarmup_fraction = 0.1\n")).runs()
    assert {run.warmup_fraction for run in swept} == {0.1}


def test_identity_depends_on_the_parents_identity_and_not_on_its_folder(
    declare: Callable[..., Study],
) -> None:
    study = declare()
    scratch, clean, repeated = study.runs()[:3]
    same = Run.model_validate(scratch.model_dump() | {"evaluation": scratch.evaluation, "learning_rate": 1e-3})
    assert len({run.identity for run in (same, clean, repeated)}) == 3
    assert clean.parent and clean.parent.identity == study.parent_study.runs()[0].identity  # type: ignore[union-attr]
    moved = clean.model_copy(update={"parent": clean.parent.model_copy(update={"study": "elsewhere"})})
    assert moved.identity == clean.identity
    longer = declare(parents=PARENTS.replace("153_600", "307_200")).runs()[1]
    assert longer.label == clean.label and longer.identity != clean.identity, "the parent was trained for longer"


def test_a_study_uses_the_tokenizer_of_its_parent_study(declare: Callable[..., Study]) -> None:
    study = declare(parents=PARENTS.replace("max_tokens", "vocabulary = 512\nmax_tokens"))
    assert study.data.tokenizer_of and study.parent_study and study.data.tokenizer_of == study.parent_study.data
    assert study.data.expected_vocabulary() == 512


def test_the_worst_parent_is_known_once_all_candidates_are_finished(declare: Callable[..., Study]) -> None:
    study = declare(("{repeats = 30}", '"worst"'), ('["2x32", "2x64"]', '"2x32"'))
    assert study.parent_study and [run.label for run in study.runs()][-1] == "2x32-from-f0.9-worst-s0"
    declared = [run for run in study.parent_study.runs() if run.model == "2x32"]
    runs = [run.model_copy(update={"seed": seed}) for run in declared for seed in (0, 1)]
    parents = Parents("parents", runs, {})
    assert study.parents_needed(parents) == [runs[0], *runs[2:]], "the clean run of this seed and all repeated runs"
    with pytest.raises(
        ParentNotKnown, match=r"grid.0.parent: worst depends on 4 runs in parents, and 4 of them are unfinished"
    ):
        study.runs(StudyTexts("", ()), parents)
    # The single worst run has R = 10, but R = 30 is worse on average.
    losses = dict(zip([run.name for run in runs], [3.0, 3.0, 5.0, 9.0, 7.5, 7.5], strict=True))
    chosen = study.runs(StudyTexts("", ()), Parents("parents", runs, losses))[-1].parent
    assert chosen and (chosen.repeats, chosen.seed, chosen.name) == (30, 0, runs[4].name)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'from = "parents"',
            'from = "nowhere"',
            "nowhere.toml: no such study; studies in ",
        ),
        (
            'from = "parents"',
            'from = "nowhere"',
            ": child, parents; shipped with this package: chudnovsky2026, ",
        ),
        ('from = "parents"', 'from = "child"', "finetune.from: cycle child -> child"),
        ("max_tokens", "vocabulary = 512\nmax_tokens", "data.vocabulary: 512 found, but the parent study parents has 1024"),
        ("max_tokens", 'tokenizer = "mine.json"\nmax_tokens', "data.tokenizer: 'mine.json' found, but the parent study parents has None"),
        ("max_tokens", "test_fraction = 0.1\nmax_tokens", "data.test_fraction: 0.1 found, but parents has 0.05"),
        ("context = 128", "context = 64", "grid.0.context: 64 found, but the parent 2x32-clean-s0 has 128"),
        ('"2x64"]', '"2x96"]', "grid.0.parent: parents has no run with model 2x96; its models are 2x32, 2x64"),
        ("{repeats = 30}", '{repeats = "30"}', r"grid.0.parent: {repeats = '30'} matches no run in parents with model 2x32; available:"),
        ("{repeats = 30}", "{repeats = 31}", r"grid.0.parent: {repeats = 31} matches no run in parents with model 2x32; available:"),
        ("{repeats = 30}", "{repeat = 30}", "grid.0.parent: repeat: unknown key; expected"),
        ("{repeats = 30}", '"best"', "grid.0.parent: unknown parent 'best'; expected \"scratch\", \"clean\", \"worst\""),
        ("repeats = 1\n", "repeats = 1\nseed = 1\n", "clean matches 0 runs in parents with model 2x32 and seed 1; expected exactly one"),
        ("{repeats = 30}", '{repeats = "worst", seed = 7}', "with model 2x32 and seed 7; expected one for each R and seed"),
        ("{repeats = 30}", '{repeats = 30, spacing = "worst"}', "grid.0.parent: spacing = worst: no run can have this value"),
        ("{repeats = 30}", "{repeats = true}", "grid.0.parent: repeats = True: no run can have this value"),
        ("repeats = 1\n", "repeats = 1\nvocabulary_multiple = 64\n", "vocabulary_multiple: 64 found, but the parent 2x32-clean-s0 has 1"),
        ("repeats = 1\n", 'repeats = 1\nlearning_rate = "a"\n', "grid.0.learning_rate: input should be a valid number"),
        ("repeats = 1\n", "repeats = 1\nlearning_rate = 1.5\n", "grid.0.learning_rate: input should be less than 1"),
        ('from = "parents"', 'study = "parents"', "finetune.from: missing; a value is required"),
        ('from = "parents"', 'from = "parents"\nshare = 1', "finetune.share: unknown key; expected from, learning_rate"),
        ("[data]", '[[evaluate]]\nname = "x"\nsource = "synthetic"\nnam = 1\n[data]', "evaluate.0.nam: unknown key; did you mean 'name'?"),
        ("[data]", "[parent_study]\nx = 1\n[data]", "parent_study: not a key of a study file; set finetune.from instead"),
        ("[data]", "[data.tokenizer_of]\nx = 1\n[data]", "data.tokenizer_of: not a key of a study file; set finetune.from instead"),
        ("[data]", '[[evaluate]]\nname = "x"\nsource = "installed-python"\ntest_fraction = 1.0\n[data]', "would include training text"),
        ('["scratch", "clean", {repeats = 30}]', '"scratch"', "finetune: no [[grid]] table has a parent"),
        ('from = "parents"', "", "finetune.from: missing; a value is required"),
        ('from = "parents"', 'from = "parents"\nlearning_rate_share = 2.0', "finetune.learning_rate_share: input should"),
    ],
)  # fmt: skip
def test_invalid_parents_give_one_line(declare: Callable[..., Study], old: str, new: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        declare((old, new))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_longer_cycle_is_listed_in_order(declare: Callable[..., Study], tmp_path: Path) -> None:
    declare()
    (tmp_path / "parents.toml").write_text(CHILD.replace('"parents"', '"child"'))
    with pytest.raises(InputError, match=r"finetune.from: cycle child -> parents -> child"):
        load_study(tmp_path / "child.toml")


def test_a_grandchild_selects_its_parents_by_short_label(declare: Callable[..., Study], tmp_path: Path) -> None:
    declare()
    text = CHILD.replace('"parents"', '"child"').replace(
        '"clean", {repeats = 30}', '"clean", {label = "from-f0.9-R30"}'
    )
    (tmp_path / "grandchild.toml").write_text(text)
    study = load_study(tmp_path / "grandchild.toml")
    assert [ancestor.name for ancestor in study.lineage] == ["parents", "child", "grandchild"]
    labels = [run.label for run in study.runs()]
    assert labels[:3] == ["2x32-clean-s0", "2x32-from-clean-s0", "2x32-from-from-f0.9-R30-s0"]
    parent = study.runs()[1].parent
    assert parent and parent.label == "2x32-clean-s0", (
        "the clean run of the child study, which was trained from scratch"
    )


def test_a_parent_with_a_fixed_pool_is_selected_by_the_size_of_its_pool(declare: Callable[..., Study]) -> None:
    pool = "[pool]\nsource = 'installed-prose'\nmax_tokens = 1_000_000\n[training]"
    grid = "repeats = [0, 2, 4]\npool_tokens = [1_024, 2_048]\nhold_fixed = ['total', 'fresh']\n"
    parents = PARENTS.replace("[training]", pool).replace("repeats = [1, 10, 30]\nrepeated_fraction = 0.9\n", grid)
    one_size = ('["2x32", "2x64"]', '"2x32"')

    def last(selector: str) -> str:
        return declare(("{repeats = 30}", selector), one_size, parents=parents).runs()[-1].label

    assert last("{repeats = 4, pool_tokens = 1_050, hold_fixed = 'total'}") == "2x32-from-pool1024-R4-s0"
    worst = last("{repeats = 'worst', pool_tokens = 2_048, hold_fixed = 'fresh'}")
    assert worst == "2x32-from-pool2048-worst-fresh-s0"
    for selector, message in (
        (
            "'worst'",
            r"matches several pools in parents \(pool_tokens = 1024, pool_tokens = 2048\); choose one, e.g. .*pool_tokens = 2048",
        ),
        (
            "{repeats = 4, pool_tokens = 1_024}",
            "matches 2 runs in parents .*; expected exactly one; they differ in hold_fixed; available",
        ),
        ("{repeats = 4, fixed_pool = 8}", "fixed_pool: unknown key; expected"),
        ("{repeats = 4, pool_tokens = 'all'}", "pool_tokens = 'all': expected a number of tokens, as printed by plan"),
    ):
        with pytest.raises(InputError, match=message):
            last(selector)


def test_runs_with_a_known_parent_need_not_wait_for_the_others(declare: Callable[..., Study]) -> None:
    study = declare(("{repeats = 30}", '"worst"'))
    assert study.parent_study
    resolved = study.known_runs(StudyTexts("", ()), Parents("parents", study.parent_study.runs(), {}))
    assert [run.label for run in resolved.runs] == [
        f"{size}-{label}-s0" for size in ("2x32", "2x64") for label in ("clean", "from-clean")
    ]
    assert len(resolved.waiting) == 2
    assert "worst depends on 2 runs in parents, and 2 of them are unfinished" in resolved.waiting[0]


def test_parents_without_a_finetune_table_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "plain.toml").write_text(PARENTS + 'parent = "clean"\n')
    with pytest.raises(
        InputError, match=r"grid.0.parent: runs can only have parents in a study with a \[finetune\] table"
    ):
        load_study(tmp_path / "plain.toml")
    (tmp_path / "plain.toml").write_text(PARENTS)
    with pytest.raises(InputError, match=r"the study has no \[finetune\] table"):
        load_study(tmp_path / "plain.toml", ["parent.training.tokens=1"])


@pytest.fixture(scope="module")
def family(study: Study, data_dir: Path) -> PreparedStudy:
    """The study `tiny` and a child study. The child has other packages of the standard library and an additional test set."""
    library = Path(os.__file__).parent
    source = {"kind": "files", "paths": [str(library / name) for name in ("ctypes", "dbm", "html", "urllib", "curses")]}
    further_tests = [{"name": "other", "source": {"kind": "files", "paths": [str(library / "wsgiref")]}}]
    parents = study.model_copy(update={"grid": [study.grid[0] | {"model": "2x16", "repeats": [1, 4]}]})
    fields = {
        "name": "child",
        "data": DataSpec.model_validate(
            {"source": source, "tokenizer_of": study.data, "vocabulary": 320, "max_tokens": 10**6, "test_fraction": 0.1}
        ),
        "training": study.training,
        "evaluation": study.evaluation,
        "evaluate": further_tests,
        "finetune": {"from": "tiny"},
        "parent_study": parents,
        "grid": [{"model": "2x16", "repeats": 1, "parent": ["scratch", "clean", {"repeats": 4}]}],
    }
    return prepare_study(Study.model_validate(fields), data_dir)


@pytest.fixture(scope="module")
def trained(family: PreparedStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the trained runs of both studies."""
    folder = tmp_path_factory.mktemp("runs")
    for stage, runs in [*family.ancestors(folder), (family, family.runs(folder))]:
        for run in runs:
            assert train(run, stage.store, folder / stage.study.name) is Outcome.DONE
    return folder


@pytest.mark.slow
def test_a_child_starts_from_exactly_its_parents_weights(
    family: PreparedStudy, trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(trained / "tiny", tmp_path / "tiny")
    assert family.parent
    seen: list[dict[str, torch.Tensor]] = []
    monkeypatch.setattr(
        "repeat_study.training.callback.evaluate_lanes",
        lambda evaluators, model, step: seen.append({k: v.clone() for k, v in model.state_dict().items()}) or 1 / 0,
    )
    for run in family.runs(tmp_path):
        with pytest.raises(ZeroDivisionError):
            train(run, family.store, tmp_path / "child")
        if run.parent:
            directory = RunDirectory(tmp_path / "tiny" / run.parent.name)
            parent = next(needed for needed in family.parents_needed(tmp_path) if needed.name == run.parent.name)
            expected = read_weights(directory.checkpoint, parent)[1]
        else:
            expected = Decoder(run.shape, family.store.vocabulary, run.context, [run.seed]).state_dict()
        weights = seen.pop()
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
        session = RunDirectory(tmp_path / "child" / run.name).session_rows()[0]
        assert session.get("parent_weights_sha256") == (weights_sha256(expected) if run.parent else None)


def test_a_childs_first_losses_on_its_parents_text_are_the_parents_last(family: PreparedStudy, trained: Path) -> None:
    children = [run for run in family.runs(trained) if run.parent]
    assert len(children) == 2
    for run in children:
        assert run.parent
        before = RunDirectory(trained / "tiny" / run.parent.name).rows()[-1]
        rows = RunDirectory(trained / "child" / run.name).rows()
        for text in ("test", "pool", "seen_unique"):
            assert rows[0][f"parent_{text}_loss"] == before[f"{text}_loss"]
            assert rows[-1][f"parent_{text}_loss"] != before[f"{text}_loss"]
        assert rows[-1]["test_loss"] < rows[0]["test_loss"] and rows[-1]["test_loss_other"] > 0
    scratch = RunDirectory(trained / "child" / family.runs(trained)[0].name)
    assert not any(key.startswith("parent_") for key in scratch.rows()[-1])


@pytest.mark.slow
def test_a_killed_child_resumes_with_the_same_result(family: PreparedStudy, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "tiny", tmp_path / "tiny")
    run = family.runs(trained)[2]
    directory = RunDirectory(tmp_path / "child" / run.name)
    for due in (8, 24):

        def train_and_kill(due: int = due) -> None:
            def watch(seen: Progress) -> None:
                if seen.step >= due:
                    os.kill(os.getpid(), signal.SIGKILL)

            train(run, family.store, directory.path.parent, watch)

        process = multiprocessing.get_context("fork").Process(target=train_and_kill)
        process.start()
        process.join(PATIENCE)
        assert process.exitcode == -signal.SIGKILL and directory.status() is Status.INTERRUPTED
    assert train(run, family.store, directory.path.parent) is Outcome.DONE
    assert [("parent_weights_sha256" in row, row["step"] > 0) for row in directory.session_rows()][-1] == (False, True)
    assert_same_result(directory.path, trained / "child" / run.name)


def test_a_missing_parent_gives_one_line(family: PreparedStudy, trained: Path, tmp_path: Path) -> None:
    run = family.runs(trained)[1]
    with pytest.raises(InputError, match=r"the parent of 2x16-from-clean-s0 is not finished .pending."):
        train(run, family.store, tmp_path / "child")
    shutil.copytree(trained / "tiny", tmp_path / "tiny")
    assert run.parent
    parent = RunDirectory(tmp_path / "tiny" / run.parent.name)
    intact = parent.checkpoint.read_bytes()
    middle = len(intact) // 2
    parent.checkpoint.write_bytes(intact[:middle] + bytes([intact[middle] ^ 1]) + intact[middle + 1 :])
    with pytest.raises(InputError, match=r"last.ckpt: damaged .it does not match its checksum."):
        train(run, family.store, tmp_path / "child")
    parent.checkpoint.unlink()
    with pytest.raises(InputError, match=r"last.ckpt: no such checkpoint"):
        train(run, family.store, tmp_path / "child")
    parent.done.unlink()
    with pytest.raises(
        InputError,
        match=r"is not finished .interrupted.; to train it, use `repeat-study run` or `sweep` with the study tiny",
    ):
        train(run, family.store, tmp_path / "child")
    shutil.rmtree(parent.path)
    shutil.copytree(trained / "tiny" / family.runs(trained)[2].parent.name, parent.path)  # type: ignore[union-attr]
    with pytest.raises(InputError, match=r"the spec of .* is in a folder with another name"):
        train(run, family.store, tmp_path / "child")


def copies(path: Path, package: str) -> dict[str, Any]:
    """Write the modules of a standard library package to a file, and return it as an `[[evaluate]]` table."""
    modules = sorted((Path(os.__file__).parent / package).glob("*.py"))
    path.write_text("".join(json.dumps({"text": module.read_text()}) + "\n" for module in modules))
    return {"name": package, "source": {"kind": "files", "paths": [str(path)]}}


@pytest.mark.parametrize(("package", "tested"), [("html", "child"), ("json", "child"), ("json", "tiny")])
def test_a_test_set_that_shares_a_document_with_training_text_is_an_error(
    package: str, tested: str, family: PreparedStudy, data_dir: Path, tmp_path: Path
) -> None:
    """The training text is that of the child or its parent, and so is the test set."""
    shared = (EvaluateSpec.model_validate(copies(tmp_path / "copies.jsonl", package)),)
    child, parents = family.study, family.study.parent_study
    assert parents
    if tested == "child":
        child = child.model_copy(update={"evaluate": shared})
    else:
        child = child.model_copy(update={"parent_study": parents.model_copy(update={"evaluate": shared})})
    with pytest.raises(
        InputError, match=rf"evaluate, {package}: document copies.jsonl:\d+ also appears in the training text"
    ):
        prepare_study(child, data_dir)


def test_a_test_set_too_short_for_a_sequence_is_an_error_before_training(
    family: PreparedStudy, data_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "short.txt").write_text("Too short.")
    short = EvaluateSpec.model_validate({"name": "short", "source": {"kind": "files", "paths": [str(tmp_path)]}})
    with pytest.raises(
        InputError, match=r"evaluate, short: the test set has \d+ tokens, too few for one sequence of 32"
    ):
        prepare_study(family.study.model_copy(update={"evaluate": (short,)}), data_dir)


def test_no_test_document_is_in_a_training_split_of_the_lineage(family: PreparedStudy) -> None:
    def documents(store: TokenStore, split: Any) -> set[bytes]:
        tokens = getattr(store, split)
        return {tokens[start:end].tobytes() for start, end in pairwise(store.offsets(split).tolist())}

    trained_on = set().union(*(documents(stage.store, "train") for stage in family.lineage))
    data_dir = family.store.folder.parent
    further_test = TokenStore(data_dir / family.study.evaluate[0].data(family.study.data).store_name)
    tested_on = [documents(store, "test") for store in (further_test, *(stage.store for stage in family.lineage))]
    assert all(tested_on) and not any(tested & trained_on for tested in tested_on)
