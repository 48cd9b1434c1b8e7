import math
from pathlib import Path
from typing import Any

import pytest

from data_prep.data_spec import DataSpec
from data_prep.errors import InputError
from repeat_study.config.corpora import StudyTexts
from repeat_study.config.resources import Resources
from repeat_study.config.run import EvaluationSpec, Run
from repeat_study.config.study import Study, load_study

STUDIES = Path(__file__).parents[3] / "studies"
LAPTOP = STUDIES / "laptop.toml"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.tokenz=3", "training.tokenz: unknown key; did you mean 'tokens'?"),
        ("training.tokens=abc", "training.tokens: input should be a valid integer, found 'abc'"),
        ("training.tokens=1.5", "training.tokens: input should be a valid integer"),
        ("training.tokens=100", "grid.0.tokens: 100 is less than one step of 16 sequences x 128 tokens"),
        ("grid.0.repeats=[0]", "grid.0.repeats: 0 needs a named pool"),
        ("grid.0.repeats=[2.5]", "grid.0.repeats: input should be a valid integer"),
        ("grid.0.repeats=[100000]", r"the pool would contain less than one sequence \(0.11\); the largest R .* is 10800"),
        ("grid.0.repeats=[7000]", "off by more than 5%"),
        ("grid.0.repeated_fraction=1.5", "grid.0.repeated_fraction: input should be less than or equal to 1, found 1.5"),
        ("grid.0.repeated_fraction=-0.1", "grid.0.repeated_fraction: input should be greater than or equal to 0"),
        ("grid.0.repeated_fraction=0.0", "grid.0.repeated_fraction: required with repeats = 10"),
        ('grid.0.modle="a"', "grid.0.modle: unknown key; did you mean 'model'?"),
        ('grid.0.model="huge"', "grid.0.model: unknown model size 'huge'"),
        ('grid.0.model="2x33"', "grid.0.model: unknown model size '2x33'"),
        ("grid.0.seed=[]", "grid.0.seed: empty list"),
        ('grid.0.corpus="a"', "grid.0.corpus: not an axis"),
        ("grid.9.seed=1", "the study has no key 'grid.9.seed'"),
        ("grid=[]", "grid: list should have at least 1 item"),
        ("data.vocabulary=3", "data.vocabulary: input should be greater than or equal to 257"),
        ('data.source="nowhere"', "data.source: unknown kind 'nowhere'; expected"),
        ('data.source={kind="files",paths=["a"],bogus=1}', "data.source.bogus: unknown key; expected"),
        ("evaluation.even_pionts=2", "evaluation.even_pionts: unknown key; did you mean 'even_points'?"),
        ("nonsense.x=1", "nonsense: unknown key; expected data, evaluate, evaluation, finetune, grid, models, name, "),
        ('name="../elsewhere"', "name: expected letters, digits, '_', '-' and '.', beginning with a letter"),
        (f'name="{"a" * 201}"', "name: string should have at most 200 characters, found 'aaa.*[.][.][.]$"),
        ("tokens", "expected key=value"),
        ("=3", "the key '' has an empty part; expected e.g. training.tokens"),
        ("training..tokens=3", "the key 'training..tokens' has an empty part"),
        ("training.tokens=8192\ntraining.context=32", "expected one value; use --set once for each key"),
        ("grid.-1.seed=1", "the study has no key 'grid.-1.seed'"),
        ("grid.0.repeated_fraction=1e-9", "12000 sequences are too few for any R above 1; increase repeated_fraction"),
        ("training.tokens=2024-01-01", "training.tokens: input should be a valid integer, found 2024-01-01"),
        ("training.tokens=true", "training.tokens: input should be a valid integer, found true"),
        ("data=[{vocabulary=300}]", r"data: expected a table, found \[{vocabulary = 300}\]"),
        ("data.source=[1]", r"data.source: expected a table, found \[1\]"),
        ('data.source={paths=["a"]}', 'data.source: the key .kind. is missing, found .*; expected one of .*"files"'),
        ('data.source={kind="files",paths=[]}', r"data.source.paths: list should have at least 1 item, found \[\]"),
        ('data.source={kind="files",paths="a"}', "data.source.paths: input should be a valid list, found 'a'"),
        ('data.source={kind="huggingface",dataset=""}', "data.source.dataset: string should have at least 1 character"),
        ('evaluate=[{name="A b",source="installed-prose"}]', "evaluate.0.name: expected lowercase letters, digits"),
        ("resources.precison=float32", "resources.precison: unknown key; did you mean 'precision'"),
        ("resources.precision=float8", "resources.precision: input should be 'auto', 'float32' or 'bfloat16', found"),
        ("models.2x64.epochs=3", "models.2x64.epochs: unknown key; expected beta1"),
        ("models.2y64.tokens=3", "models.2y64: not in the grid; its models are 2x16, 2x32"),
        ("models.2x64.learning_rate=fast", "models.2x64.learning_rate: input should be a valid number, found 'fast'"),
    ],
)  # fmt: skip
def test_invalid_input_gives_one_line_with_its_location(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_study(LAPTOP, [override])
    assert "\n" not in str(caught.value)
    assert "laptop.toml" in str(caught.value) or "--set" in str(caught.value)


def test_a_study_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    """Some editors on Windows write one, and lines that end with a carriage return."""
    path = tmp_path / "laptop.toml"
    path.write_bytes(b"\xef\xbb\xbf" + LAPTOP.read_bytes().replace(b"\n", b"\r\n"))
    assert load_study(path) == load_study(LAPTOP)
    path.write_text(LAPTOP.read_text(), encoding="utf-16")
    with pytest.raises(InputError, match=r"laptop.toml: not UTF-8"):
        load_study(path)


def test_errors_name_missing_and_malformed_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing.toml: no such study; studies in .*: .*laptop"):
        load_study(STUDIES / "nothing.toml")
    (tmp_path / "broken.toml").write_text("[data\n")
    with pytest.raises(InputError, match=r"broken.toml: not valid TOML"):
        load_study(tmp_path / "broken.toml")
    (tmp_path / "empty.toml").write_text("")
    with pytest.raises(InputError, match=r"empty.toml: data: missing"):
        load_study(tmp_path / "empty.toml")


def test_all_fractions_share_one_clean_control(study: Study) -> None:
    tables = [{"model": "2x16", "repeats": [1, 4], "repeated_fraction": fraction} for fraction in (0.25, 0.5)]
    runs = study.model_copy(update={"grid": tables}).runs()
    assert [run.label for run in runs] == ["2x16-clean-s0", "2x16-f0.25-R4-s0", "2x16-f0.5-R4-s0"]


def test_identity_depends_on_everything_that_can_change_the_result(study: Study) -> None:
    run = study.runs(StudyTexts("corpus-a"))[1]
    changes = {
        "seed": 1,
        "tokens": 2 * run.tokens,
        "weight_decay": 0.2,
        "corpus": "corpus-b",
        "model": "2x32",
        "repeats": 8,
        "unit": "document",
        "spacing": "uniform",
        "pool_seed": 1,
    }
    changes |= {"evaluation": EvaluationSpec(even_points=3)}
    identities = {run.identity, *(run.model_copy(update={key: value}).identity for key, value in changes.items())}
    assert len(identities) == len(changes) + 1
    assert Run.model_validate(run.model_dump()).identity == run.identity
    assert not {"processes", "device", "devices", "workers", "runs_dir"} & Run.model_fields.keys()


def test_identity_is_the_same_on_every_machine() -> None:
    # The identity dates from before additional test sets.
    run = load_study(LAPTOP).runs(StudyTexts("0123456789abcdef", ()))[0]
    assert run.name == "2x32-clean-s0-" + run.identity[:8]
    assert run.identity == "44509d9ece146cbe29cef9bf12e10bf799de55d66e6961d4ae54605bd330016e"


def test_identity_does_not_depend_on_resources(study: Study) -> None:
    machine = study.model_copy(update={"resources": Resources(precision="bfloat16", processes_per_run=8)})
    assert [run.identity for run in machine.runs()] == [run.identity for run in study.runs()]


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"processes_per_run": 3}, "the 8 sequences per step of 1x16 cannot be split evenly among 3 processes"),
        (
            {"processes_per_run": 8, "sharing": "fsdp"},
            "with FSDP, the 257 vocabulary rows of 1x16 cannot be split evenly",
        ),
    ],
)
def test_processes_that_cannot_split_a_run_evenly_are_an_error(
    resources: dict[str, Any], message: str, study: Study
) -> None:
    shared = study.model_copy(update={"resources": Resources(**resources)})
    with pytest.raises(InputError, match=message):
        shared.check_sharing(257)
    study.check_sharing(257)


