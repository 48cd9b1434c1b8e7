"""The first screen of the report: what was varied, what happened, and how sure it is."""

import struct
from pathlib import Path

import pytest
from written_runs import write_run

from analysis.figures.headline import card
from analysis.report.first_screen import NO_ANSWER, FirstScreen, first_screen
from analysis.runs import load_runs
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run


def screen(folder: Path) -> FirstScreen:
    return first_screen(load_runs(folder), None, "repeat-study run mine", "poems")


def write(folder: Path, run: Run, store: TokenStore, seeds: int, excess: float = 0.5) -> None:
    """Runs whose excess at R = 4 is `excess`, 0.01 more for every seed, and whose excess at R = 16 is a fifth of that."""
    for seed in range(seeds):
        clean = 4.0 + 0.3 * seed  # seeds differ more than arms, so only pairs by seed show the effect
        for repeats, over in ((1, 0.0), (4, excess + 0.01 * seed), (16, excess / 5)):
            fields = {"model": "2x32", "repeats": repeats, "repeated_fraction": 0.5, "seed": seed}
            write_run(folder, run, store, [6.0, 5.0, clean + over], **fields)


def test_the_answer_is_paired_by_seed_and_has_its_interval(tmp_path: Path, runs: list[Run], store: TokenStore) -> None:
    write(tmp_path, runs[0], store, seeds=3)
    first = screen(tmp_path)
    assert first.question == "What does it cost if 50% of the training tokens repeat a pool 4 to 16 times?"
    # Excesses of 0.50, 0.51 and 0.52: t quantile 4.303, standard error 0.01 / sqrt(3)
    assert first.answer == (
        "The worst of 2 arms is R = 4: final test loss is 0.51 nats/token [0.49, 0.53] higher than without repetition (2x32, f = 50%)."
    )
    assert first.certainty.startswith("Brackets: 95% interval over 3 seeds.")
    assert dict(first.varied) == {
        "trained on": "poems",
        "repeats R": "4, 16",
        "compared with": "clean runs that see every sequence once",
        "seeds": "3",
    }
    assert first.command == "repeat-study run mine"


def test_with_one_seed_there_is_no_interval(tmp_path: Path, runs: list[Run], store: TokenStore) -> None:
    write(tmp_path, runs[0], store, seeds=1)
    first = screen(tmp_path)
    assert "0.50 nats/token higher than without repetition" in first.answer and "[" not in first.answer
    assert first.certainty.startswith("There is one seed, so there is no interval")


def test_a_single_arm_is_not_called_the_worst(tmp_path: Path, runs: list[Run], store: TokenStore) -> None:
    for repeats, loss in ((1, 4.0), (4, 4.5)):
        write_run(tmp_path, runs[0], store, [6.0, loss], model="2x32", repeats=repeats, repeated_fraction=0.5)
    assert screen(tmp_path).answer == (
        "At R = 4, final test loss is 0.50 nats/token higher than without repetition (2x32, f = 50%)."
    )


def test_a_difference_within_its_interval_is_no_effect(tmp_path: Path, runs: list[Run], store: TokenStore) -> None:
    write(tmp_path, runs[0], store, seeds=2, excess=0.002)
    assert screen(tmp_path).answer.startswith("Repetition costs nothing measurable: the largest difference from clean")


def test_without_a_control_there_is_no_answer(tmp_path: Path, runs: list[Run], store: TokenStore) -> None:
    for repeats in (4, 16):
        write_run(tmp_path, runs[0], store, [6.0, 5.0], model="2x32", repeats=repeats, repeated_fraction=0.5)
    assert screen(tmp_path).answer == NO_ANSWER


@pytest.mark.parametrize("factor", [{"weight_decay": 0.5}, {"spacing": "uniform"}])
def test_a_study_with_variants_asks_about_their_factor(
    factor: dict[str, object], tmp_path: Path, runs: list[Run], store: TokenStore
) -> None:
    for seed in range(2):
        for setting, over in (({}, 0.1), (factor, 0.3 + 0.01 * seed)):
            for repeats in (1, 4) if setting.keys() != {"spacing"} else (4,):  # a clean run has no copies to order
                end = 4.0 + seed + (over if repeats > 1 else 0.0)
                fields = {"model": "2x32", "repeats": repeats, "repeated_fraction": 0.5, "seed": seed, **setting}
                write_run(tmp_path, runs[0], store, [6.0, 5.0, end], **fields)
    first = screen(tmp_path)
    name = "the weight decay" if "weight_decay" in factor else "the order of the copies"
    assert first.question == f"Does the cost of repeating data depend on {name}?"
    assert "repetition costs 0.21 nats/token [0.14, 0.27] more with" in first.answer
    assert "In clean runs" not in first.answer, "they do not differ"
    assert name.removeprefix("the ") in dict(first.varied)


def test_a_factor_that_changes_clean_runs_is_not_said_to_change_only_the_cost(
    tmp_path: Path, runs: list[Run], store: TokenStore
) -> None:
    for seed in range(2):
        for decay, price, cost in ((0.1, 0.0, 0.5), (1.0, 0.75, 0.25)):
            for repeats, over in ((1, price), (4, price + cost)):
                fields = {
                    "model": "2x32",
                    "repeats": repeats,
                    "repeated_fraction": 0.5,
                    "seed": seed,
                    "weight_decay": decay,
                }
                write_run(tmp_path, runs[0], store, [6.0, 4.0 + seed + over], **fields)
    answer = screen(tmp_path).answer
    assert (
        "repetition costs 0.25 nats/token [0.25, 0.25] less with weight_decay = 1.0 than with weight_decay = 0.1"
        in answer
    )
    assert answer.endswith("In clean runs, the difference in final test loss is +0.75 nats/token [+0.75, +0.75].")


def test_the_card_has_the_size_that_chats_show(tmp_path: Path, runs: list[Run], store: TokenStore) -> None:
    write(tmp_path, runs[0], store, seeds=2)
    png = card(load_runs(tmp_path), "mine", "What?", "That.", "There is one seed.", "4 runs")
    assert struct.unpack(">II", png[16:24]) == (1200, 630)
    assert card(load_runs(tmp_path), "mine", "What?", "That.", "There is one seed.", "4 runs") == png
