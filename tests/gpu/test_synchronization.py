"""During training steps, the host never waits for the GPU.

A GPU computes what the host has queued. If a step reads a number from the GPU, the host waits for it, the queue runs empty, and the
GPU idles until the host has queued new work. Only evaluations and saves may read numbers.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from data_prep.token_store import TokenStore
from repeat_study.config.resources import Resources
from repeat_study.config.run import Run
from repeat_study.records.outcome import Outcome
from repeat_study.training.callback import RunCallback
from repeat_study.training.trainer import train_bundle
from tests.gpu.conftest import STEPS

pytestmark = pytest.mark.gpu

READS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal")
MASKABLE = ("aten::index", "aten::index_put_")


class HostReads(TorchDispatchMode):
    """Raises an error if an operation would make the host wait for a GPU. It stands in for torch's own check on a CPU."""

    active = False

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        name = operation.name().split(".")[0]
        masks = [index for index in arguments[1] if index is not None] if name in MASKABLE else []
        masked = any(index.dtype in (torch.bool, torch.uint8) for index in masks)
        if self.active and (masked or name in READS):
            raise RuntimeError(f"{name} called a synchronizing operation")
        return operation(*arguments, **(keywords or {}))


@pytest.fixture
def forbid(device: str) -> Iterator[Callable[[bool], None]]:
    """A function that turns synchronizing operations into errors, or allows them again."""
    if device == "cuda":
        yield lambda forbidden: torch.cuda.set_sync_debug_mode("error" if forbidden else "default")
        torch.cuda.set_sync_debug_mode("default")
    else:
        with HostReads() as mode:
            yield lambda forbidden: setattr(mode, "active", forbidden)


@pytest.fixture
def guarded_steps(forbid: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps in which synchronizing operations were errors, from the end of the previous step to their own end.

    These are all steps after which nothing is evaluated, except the first one, which may compile the model. They include
    Lightning's loop and the transfer of the batch.
    """
    steps: list[int] = []
    start, end = RunCallback.on_train_start, RunCallback.on_train_batch_end

    def on_train_start(self: RunCallback, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        start(self, trainer, module)
        self.check_each_step = False  # as on a GPU

    def on_train_batch_end(self: RunCallback, trainer: lightning.Trainer, *arguments: Any) -> None:
        step = trainer.global_step
        if step in self.evaluation_steps:
            forbid(False)
        elif step > 1:
            steps.append(step)
        end(self, trainer, *arguments)
        forbid(step < STEPS)

    monkeypatch.setattr(RunCallback, "on_train_start", on_train_start)
    monkeypatch.setattr(RunCallback, "on_train_batch_end", on_train_batch_end)
    return steps


@pytest.mark.parametrize(
    ("count", "changes"),
    [
        (1, {}),
        (2, {"micro_sequences": 3}),
        (4, {"precision": "bfloat16"}),
        (4, {"checkpoint_activations": True}),
        (2, {"compile": True}),
    ],
)
def test_a_training_step_never_waits_for_the_gpu(
    count: int,
    changes: dict[str, Any],
    device: str,
    guarded_steps: list[int],
    lanes: list[Run],
    store: TokenStore,
    resources: Resources,
    tmp_path: Path,
) -> None:
    """A single run, a bundle of one recipe with accumulated gradients, bundles of several recipes, and a compiled bundle."""
    if device == "cpu" and "compile" in changes:
        pytest.skip("the check on a CPU does not see into compiled graphs")
    settings = Resources.model_validate(resources.model_dump() | changes)
    endings = train_bundle(lanes[:count], store, tmp_path, resources=settings)
    assert set(endings.values()) == {Outcome.DONE}
    assert guarded_steps == [step for step in range(2, STEPS) if step != STEPS // 2]


@pytest.mark.parametrize("read", [lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: x.nonzero()])
def test_the_check_notices_operations_that_wait(
    read: Callable[[torch.Tensor], object], forbid: Callable[[bool], None], device: str
) -> None:
    tensor = torch.ones(3, device=device)
    read(tensor)
    forbid(True)
    with pytest.raises(RuntimeError, match="called a synchronizing"):
        read(tensor)
    forbid(False)
    read(tensor)
