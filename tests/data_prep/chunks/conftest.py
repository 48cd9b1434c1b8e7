"""Corpora in four kinds of sources, small chunks, and worker processes that start fast."""

import multiprocessing
from typing import Any

import pytest

from data_prep.chunks import local_pool, plan
from tests.data_prep.chunks import planted


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The fields of a data spec for each kind of source."""
    folder = tmp_path_factory.mktemp("corpora")
    return {kind: planted.fields(folder, kind) for kind in planted.KINDS}


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divide a small corpus into many chunks. Worker processes are used even for little text, and are forked."""
    monkeypatch.setattr(plan, "SMALLEST_CHUNK", 6000)
    monkeypatch.setattr("data_prep.prepare.BYTES_FOR_PROCESSES", 0)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["data_prep.chunks.worker", "pyarrow.parquet", "datasets"])
    monkeypatch.setattr(local_pool, "PROCESSES", context)
