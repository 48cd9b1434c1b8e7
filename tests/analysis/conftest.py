"""Reports of tests fit their laws with few bootstrap resamples."""

import pytest

from analysis.laws import study_fits


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bootstraps take seconds; tests/analysis/laws checks the intervals themselves."""
    monkeypatch.setattr(study_fits, "RESAMPLES", 5)
