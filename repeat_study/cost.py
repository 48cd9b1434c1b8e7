"""Estimate the FLOPs, time and memory of a run before it is trained."""

from collections.abc import Sequence
from dataclasses import dataclass

from repeat_study.config.model_sizes import Shape, Style
from repeat_study.config.run import Run
from repeat_study.records.metrics import METRICS

PROBE_CONTEXT = 1_600  # maximum length of a probe sequence in tokens: 11 copies of a paragraph
CHUNK_LOGITS = (
    1 << 27
)  # number of logits per chunk in the GPU loss; equals loss.CHUNK_LOGITS_CUDA, which cannot be imported without torch

# CPU overhead per token, expressed in FLOPs.
# It was fitted to the models 2x32, 2x64 and 2x96, and predicts the ratios of their training times to within 2%.
OVERHEAD_FLOPS_PER_TOKEN = 6e5
PROCESS_START_SECONDS = 8.0  # measured: importing torch and Lightning takes 6 s of CPU time
RUN_START_SECONDS = 0.5  # measured: 0.1 to 0.4 s from the start of a run to its first evaluation
EVALUATION_SECONDS = 0.05  # measured on 2x32: fixed time per evaluation, in addition to its forward passes

STATE_BYTES = 12  # per parameter: the float32 weight and AdamW's two moments
GRADIENT_BYTES = 4  # per parameter; FSDP does not shard gradients while it accumulates them
CAST_BYTES = 2  # per parameter: the bfloat16 copy that autocast makes for matrix products


def run_flops(run: Run, vocabulary: int) -> float:
    """Training FLOPs of a run, excluding evaluation. vocabulary: size of the tokenizer's vocabulary."""
    per_token = run.shape.training_flops_per_token(run.model_vocabulary(vocabulary), run.context)
    return float(per_token) * run.positions * run.context


def expected_evaluation_share(run: Run) -> float:
    """The share of a run's FLOPs spent on evaluation.

    A forward pass takes a third as many FLOPs as a training step on the same tokens.
    """
    sizes, shape = run.evaluation, run.shape
    costs = [metric.cost for metric in METRICS if metric.cost]
    probe_sequences: float = sum(cost.sequences for cost in costs)
    # The ablation probe runs the intact model once. For each head, it reruns half of the layers on average.
    probe_sequences += sum(cost.sequences_per_head for cost in costs) * (1 + shape.layers * shape.heads / 2)
    test_sequences = sizes.test_sequences * (1 + len(run.further_tests))
    if run.parent:  # the parent's test set, pool and unique stream are evaluated too
        test_sequences += sizes.test_sequences + sizes.pool_sequences + sizes.seen_sequences
    tokens: float = (test_sequences + sizes.pool_sequences + sizes.seen_sequences) * run.context
    tokens += probe_sequences * min(run.context, PROBE_CONTEXT)
    evaluation = tokens * len(sizes.steps(run.steps)) / 3
    return evaluation / (evaluation + run.positions * run.context)


def activation_bytes_per_token(shape: Shape, checkpointed: bool) -> int:
    """Bytes per token that a bfloat16 training step saves for the backward pass, excluding the loss.

    Each block saves the float32 residual stream before each norm (4·d_model), the inputs of its matrix products (2 bytes
    each), the queries, keys, values and head outputs (2 bytes each), a float32 log-sum-exp per head, and the activations
    of the MLP. With `checkpointed`, only the residual stream before each block is saved, and activations exist for one block at a
    time, while it is recomputed.
    """
    d, inner, width = shape.d_model, shape.heads * shape.d_head, shape.mlp_width
    if shape.style is Style.QWEN:
        # RMSNorm also saves its normalized input, in float32 for queries and keys.
        # SwiGLU saves both branches, the gate's activation and the product.
        attention = 8 * d + 2 * 2 * d + 4 * 4 * inner + 5 * 2 * inner + 20 * shape.heads
        mlp = 8 * d + 2 * d + 4 * 2 * width
    else:
        attention = 4 * d + 2 * 2 * d + 4 * 2 * inner + 4 * shape.heads
        mlp = 4 * d + 2 * d + 2 * 2 * width if width else 0
    block = attention + mlp
    return shape.layers * 4 * d + block if checkpointed else shape.layers * block


@dataclass(frozen=True)
class Memory:
    """Peak device memory of training in bytes, excluding kernel workspaces."""

    state: int
    activations: int
    loss: int

    @property
    def total(self) -> int:
        """Sum of state, activations and loss."""
        return self.state + self.activations + self.loss


def training_memory(
    shape: Shape, vocabulary: int, context: int, sequences: int, checkpointed: bool, sharded_over: int = 1
) -> Memory:
    """Estimate the device memory of one process that trains in bfloat16.

    sequences: sequences per forward pass. sharded_over: number of processes across which FSDP shards the weights and
    optimizer state. The loss needs memory for one chunk of logits in bfloat16 and float32, the bfloat16 gradient of these
    logits, the float32 gradient of the unembedding, and the inputs of the loss with their gradients.
    """
    parameters = shape.parameters_total(vocabulary)
    tokens = sequences * context
    chunk = min(CHUNK_LOGITS, tokens * vocabulary)
    return Memory(
        state=parameters * STATE_BYTES // sharded_over + parameters * (GRADIENT_BYTES + CAST_BYTES),
        activations=tokens * activation_bytes_per_token(shape, checkpointed),
        loss=chunk * (2 + 4 + 2) + 4 * vocabulary * shape.d_model + tokens * (4 + 2 + 2) * shape.d_model,
    )


def relative_time(run: Run) -> float:
    """Relative training time of a run on one CPU core, in FLOPs; used to order runs and to estimate the time left."""
    per_token = run.shape.training_flops_per_token(vocabulary=1024, context=run.context) + OVERHEAD_FLOPS_PER_TOKEN
    return per_token * run.positions * run.context


def local_seconds(runs: Sequence[Run], vocabulary: int, speed: float, processes: int) -> float:
    """Estimate how many seconds parallel CPU processes need to train and evaluate runs, including start-up.

    vocabulary: size of the tokenizer's vocabulary. speed: FLOP/s per process.
    """
    if not runs:
        return 0.0
    seconds = []
    for run in runs:
        flops = run_flops(run, vocabulary) + OVERHEAD_FLOPS_PER_TOKEN * run.positions * run.context
        fixed = RUN_START_SECONDS + EVALUATION_SECONDS * len(run.evaluation.steps(run.steps))
        seconds.append(flops / (1 - expected_evaluation_share(run)) / speed + fixed)
    return PROCESS_START_SECONDS + max(sum(seconds) / processes, max(seconds))
