"""Named pools and mixtures of sources in study files: the runs that they declare, and one-line errors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.data_spec import DataSpec
from data_prep.errors import InputError
from repeat_study.config.corpora import MixedCorpus, PoolCorpus, StudyTexts
from repeat_study.config.study import Study, load_study
from repeat_study.overlap_checks import shared_training_text
from repeat_study.preparation import prepare_study
from tests.command import toml

TEXTS = [f"Document {number}: {' '.join('abcdefgh'[(number * k) % 8] * 3 for k in range(40))}." for number in range(80)]
STUDY = """
[training]
tokens = 2_048
context = 16
sequences_per_step = 4
learning_rate = 1e-3
"""


def source(folder: Path, name: str, texts: list[str]) -> dict[str, Any]:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return {"kind": "files", "paths": [str(path)]}


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, dict[str, Any]]:
    names = {"web": TEXTS, "good": [f"A {text}" for text in TEXTS[:40]], "code": [f"def {text}" for text in TEXTS]}
    return {name: source(tmp_path, name, texts) for name, texts in names.items()}


def study_of(folder: Path, tables: str, grid: str) -> Study:
    path = folder / "mine.toml"
    path.write_text(f"{tables}\n{STUDY}\n[[grid]]\nmodel = '1x16'\n{grid}\n")
    return load_study(path)


def pool_tables(sources: dict[str, dict[str, Any]], **pool: Any) -> str:
    data = f"[data]\nsource = {toml(sources['web'])}\nvocabulary = 260\nmax_tokens = 1_000_000\ntest_fraction = 0.2\n"
    lines = [
        f"{key} = {toml(value)}" for key, value in ({"source": sources["good"], "max_tokens": 10**6} | pool).items()
    ]
    return "\n".join([data, "[pool]", *lines])


def mix_tables(sources: dict[str, dict[str, Any]], **shares: float) -> str:
    tables = ["[data]\nvocabulary = 260\nmax_tokens = 1_000_000\ntest_fraction = 0.2"]
    tables += [
        f"[[data.mix]]\nname = '{name}'\nsource = {toml(sources[name])}\nshare = {share}"
        for name, share in shares.items()
    ]
    return "\n".join(tables)


def test_grids_with_a_fixed_fraction_and_a_fixed_pool_and_their_clean_controls(
    tmp_path: Path, sources: dict[str, Any]
) -> None:
    by_fraction = study_of(tmp_path, pool_tables(sources), "repeats = [0, 1, 4]\nrepeated_fraction = 0.25").runs()
    assert [run.label for run in by_fraction] == ["1x16-clean-s0", "1x16-f0.25-R1-s0", "1x16-f0.25-R4-s0"]
    assert [run.pool for run in by_fraction] == [0, 32, 8] and [run.repeated_fraction for run in by_fraction] == [
        0,
        0.25,
        0.25,
    ]
    assert [run.is_clean_control for run in by_fraction] == [True, False, False]
    grid = "repeats = [0, 1, 3]\npool_tokens = [320, 160]\nhold_fixed = ['total', 'fresh']"
    by_size = study_of(tmp_path, pool_tables(sources), grid).runs()
    assert len(by_size) == 1 + 2 * 2 * 2, "one clean control for all pools"
    for run in by_size[1:]:
        mixture = run.mixture()
        assert (
            mixture.repeats * mixture.pool + mixture.unique_positions == run.positions
            and mixture.repeats == run.repeats
        )
        assert run.positions == (128 if run.hold_fixed == "total" else (128 + run.repeats * run.pool) // 4 * 4)
        assert ("fresh" in run.label) == (
            run.hold_fixed == "fresh"
        ) and f"pool{run.pool * 16}-R{run.repeats}" in run.label


def test_the_size_of_an_entire_pool_is_an_estimate_until_its_store_is_built(
    tmp_path: Path, sources: dict[str, Any]
) -> None:
    study = study_of(tmp_path, pool_tables(sources), "repeats = [0, 2]\npool_tokens = 'all'")
    assert study.runs()[1].pool <= 64, "limited to what fits into the run"
    prepared = prepare_study(
        study_of(tmp_path, pool_tables(sources, max_tokens=900), "repeats = [0, 2]\npool_tokens = 'all'"), tmp_path
    )
    run = prepared.runs(tmp_path)[1]
    assert prepared.pool and run.fixed_pool == prepared.pool.train.size // 17 > 20
    assert run.model_dump()["fixed_pool"] == run.pool, "the identity contains a number"


def test_a_pool_with_the_text_of_the_training_data_is_drawn_from_it(tmp_path: Path, sources: dict[str, Any]) -> None:
    same = pool_tables(sources, source=sources["web"], max_tokens=900_000)
    prepared = prepare_study(study_of(tmp_path, same, "repeats = 2\npool_tokens = 320"), tmp_path)
    assert prepared.pool_drawn_from == "data" and prepared.training_stores == (prepared.store,)
    with pytest.raises(
        InputError, match=r'grid.0.pool_tokens: "all" is not possible, .* equals the text of data\), .*number'
    ):
        prepare_study(study_of(tmp_path, same, "repeats = [0, 1]\npool_tokens = 'all'\ntokens = 320"), tmp_path)


def test_all_units_share_the_clean_control_of_a_separate_pool(tmp_path: Path, sources: dict[str, Any]) -> None:
    grid = "repeats = [0, 2]\nrepeated_fraction = 0.25\nunit = ['sequence', 'document']"
    for pool, controls in ((sources["good"], 1), (sources["web"], 2)):
        study = study_of(tmp_path, pool_tables(sources, source=pool), grid)
        for runs in (study.runs(), prepare_study(study, tmp_path).runs(tmp_path)):
            assert sum(run.is_clean_control for run in runs) == controls, (
                "a unit changes the stream that leaves out the pool"
            )


def test_identities_depend_on_the_pool_and_the_shares_and_omit_absent_fields(
    tmp_path: Path, sources: dict[str, Any]
) -> None:
    study = study_of(tmp_path, pool_tables(sources), "repeats = 4\nrepeated_fraction = 0.25")
    pools = [PoolCorpus(fingerprint=fingerprint, tokens=9) for fingerprint in ("a" * 16, "b" * 16)]
    assert len({study.runs(StudyTexts("c" * 16, pool_corpus=pool))[0].identity for pool in pools}) == 2
    mixed = study_of(tmp_path, mix_tables(sources, web=0.5, code=0.5), "repeats = 4\nrepeated_fraction = 0.25")
    mix = mixed.runs()[0].mix
    other = (mix[0], MixedCorpus(name="code", share=0.5, fingerprint="d" * 16))
    assert mixed.runs(StudyTexts(mix=mix))[0].identity != mixed.runs(StudyTexts(mix=other))[0].identity
    plain = study_of(tmp_path, pool_tables(sources).split("[pool]")[0], "repeats = 4\nrepeated_fraction = 0.25")
    assert not plain.runs()[0].model_dump().keys() & {"pool_corpus", "mix", "fixed_pool", "hold_fixed"}
    assert "mix" not in plain.data.model_dump()


def test_the_stores_of_a_mixture_share_one_tokenizer(tmp_path: Path, sources: dict[str, Any]) -> None:
    study = study_of(tmp_path, mix_tables(sources, web=0.7, code=0.3), "repeats = 1")
    first, second = study.data.stores
    assert study.data.store_name == first.store_name and second.tokenizer_of == first
    alone = DataSpec.model_validate(study.data.model_dump(exclude={"mix", "source"}) | {"source": sources["web"]})
    assert first.store_name == alone.store_name, "a source of a mixture has the same store as on its own"


@pytest.mark.parametrize(
    ("pool", "grid", "message"),
    [
        ({}, "repeats = 4\npool_tokens = 1_024", "are 4,096 tokens, but the run has only 2,048; the largest possible R is 2"),
        ({}, "repeats = 1\npool_tokens = 4_096", "pool_tokens: a pool of 4,096 tokens is larger than the run, which has 2,048 tokens"),
        ({}, "repeats = 4\nrepeated_fraction = 1.5", "repeated_fraction: input should be less than or equal to 1, found 1.5"),
        ({}, "repeats = 4\nrepeated_fraction = 0.5\npool_tokens = 64", "0.5 found together with pool_tokens; expected one of the two"),
        ({}, "repeats = 1", r"repeated_fraction \(or pool_tokens\): required with repeats = 1; expected 0 < f <= 1"),
        ({}, "repeats = 2\nrepeated_fraction = 0.5\nhold_fixed = 'fresh'", 'hold_fixed: "fresh" needs pool_tokens'),
        ({}, "repeats = 2\npool_tokens = 'all'\ntokens = 'many'", "grid.0.tokens: .* found 'many'"),
        ({"max_tokens": 20}, "repeats = 2\npool_tokens = 'all'", "the pool has 16 tokens, too few for one sequence of 16 tokens and its"),
        ({}, "repeats = 2\npool_tokens = 'all'\ntokens = inf", "grid.0.tokens: "),
        ({}, "repeats = 2\npool_tokens = 'all'\nsequences_per_step = 'x'", "grid.0.sequences_per_step: .* found 'x'"),
        ({"source": {"kind": "tokens", "format": "nanogpt", "paths": ["x.bin"], "end_of_text": 0}}, "repeats = 0",
         "pool.source: these files contain token ids of another tokenizer, but the study trains its own; set data.tokenizer to"),
        ({}, "repeats = 2\npool_tokens = 3", r'pool_tokens: expected "all" or a number of tokens, at least 16 \(one sequence\), found 3'),
        ({}, "repeats = 2\npool_tokens = 'everything'", "pool_tokens: expected .all. or a number of tokens, .*, found 'everything'"),
        ({}, "repeats = 2\nfixed_pool = 3", "fixed_pool: not an axis; expected .*hold_fixed, .*pool_tokens"),
        ({}, "repeats = 2\npool_token = 64", "pool_token: unknown key; did you mean 'pool_tokens'"),
        ({"share": 0.5}, "repeats = 0", "pool.share: unknown key; expected max_shared_documents, max_tokens, source, test_fraction"),
        ({"source": {"kind": "nothing"}}, "repeats = 0", "pool.source: unknown kind 'nothing'"),
    ],
)  # fmt: skip
def test_an_invalid_pool_is_refused_in_one_line(
    pool: dict[str, Any], grid: str, message: str, tmp_path: Path, sources: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        study_of(tmp_path, pool_tables(sources, **pool), grid)
    assert "\n" not in str(caught.value)


def test_without_a_named_pool_its_settings_are_refused(tmp_path: Path, sources: dict[str, Any]) -> None:
    data = pool_tables(sources).split("[pool]")[0]
    for grid, message in (
        (
            "repeats = 0",
            r"repeats: 0 needs a named pool \(a \[pool\] table\); without one, the clean control is repeats = 1",
        ),
        ("repeats = 2\npool_tokens = 64", r"pool_tokens: needs a named pool"),
        ("repeats = 2\npool_tokens = 'all'", r"pool_tokens: .all. needs a named pool"),
    ):
        with pytest.raises(InputError, match=message):
            study_of(tmp_path, data, grid)
    same = pool_tables(sources, source=sources["web"])
    with pytest.raises(
        InputError, match=r'grid.0.pool_tokens: "all" is not possible, because the pool is drawn from the training data'
    ):
        study_of(tmp_path, same, "repeats = 2\npool_tokens = 'all'")
    installed = "[data]\nsource = 'installed-python'\nmax_tokens = 1_000_000\n[pool]\nsource = 'installed-prose'\nmax_tokens = 9_000\n"
    with pytest.raises(InputError, match=r"pool.test_fraction: 0.2 found; expected data.test_fraction = 0.05"):
        study_of(tmp_path, installed + "test_fraction = 0.2", "repeats = 0")
    taken = pool_tables(sources) + f"\n[[evaluate]]\nname = 'pool_domain'\nsource = {toml(sources['code'])}\n"
    with pytest.raises(
        InputError, match=r"evaluate.0.name: 'pool_domain' is reserved for the test set of the \[pool\] table"
    ):
        study_of(tmp_path, taken, "repeats = 0")


@pytest.mark.parametrize(
    ("shares", "change", "message"),
    [
        ({"web": 0.5, "code": 0.4}, ("", ""), r"data.mix: share: the shares add up to 0.5 \+ 0.4 = 0.9; expected exactly 1"),
        ({"web": 0.1234567, "code": 0.876543}, ("", ""), r"add up to 0.1234567 \+ 0.876543 = 0.9999997; expected exactly 1"),
        ({"web": 0.12345678, "code": 0.87654322}, ("", ""), "data.mix: share: the common denominator .*; expected at most 1,000,000"),
        ({"web": 1.5, "code": 0.5}, ("", ""), "data.mix.0.share: input should be less than or equal to 1, found 1.5"),
        ({"web": 0.5, "code": 0.5}, ("'code'", "'web'"), "data.mix.1.name: 'web' is used twice"),
        ({"web": 0.5, "code": 0.5}, ("max_tokens = 1_000_000", ""), "data.mix.0.max_tokens: missing; a value is required"),
        ({"web": 0.5, "code": 0.5}, ("[data]", "[data]\nsource = 'installed-python'"), "data.source: cannot be combined with data.mix"),
        ({"web": 0.5, "code": 0.5}, ("share = 0.5", "share = 0.5\ntokenizer = 'x'"), "data.mix.0.tokenizer: unknown key"),
    ],
)  # fmt: skip
def test_an_invalid_mixture_is_refused_in_one_line(
    shares: dict[str, float], change: tuple[str, str], message: str, tmp_path: Path, sources: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        study_of(tmp_path, mix_tables(sources, **shares).replace(*change), "repeats = 1")
    assert "\n" not in str(caught.value)


def test_text_that_the_stores_share_is_refused(tmp_path: Path, sources: dict[str, Any]) -> None:
    grid = "repeats = [0, 2]\nrepeated_fraction = 0.25"

    def error(name: str, texts: list[str], **pool: Any) -> str:
        with pytest.raises(InputError) as caught:
            shared = source(tmp_path, name, texts)
            prepare_study(study_of(tmp_path, pool_tables(sources, source=shared, **pool), grid), tmp_path)
        return str(caught.value)

    mine = [f"Mine: {text}" for text in TEXTS]
    both = error("both", mine + TEXTS[:6])
    assert (
        "training documents (" in both
        and "runs would see their text more than R times; remove them, or set pool.max_shared_documents" in both
    )
    allowed_source = source(tmp_path, "both", mine + TEXTS[:6])
    allowed = pool_tables(sources, source=allowed_source, max_shared_documents=6)
    prepared = prepare_study(study_of(tmp_path, allowed, grid), tmp_path)
    (shared,) = shared_training_text(prepared)
    assert shared.store is prepared.pool and shared.other is prepared.store and 0 < shared.text.documents <= 6
    as_mixture = mix_tables(sources | {"both": allowed_source}, web=0.5, both=0.5)
    pool = f"\n[pool]\nsource = {toml(allowed_source)}\nmax_tokens = 1_000_000"
    for tables, message in (
        (
            as_mixture,
            r"^both: 3 training documents .* training text of web .*more than once; .* set data.max_shared_documents",
        ),
        (
            as_mixture + pool,
            r"^both: 3 training documents .* more than R times; .* set pool.max_shared_documents \(now 0\)",
        ),
    ):
        with pytest.raises(InputError, match=message):
            prepare_study(study_of(tmp_path, tables, "repeats = 1\nrepeated_fraction = 0.1"), tmp_path)
    limit = as_mixture.replace("[data]", "[data]\nmax_shared_documents = 3")
    assert prepare_study(study_of(tmp_path, limit, "repeats = 1"), tmp_path).store.folder == prepared.store.folder
    tested = error("tested", mine + TEXTS, max_shared_documents=100, test_fraction=0.9)
    assert tested.startswith("pool: document tested.jsonl:") and "also appears in the training text" in tested
    trained = error("trained", mine + TEXTS, max_shared_documents=100, test_fraction=0.05)
    assert trained.startswith("test split of mine: document web.jsonl:"), trained


def test_an_error_in_a_pool_names_the_table_that_contains_the_key(tmp_path: Path, sources: dict[str, Any]) -> None:
    np.arange(300, dtype=np.uint16).tofile(tmp_path / "train.bin")
    data = {"kind": "tokens", "format": "nanogpt", "paths": [str(tmp_path / "train.bin")], "end_of_text": 150}
    tables = pool_tables(sources | {"web": data}).replace("vocabulary = 260", "vocabulary = 300").replace("0.2", "0.5")
    study = study_of(tmp_path, tables, "repeats = 0")
    with pytest.raises(InputError, match=r"^pool.source: the training data has no tokenizer, .*; set data.tokenizer"):
        prepare_study(study, tmp_path)
    np.full(9, 300, np.uint16).tofile(tmp_path / "large.bin")
    tables = pool_tables({"web": data, "good": data | {"paths": [str(tmp_path / "large.bin")]}})
    study = study_of(
        tmp_path, tables.replace("vocabulary = 260", "vocabulary = 300").replace("0.2", "0.5"), "repeats = 0"
    )
    with pytest.raises(InputError, match=r"check pool.source.dtype, and data.vocabulary or data.tokenizer$"):
        prepare_study(study, tmp_path)


def test_a_pool_or_source_that_is_too_small_is_refused(tmp_path: Path, sources: dict[str, Any]) -> None:
    study = study_of(tmp_path, pool_tables(sources, max_tokens=700), "repeats = 1\npool_tokens = 960")
    with pytest.raises(
        InputError, match=r"tokens: the pool of 60 sequences \(960 tokens\) is larger than its source, which has \d+ "
    ):
        prepare_study(study, tmp_path)
    small = mix_tables(sources, web=0.5, code=0.5).replace("share = 0.5", "share = 0.5\nmax_tokens = 900", 1)
    with pytest.raises(
        InputError, match=r"tokens: the run needs 64 unique sequences from the source 'web', but the source has \d+;"
    ):
        prepare_study(study_of(tmp_path, small, "repeats = 1"), tmp_path)
    twice = mix_tables(sources | {"code": sources["web"]}, web=0.5, code=0.5)
    with pytest.raises(InputError, match=r"data.mix, code: has the same text as another source"):
        prepare_study(study_of(tmp_path, twice, "repeats = 1"), tmp_path)