def test_model_values_override_training_and_the_grid_overrides_both(study: Study) -> None:
    overriding = study.model_copy(update={"models": {"2x16": {"learning_rate": 0.5, "tokens": 4096}}})
    rates = {(run.model, run.learning_rate, run.tokens) for run in overriding.runs()}
    assert rates == {("1x16", 3e-3, study.training.tokens), ("2x16", 0.5, 4096)}
    gridded = overriding.model_copy(update={"grid": [{"model": "2x16", "repeats": 1, "learning_rate": [0.1, 0.2]}]})
    assert [run.learning_rate for run in gridded.runs()] == [0.1, 0.2]


def test_the_vocabulary_is_padded_to_a_multiple(study: Study) -> None:
    run = study.runs()[0]
    assert run.model_vocabulary(50_257) == 50_257
    assert run.model_copy(update={"vocabulary_multiple": 64}).model_vocabulary(50_257) == 50_304


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_declared_study_has_distinct_runs_and_clean_controls(path: Path) -> None:
    runs = load_study(path).runs()
    assert len({run.identity for run in runs}) == len(runs)
    clean = {(run.model, run.seed) for run in runs if run.is_clean_control}
    seeds = {run.seed for run in runs}
    assert {run.model for run in runs} == {model for model, _ in clean} and seeds == {seed for _, seed in clean}
    for run in runs:
        if run.fixed_pool:
            continue  # f follows from the size of the pool
        share = run.pool * run.repeats / run.positions
        assert abs(share - run.repeated_fraction) <= 0.05 * run.repeated_fraction


