"""Fixtures for the tests of the analysis package."""

from pathlib import Path

import pytest
from head_runs import write_runs_with_heads

from analysis.figures import plot
from analysis.laws import study_fits
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use few bootstrap resamples, because bootstraps take seconds. The tests in tests/analysis/laws check the intervals."""
    monkeypatch.setattr(study_fits, "RESAMPLES", 5)


@pytest.fixture
def with_pdf() -> None:
    """For tests of the PDF files; see `without_pdf`."""


@pytest.fixture(autouse=True)
def without_pdf(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Save figures without their PDF files, which take longer than all other formats, unless a test uses `with_pdf`."""
    if "with_pdf" not in request.fixturenames:
        monkeypatch.delitem(plot.UNDATED, "pdf")


@pytest.fixture
def with_heads(tmp_path: Path, runs: list[Run], store: TokenStore) -> Path:
    """A folder with the runs of `write_runs_with_heads`."""
    write_runs_with_heads(tmp_path, runs[0], store)
    return tmp_path
