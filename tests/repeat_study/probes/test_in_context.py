import pytest
import torch
from scipy.stats import t as student_t

from repeat_study.probes.in_context import in_context, position_bands, windows
from repeat_study.probes.intervals import mean_and_interval


@pytest.mark.parametrize(
    ("context", "early", "late"),
    [
        (8192, (23, 75), (473, 525)),  # around tokens 50 and 500
        (512, (23, 75), (473, 512)),
        (128, (5, 17), (118, 128)),
        (8, (0, 1), (6, 8)),
    ],
)
def test_windows_surround_tokens_50_and_500_or_the_same_fractions(
    context: int, early: tuple[int, int], late: tuple[int, int]
) -> None:
    assert [(window.start, window.stop) for window in windows(context)] == [early, late]


@pytest.mark.parametrize("context", [1, 2, 8, 64, 1000, 8192])
def test_windows_and_bands_fit_every_context(context: int) -> None:
    assert all(0 <= window.start < window.stop <= context for window in windows(context))
    bands = position_bands(context)
    assert len(bands) <= 16 and [place for low, high in bands for place in range(low, high)] == list(range(context))


def test_the_score_is_late_minus_early() -> None:
    losses = torch.full((5, 128), 3.0)
    losses[:, 5:17], losses[:, 118:] = 5.0, torch.arange(5.0)[:, None]
    row = in_context(losses)
    samples = torch.arange(5.0) - 5.0
    assert row["in_context_score"] == pytest.approx(-3.0)
    assert row["in_context_score_ci"] == pytest.approx(float(student_t.ppf(0.975, 4) * samples.std() / 5**0.5))
    assert row["loss_by_position"][0] == 3.0 and len(row["loss_by_position"]) == len(position_bands(128))


def test_one_sequence_has_no_interval() -> None:
    assert in_context(torch.rand(1, 64))["in_context_score_ci"] is None


def test_an_interval_covers_the_mean_in_95_percent_of_samples() -> None:
    samples = torch.randn(4000, 6, generator=torch.Generator().manual_seed(0))
    mean, half = mean_and_interval(samples)
    assert float((mean.abs() <= half).double().mean()) == pytest.approx(0.95, abs=0.01)
