"""On a GPU, bfloat16 learns like float32, and compiling does not change what a run learns."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from data_prep.token_store import TokenStore
from repeat_study.checkpoints.files import read_weights
from repeat_study.config.resources import REDUCE_OVERHEAD, Resources
from repeat_study.config.run import Run
from repeat_study.records.outcome import Outcome
from repeat_study.records.run_directory import RunDirectory
from repeat_study.training.trainer import train_bundle
from tests.gpu.records import CLOSE, assert_close_losses, rows

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("style", ["2x32", "2x32-qwen"])
def test_bfloat16_learns_like_float32(
    style: str, lanes: list[Run], store: TokenStore, resources: Resources, tmp_path: Path
) -> None:
    """The weights and all recorded numbers stay float32."""
    run = lanes[1].model_copy(update={"model": style})
    for precision in ("bfloat16", "float32"):
        settings = Resources.model_validate(resources.model_dump() | {"precision": precision})
        assert train_bundle([run], store, tmp_path / precision, resources=settings)[run.name] is Outcome.DONE
    assert_close_losses(tmp_path / "bfloat16", tmp_path / "float32", run, 0.02)
    directory = RunDirectory(tmp_path / "bfloat16" / run.name)
    assert directory.session_rows()[0]["precision"] == "bfloat16"
    last = [rows(tmp_path / precision, run)[-1]["test_loss"] for precision in ("bfloat16", "float32")]
    assert last[0] != last[1], "the matrix products were rounded differently"
    _, weights = read_weights(directory.checkpoint, run)
    assert {value.dtype for value in weights.values()} == {torch.float32}


@pytest.fixture
def counted_graphs() -> Iterator[None]:
    """Resets torch's counters of compiled graphs."""
    torch._dynamo.utils.counters.clear()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("mode", [True, REDUCE_OVERHEAD])
def test_compiling_does_not_change_losses(
    mode: bool | str,
    counted_graphs: None,
    device: str,
    lanes: list[Run],
    singles: Path,
    store: TokenStore,
    resources: Resources,
    tmp_path: Path,
) -> None:
    """A compiled bundle has the losses of single runs that were not compiled."""
    if device == "cpu" and shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU")
    settings = Resources.model_validate(resources.model_dump() | {"compile": mode})
    train_bundle(lanes[:2], store, tmp_path, resources=settings)
    for run in lanes[:2]:
        assert_close_losses(tmp_path, singles, run, CLOSE)
    counted = torch._dynamo.utils.counters
    assert counted["stats"]["unique_graphs"] == 2, "one graph for both blocks and one for the loss"
    assert not counted["recompile_limit"] and not counted["graph_break"]
    if device == "cuda" and mode == REDUCE_OVERHEAD:
        assert not counted["inductor"]["cudagraph_skips"], "CUDA graphs were used"
