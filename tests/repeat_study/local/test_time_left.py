"""The estimate of the remaining time, tested on schedules with known times."""

from dataclasses import dataclass

import pytest

from repeat_study.local.time_left import TimeLeft
from repeat_study.records.outcome import Progress


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def progress(run: str, share: float, seconds_left: float | None, resumed: bool = False) -> Progress:
    return Progress(run, round(share * 1000), 1000, 3.0, resumed, None if seconds_left is None else 500.0, seconds_left)


def test_nothing_is_estimated_before_a_run_has_trained_a_tenth_of_its_steps() -> None:
    clock = Clock()
    estimate = TimeLeft({"a": 1.0, "b": 1.0}, clock)
    estimate.started(("a",), new_process=True)
    for now, share, left in ((20, 0.0, None), (21, 0.001, 3000.0), (25, 0.09, 900.0)):
        clock.now = now
        estimate.progress(progress("a", share, left))
        assert estimate.seconds() is None
    clock.now = 30
    estimate.progress(progress("a", 0.1, 90.0))
    assert estimate.seconds() == pytest.approx(90 + 100)


def test_the_estimate_is_exact_for_equal_runs_after_a_slow_start() -> None:
    """Eight runs of 60 s each train on two processes that take 40 s to start, which makes 280 s in total."""
    clock, names = Clock(), [f"run{number}" for number in range(8)]
    estimate = TimeLeft(dict.fromkeys(names, 5.0), clock)
    for turn in range(4):
        pair = names[2 * turn : 2 * turn + 2]
        for name in pair:
            estimate.started((name,), new_process=turn == 0)
        begin = 40.0 + 60 * turn
        for tenth in range(11):
            clock.now = begin + 6 * tenth
            for name in pair:
                estimate.progress(progress(name, tenth / 10, 60 - 6 * tenth if tenth else None))
            if turn or tenth:
                assert estimate.seconds() == pytest.approx(280 - clock.now)
        for name in pair:
            estimate.ended(name)
    assert estimate.seconds() == 0


def test_steps_from_before_a_resume_do_not_count_towards_the_speed() -> None:
    clock = Clock()
    estimate = TimeLeft({"a": 1.0, "b": 1.0}, clock)
    estimate.started(("a",), new_process=True)
    clock.now = 10
    estimate.progress(progress("a", 0.5, None, resumed=True))
    clock.now = 20
    estimate.progress(progress("a", 0.6, 40.0))
    assert estimate.seconds() == pytest.approx(40 + 100)


def test_the_estimate_is_at_least_the_longest_run_and_a_restarted_run_waits_again() -> None:
    clock = Clock()
    estimate = TimeLeft({"long": 9.0, "short": 1.0}, clock)
    for name in ("long", "short"):
        estimate.started((name,), new_process=False)
    clock.now = 90
    estimate.progress(progress("short", 0.9, 10.0))
    estimate.progress(progress("long", 0.1, 810.0))
    assert estimate.seconds() == pytest.approx(810)
    estimate.restarted("long")
    assert estimate.seconds() == pytest.approx((10 + 900) / 2)


def test_the_estimate_leaves_out_the_remaining_steps_of_a_diverged_lane() -> None:
    clock = Clock()
    estimate = TimeLeft(dict.fromkeys("abcd", 1.0), clock)
    estimate.started(("a", "b"), new_process=False)
    clock.now = 50
    for name in "ab":
        estimate.progress(progress(name, 0.5, 50.0))
    assert estimate.seconds() == pytest.approx(50 + 100)
    estimate.ended("b")
    assert estimate.seconds() == pytest.approx(50 + 2 * 100 / 1.5)