def test_hernandez2022_is_the_published_grid() -> None:
    runs = load_study(STUDIES / "hernandez2022.toml").runs()
    assert len(runs) == 10 + 10 * (5 + 4 * 6), "at f = 3%, the largest pool would be repeated less than once"
    assert {run.repeated_fraction for run in runs} == {0.0, 0.03, 0.1, 0.2, 0.5, 0.9}
    assert max(run.repeats for run in runs if run.repeated_fraction == 0.1) == 1220
    assert max(run.repeats for run in runs if run.repeated_fraction == 0.9) == 10_000
    pools = sorted({round(run.pool * run.context / 8.2e6, 1) for run in runs if run.repeats > 1})
    for run in runs:
        if run.repeats > 1:  # all fractions have the same six pool sizes, which differ by factors of sqrt(10)
            steps = math.log(run.pool * run.context / 8.2e6, math.sqrt(10))
            assert abs(steps - round(steps)) < 0.1 and 0 <= round(steps) <= 5, (run.label, pools)


def test_evaluations_are_evenly_and_log_spaced_and_include_both_ends() -> None:
    steps = EvaluationSpec(even_points=4, log_points=3).steps(100)
    assert steps == [0, 1, 10, 25, 50, 75, 100]
    assert EvaluationSpec(even_points=20, log_points=8).steps(1) == [0, 1]


def test_the_training_text_is_described_in_words(tmp_path: Path) -> None:
    assert load_study("own_pool").text_in_words == (
        "Python code (the standard library and installed packages);"
        " pool: English text (docstrings and READMEs of installed Python packages)"
    )
    assert "; parents: Python code" in load_study("transfer_to_prose").text_in_words
    files = DataSpec.model_validate(
        {"source": {"kind": "files", "paths": [f"/data/{name}" for name in "abcd"]}, "max_tokens": 9}
    )
    assert files.in_words == "files (a and 3 more)"
    mixed = [{"source": kind, "share": 0.5} for kind in ("synthetic", {"kind": "huggingface", "dataset": "a/b"})]
    assert (
        DataSpec.model_validate({"mix": mixed, "max_tokens": 9}).in_words
        == "50% synthetic, 50% Hugging Face dataset a/b"
    )
