"""Reports of tests fit their laws with few draws."""

import pytest

from analysis.laws import study_fits as of_study


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bootstrap takes seconds that a page's form does not need; what intervals are worth is tested by itself."""
    monkeypatch.setattr(of_study, "DRAWS", 5)
