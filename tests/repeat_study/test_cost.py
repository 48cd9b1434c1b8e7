"""Predicted costs match measured ones."""

import pytest
import torch

from repeat_study.config.model_sizes import shape_of
from repeat_study.config.run import Run
from repeat_study.cost import (
    CHUNK_LOGITS,
    activation_bytes_per_token,
    expected_evaluation_share,
    run_flops,
    training_memory,
)
from repeat_study.model import loss
from repeat_study.model.decoder import Decoder
from repeat_study.records.metrics import METRICS


def saved_for_backward(name: str, checkpointed: bool, sequences: int = 3, context: int = 40) -> float:
    """Bytes per token that autograd saves under bfloat16 autocast, excluding weights and counting shared storage once."""
    model = Decoder(shape_of(name), 64, context, [0], checkpointed)
    weights = {parameter.numel() for parameter in model.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.nbytes() // 4 not in weights and storage.nbytes() // 2 not in weights:
            saved[storage.data_ptr()] = tensor
        return tensor

    tokens = torch.zeros(1, sequences, context, dtype=torch.int64)
    with (
        torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16),
    ):
        model.residual(tokens)
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values()) / (sequences * context)


@pytest.mark.parametrize("name", ["4x64", "3L", "4x128-attn", "4x128-qwen", "34M"])
def test_activation_bytes_match_what_autograd_saves(name: str) -> None:
    shape = shape_of(name)
    final_norm = (8 if name in ("4x128-qwen", "34M") else 4) * shape.d_model  # counted with the loss
    measured = saved_for_backward(name, False) - final_norm
    assert activation_bytes_per_token(shape, False) == pytest.approx(measured, rel=0.03)


def test_checkpointing_saves_the_residual_stream_before_each_block() -> None:
    shape = shape_of("4x64")
    block = activation_bytes_per_token(shape, False) // 4
    measured = saved_for_backward("4x64", True) - 4 * shape.d_model
    assert activation_bytes_per_token(shape, True) - block == pytest.approx(measured, rel=0.03)


def test_the_memory_estimate_uses_the_chunk_size_of_the_loss() -> None:
    assert CHUNK_LOGITS == loss.CHUNK_LOGITS_CUDA


def test_the_largest_model_in_the_paper_fits_into_80_gb() -> None:
    memory = training_memory(shape_of("16L"), 50_304, 8192, sequences=2, checkpointed=False)
    assert memory.total < 60e9
    all_logits = 2 * 8192 * 50_304 * (2 + 4 + 4)
    assert memory.loss < all_logits / 4, "chunks keep the loss small"


def test_flops_and_evaluation_share_match_a_hand_count(runs: list[Run]) -> None:
    run = runs[0]  # 64 steps of 8 sequences of 32 tokens; evaluated at 0, 1, 8 (twice), 16, ..., 64
    assert run_flops(run, 320) == run.shape.training_flops_per_token(320, 32) * 64 * 8 * 32
    costs = [metric.cost for metric in METRICS if metric.cost]  # test_evaluation checks that they match the probes
    per_evaluation, per_head = sum(cost.sequences for cost in costs), sum(cost.sequences_per_head for cost in costs)
    assert per_evaluation >= 12 + 14 and per_head >= 4 + 4 + 4, (
        "copying and heads; paragraphs, shuffles and test sequences"
    )
    forward = 10 * (16 + 8 + 8 + per_evaluation + per_head * (1 + 1 / 2)) / 3
    assert expected_evaluation_share(run) == pytest.approx(forward / (forward + 64 * 8))
