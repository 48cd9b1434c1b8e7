"""The commands predict and fit, as a user calls them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.laws import partial
from analysis.laws.points import prediction_points
from analysis.laws.runs_csv import COLUMNS
from tests.command import call
from tests.repeat_study_cli.conftest import Invoke

PLAN = ("predict", "--params", "800M", "--tokens", "100B", "--fraction", "0.1")


@pytest.fixture
def runs_csv(tmp_path: Path) -> Path:
    """Runs of four model sizes that follow the partial law, with a little noise."""
    constants = partial.FIXED | {"E": 1.8, "A": 20.0, "alpha": 0.2, "B": 20.0, "beta": 0.3, "P": 100.0, "eta": -0.1}
    constants |= {"gamma": 1.5, "s": 2.0, "k": 3e7, "b": -0.3, "c": 0.0}
    grid = [(n, 1e8, 0.9, r) for n in (2e5, 1e6, 5e6, 3e7) for r in (1, 4, 12, 40, 120, 400)]
    points = prediction_points(*np.array(grid, float).T)
    losses = partial.loss(constants, points) * np.exp(0.002 * np.random.default_rng(0).standard_normal(len(points)))
    columns = (points.params, points.tokens, points.fraction, points.repeats, losses)
    lines = [",".join(map(str, row)) for row in zip(*columns, strict=True)]
    (path := tmp_path / "mine.csv").write_text("\n".join([",".join(COLUMNS), *lines]) + "\n")
    return path


def test_predict_prints_what_the_published_laws_predict(tmp_path: Path, invoke: Invoke) -> None:
    predicted = call(*PLAN, "--repeats", 100, "--json", "predicted.json", "--figure", "predicted.svg", cwd=tmp_path)
    assert predicted.returncode == 0, predicted.stderr
    assert "R = 100, a subset of 100M tokens" in predicted.stdout
    assert "R = 100 is in the harmful range of 2 of 2 laws" in predicted.stdout
    written = json.loads((tmp_path / "predicted.json").read_text())
    assert written["question"] == {"params": 8e8, "tokens": 1e11, "fraction": 0.1, "repeats": 100.0}
    laws = {forecast["law"]: forecast for forecast in written["forecasts"]}
    assert set(laws) == {"hernandez", "chudnovsky", "muennighoff"}
    assert laws["hernandez"]["harmful_from"]["value"] < 100 < laws["hernandez"]["harmful_up_to"]["value"]
    assert laws["chudnovsky"]["worst_repeats"]["value"] < laws["hernandez"]["worst_repeats"]["value"]
    assert "tokens 100B" in " ".join(laws["chudnovsky"]["outside_fitted_range"])
    assert laws["muennighoff"]["worst_repeats"]["value"] is None
    assert (tmp_path / "predicted.svg").read_text().lstrip().startswith("<?xml")
    same = invoke(*PLAN, "--subset-tokens", "100M", cwd=tmp_path)
    assert same.stdout.splitlines()[:5] == predicted.stdout.splitlines()[:5]


def test_a_subset_keeps_its_size_for_every_R(tmp_path: Path, invoke: Invoke) -> None:
    plan = ("predict", "--params", "800M", "--tokens", "100B", "--subset-tokens", "1B")
    predicted = invoke(*plan, "--json", "a.json", "--table", "a.csv", "--figure", "a.svg", cwd=tmp_path)
    assert predicted.returncode == 0, predicted.stderr
    rows = pd.read_csv(tmp_path / "a.csv").set_index(["law", "repeats"])
    assert rows.loc["hernandez"].fraction.tolist() == [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
    assert rows.loc["hernandez"].fresh_tokens_replaced.tolist() == [1e9, 2e9, 5e9, 1e10, 2e10, 5e10, 1e11]
    assert (rows.xs(1, level="repeats").penalty_nats == 0).all(), "a run at R = 1 is clean"
    in_domain = rows.xs(10, level="repeats").loc["hernandez"]
    assert pd.isna(in_domain.outside_fitted_range)
    assert rows.loc[("hernandez", 50), "outside_fitted_range"] == "repeated fraction 0.5 (fitted on 0.1)"
    too_many = rows.xs(200, level="repeats").iloc[0]
    assert too_many.reason == "needs 200B tokens, but the run has 100B; R can be at most 100"
    assert too_many.reason in predicted.stdout and pd.isna(too_many.penalty_nats)
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["question"]["subset_tokens"] == 1e9 and len(written["table"]) == len(rows)
    same_f = invoke(*PLAN, "--repeats", "10", "--json", "b.json", cwd=tmp_path)
    assert same_f.returncode == 0
    for forecast in json.loads((tmp_path / "b.json").read_text())["forecasts"]:
        row = rows.loc[(forecast["law"], 10.0)]
        assert row.penalty_nats == pytest.approx(forecast["penalty_nats"]["value"])
        assert row.size_multiplier == pytest.approx(forecast["size_multiplier"]["value"])
    one = invoke(*plan, "--repeats", "10", "--table", "one.csv", cwd=tmp_path)
    assert one.returncode == 0 and set(pd.read_csv(tmp_path / "one.csv").repeats) == {10}


@pytest.mark.slow
def test_fit_prints_constants_and_a_verdict_and_predict_uses_them(runs_csv: Path, invoke: Invoke) -> None:
    fitted = invoke("fit", runs_csv.name, "--law", "partial", "--json", "fit.json", cwd=runs_csv.parent)
    assert fitted.returncode == 0, fitted.stderr
    assert (
        "24 runs, 4 clean" in fitted.stdout
        and "With a model size held out, the root mean square prediction errors" in fitted.stdout
    )
    record = json.loads((runs_csv.parent / "fit.json").read_text())
    low, high = record["fits"][0]["intervals"]["alpha"]
    assert low < 0.2 < high
    assert "partial repetition (all constants free)" in fitted.stdout and "partial_free" not in fitted.stdout
    assert {"partial", "partial_free"} <= {row["law"] for row in record["left_out"]}, "files have keys, not titles"
    plan = ("predict", "--params", "5M", "--tokens", "100M", "--fraction", "0.9", "--csv", runs_csv.name)
    predicted = invoke(*plan, "--law", "partial", "--json", "predicted.json", cwd=runs_csv.parent)
    assert predicted.returncode == 0 and "fitted on 24 runs" in predicted.stdout, predicted.stderr
    (answer,) = json.loads((runs_csv.parent / "predicted.json").read_text())["forecasts"]
    assert answer["penalty_nats"]["low"] < answer["penalty_nats"]["value"] < answer["penalty_nats"]["high"]
    assert answer["lost_compute"] is None, "all runs have the same number of tokens"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*PLAN, "--repeats", "0.5"), "--repeats 0.5: the subset would be seen 0.5 times; expected 1 or more"),
        ((*PLAN, "--subset-tokens", "20B"), "--subset-tokens 20,000,000,000: the subset would be seen 0.5 times"),
        ((*PLAN, "--repeats", "5", "--subset-tokens", "1B"), "give only one of them"),
        ((*PLAN, "--table", "a.csv"), "--table: requires --subset-tokens without --fraction"),
        (PLAN[:-2], "--fraction and --subset-tokens: expected at least one of them"),
        ((*PLAN[:-2], "--subset-tokens", "100B"), "expected fewer than the 100,000,000,000 tokens of the run"),
        (
            (*PLAN[:-2], "--subset-tokens", "1B", "--repeats", "101"),
            "--repeats 101: expected a number from 1 to 100, because f = R·D/T cannot exceed 1",
        ),
        ((*PLAN, "--law", "mine"), "--law mine: unknown law; expected hernandez, chudnovsky, muennighoff"),
        ((*PLAN, "--figure", "a.gif"), "a.gif: unknown figure format; expected .pdf, .png, .svg"),
        ((*PLAN, "--json", "no/such.json"), "no/such.json: no such folder"),
        ((*PLAN, "--csv", "none.csv"), "none.csv: no such file"),
        (("predict", "--params", "8x", "--tokens", "1B", "--fraction", "0.1"), "'8x' is not a count; expected"),
        (
            ("predict", "--params", "8M", "--tokens", "1B", "--fraction", "2"),
            "--fraction 2: expected a share above 0",
        ),
        (
            ("fit", "mine.csv", "--law", "ours"),
            "--law ours: unknown law; expected clean_size, clean_compute, partial",
        ),
        (("fit", "mine.csv", "--columns", "size=N"), "--columns size=N: unknown column 'size'; expected params"),
        ((*PLAN, "--columns", "params=N"), "--columns: requires --csv"),
        ((*PLAN, "--set", "training.tokens=3"), "--set: requires --study"),
        ((*PLAN, "--figure", "a.svg", "--json", "./a.svg"), "--figure and --json: both are a.svg; expected two files"),
        ((*PLAN[:-1], "1.0000001"), "--fraction 1.0000001: expected a share above 0 and up to 1"),
        ((*PLAN[:-1], "10%"), ", found '10%'"),
        ((*PLAN, "--subset-tokens", "100"), "'100' is not a count; expected a count of at least 1,000"),
        (
            ("fit", "one.csv"),
            "no law can be fitted; clean law of size: needs at least 3 different clean runs for its 3 constants",
        ),
    ],
)
def test_bad_input_prints_one_line_and_exits_with_code_2(
    runs_csv: Path, invoke: Invoke, arguments: tuple[str, ...], message: str
) -> None:
    (runs_csv.parent / "one.csv").write_text(f"{','.join(COLUMNS)}\n1e6,1e8,0,1,3.5\n")
    ended = invoke(*arguments, cwd=runs_csv.parent)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1 and message in ended.stderr, ended.stderr
