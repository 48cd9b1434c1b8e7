"""The commands predict and fit, as a user calls them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.laws import clean, partial
from analysis.laws.points import prediction_points
from analysis.laws.runs_csv import COLUMNS
from tests.command import call
from tests.repeat_study_cli.conftest import Invoke

PLAN = ("predict", "--params", "800M", "--tokens", "100B", "--fraction", "0.1")


@pytest.fixture
def runs_csv(tmp_path: Path) -> Path:
    """Runs of four model sizes that follow the partial law, with a little noise."""
    constants = {
        "B": 60.0,
        "P": 2.0,
        "eta": -0.1,
        "gamma": 1.5,
        "s": 2.0,
        "kappa": 0.8,
        "k": 9e3,
        "a": -0.4,
        "b": 0.0,
        "c": 0.0,
    }
    grid = [(n, 1e8, 0.9, r) for n in (2e5, 1e6, 5e6, 3e7) for r in (1, 4, 12, 40, 120, 400)]
    points = prediction_points(*np.array(grid, float).T)
    losses = clean.by_size({"E": 1.8, "A": 20.0, "alpha": 0.2}, points) + partial.penalty(constants, points)
    losses *= np.exp(0.002 * np.random.default_rng(0).standard_normal(len(points)))
    columns = (points.params, points.tokens, points.fraction, points.repeats, losses)
    lines = [",".join(map(str, row)) for row in zip(*columns, strict=True)]
    (path := tmp_path / "mine.csv").write_text("\n".join([",".join(COLUMNS), *lines]) + "\n")
    return path


def test_predict_answers_in_a_sentence_and_compares_the_laws(tmp_path: Path, invoke: Invoke) -> None:
    predicted = call(*PLAN, "--repeats", 100, "--json", "predicted.json", "--figure", "predicted.svg", cwd=tmp_path)
    assert predicted.returncode == 0, predicted.stderr
    first, second = predicted.stdout.splitlines()[:2]
    assert first.startswith("Repeating a 100M-token subset 100 times in this run raises the loss by ")
    assert "such intervals were widened until they contained 95% of the runs of held-out laboratories" in second
    assert 'The rule of thumb "at most 4 epochs"' in predicted.stdout
    written = json.loads((tmp_path / "predicted.json").read_text())
    assert written["plan"] == {"params": 8e8, "tokens": 1e11, "fraction": 0.1, "repeats": 100.0, "subset_tokens": None}
    assert written["answer"] == first
    cost = written["cost"]["cost_share_of_loss"]
    assert cost["low"] < cost["value"] < cost["high"]
    laws = {forecast["law"]: forecast for forecast in written["forecasts"]}
    assert set(laws) == {"partial", "hernandez", "chudnovsky", "muennighoff"}
    assert laws["hernandez"]["harmful_repeats"]["from"] < 100 < laws["hernandez"]["harmful_repeats"]["up_to"]
    assert laws["chudnovsky"]["worst_repeats"]["value"] < laws["hernandez"]["worst_repeats"]["value"]
    assert "tokens 100B" in " ".join(laws["chudnovsky"]["outside_fitted_range"])
    assert laws["muennighoff"]["worst_repeats"]["value"] is None
    assert (tmp_path / "predicted.svg").read_text().lstrip().startswith("<?xml")
    same = invoke(*PLAN, "--subset-tokens", "100M", cwd=tmp_path)
    assert same.stdout.splitlines()[:5] == predicted.stdout.splitlines()[:5]


def test_a_subset_keeps_its_size_for_every_R(tmp_path: Path, invoke: Invoke) -> None:
    plan = ("predict", "--params", "800M", "--tokens", "100B", "--subset-tokens", "1B")
    predicted = invoke(*plan, "--json", "a.json", "--table", "a.csv", "--max-cost", "1%", cwd=tmp_path)
    assert predicted.returncode == 0, predicted.stderr
    rows = pd.read_csv(tmp_path / "a.csv").set_index(["law", "repeats"])
    assert rows.loc["hernandez"].repeated_fraction.tolist() == [0.01, 0.02, 0.04, 0.05, 0.1, 0.2, 0.5, 1.0]
    assert (rows.xs(1, level="repeats").penalty_nats == 0).all(), "a run at R = 1 is clean"
    assert pd.isna(rows.loc[("hernandez", 10), "outside_fitted_range"])
    assert rows.loc[("hernandez", 50), "outside_fitted_range"] == "repeated fraction 0.5 (fitted on 0.1)"
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["plan"]["subset_tokens"] == 1e9 and len(written["table"]) == 8
    largest = written["largest_repeats"]["expected_repeats"]
    assert f"is expected to cost at most 1% of the loss is {largest:.0f}" in predicted.stdout or largest % 1 > 0.5
    assert rows.loc[("partial", 10.0)].cost_share_of_loss < 0.01 < rows.loc[("partial", 50.0)].cost_share_of_loss
    same_f = invoke(*PLAN, "--repeats", "10", "--json", "b.json", cwd=tmp_path)
    assert same_f.returncode == 0
    for forecast in json.loads((tmp_path / "b.json").read_text())["forecasts"]:
        row = rows.loc[(forecast["law"], 10.0)]
        assert row.penalty_nats == pytest.approx(forecast["penalty_nats"]["value"])
        assert row.size_multiplier == pytest.approx(forecast["size_multiplier"]["value"])


def test_a_census_of_duplicates_is_priced(tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / "census.csv").write_text("copies,tokens\n1,15B\n2,1B\n100,30M\n")
    plan = ("predict", "--params", "1B", "--tokens", "20B", "--histogram", "census.csv")
    predicted = invoke(*plan, "--json", "a.json", cwd=tmp_path)
    assert predicted.returncode == 0, predicted.stderr
    assert predicted.stdout.startswith("The duplicates raise the loss by ")
    priced = json.loads((tmp_path / "a.json").read_text())["duplicates"]
    assert [row["repeats"] for row in priced["by_copies"]] == [2, 100]
    total = sum(row["cost_share_of_loss"]["value"] for row in priced["by_copies"])
    assert priced["cost_share_of_loss"]["value"] == pytest.approx(total)


def test_a_plan_far_from_all_runs_gets_no_number(tmp_path: Path, invoke: Invoke) -> None:
    predicted = invoke(
        "predict", "--params", "1T", "--tokens", "20T", "--fraction", "0.1", "--json", "a.json", cwd=tmp_path
    )
    assert predicted.returncode == 0
    assert predicted.stdout.startswith(
        "No number: the plan is too far from the runs in the fit (parameters 115 times outside"
    )
    assert json.loads((tmp_path / "a.json").read_text())["answer"] is None


@pytest.mark.slow
def test_fit_prints_constants_and_a_verdict_and_predict_uses_them(runs_csv: Path, invoke: Invoke) -> None:
    fitted = invoke("fit", runs_csv.name, "--law", "partial", "--json", "fit.json", cwd=runs_csv.parent)
    assert fitted.returncode == 0, fitted.stderr
    assert (
        "24 runs, 4 clean. Penalties are relative to clean runs. Paired: 20 runs with the mean of the clean runs"
        in fitted.stdout
    )
    assert "With a size held out, the root mean square errors of the penalty" in fitted.stdout
    record = json.loads((runs_csv.parent / "fit.json").read_text())
    low, high = record["fits"][0]["intervals"]["s"]
    assert low < 2.0 < high
    assert {"gamma", "b"} <= set(record["fits"][0]["mostly_prior"]), "one fraction, one number of tokens"
    rows = {line.split()[0]: line for line in fitted.stdout.splitlines() if line.strip()}
    assert rows["gamma"].rstrip().endswith("(prior)") and "(prior)" not in rows["s"]
    assert "(depends on " in rows["k"], "k is determined only together with the exponents b and c"
    assert "the runs narrow the law's prior for this constant by less than 20%" in fitted.stdout
    assert {"partial", "hernandez"} <= {row["law"] for row in record["left_out"]}, "files have keys, not titles"
    assert all(row["coverage"] is None or 0 <= row["coverage"] <= 1 for row in record["left_out"])
    plan = ("predict", "--params", "5M", "--tokens", "100M", "--fraction", "0.9", "--csv", runs_csv.name)
    predicted = invoke(*plan, "--law", "partial", "--repeats", "40", "--json", "predicted.json", cwd=runs_csv.parent)
    assert predicted.returncode == 0 and "fitted on 24 runs" in predicted.stdout, predicted.stderr
    answer = json.loads((runs_csv.parent / "predicted.json").read_text())
    assert answer["origin"] == "fitted on 24 runs", "the user's own runs answer"
    own = answer["forecasts"][-1]
    assert own["penalty_nats"]["low"] < own["penalty_nats"]["value"] < own["penalty_nats"]["high"]
    assert own["lost_compute_share"] is None, "all runs have the same number of tokens"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*PLAN, "--repeats", "0.5"), "--repeats 0.5: the subset would be seen 0.5 times; expected 1 or more"),
        ((*PLAN, "--subset-tokens", "20B"), "--subset-tokens 20,000,000,000: the subset would be seen 0.5 times"),
        ((*PLAN, "--repeats", "5", "--subset-tokens", "1B"), "give only one of them"),
        ((*PLAN, "--max-cost", "much"), "--max-cost much: expected a percentage of the loss above 0 and up to 100"),
        ((*PLAN, "--histogram", "a.csv"), "--histogram and --fraction: the census already says what repeats"),
        ((*PLAN[:-2], "--histogram", "a.csv"), "a.csv: no such file"),
        (PLAN[:-2], "--fraction and --subset-tokens: expected at least one of them"),
        ((*PLAN[:-2], "--subset-tokens", "100B"), "expected fewer than the 100,000,000,000 tokens of the run"),
        (
            (*PLAN[:-2], "--subset-tokens", "1B", "--repeats", "101"),
            "--repeats 101: expected a number from 1 to 100, because f = R·D/T cannot exceed 1",
        ),
        ((*PLAN, "--law", "mine"), "--law mine: unknown law; expected partial, hernandez, chudnovsky, muennighoff"),
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
            "no law can be fitted; clean law of size: needs clean runs of at least three sizes, found 1",
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
