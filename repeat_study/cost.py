"""What a run costs before it is paid: FLOPs, time, memory."""

from dataclasses import dataclass

from repeat_study.config.model_sizes import Shape, Style
from repeat_study.config.run import Run
from repeat_study.records.metrics import METRICS

PROBE_CONTEXT = 1_600  # tokens of a probe's sequence at most: 11 copies of a paragraph
CHUNK_LOGITS = 1 << 27  # of the loss on a GPU, at a time

STATE_BYTES = 12  # per parameter: float32 weight and AdamW's two moments
GRADIENT_BYTES = 4  # per parameter; not split by FSDP while gradients are accumulated
CAST_BYTES = 2  # per parameter: the bfloat16 copy that autocast multiplies with


def run_flops(run: Run, vocabulary: int) -> float:
    """FLOPs of training a run, evaluations left out; `vocabulary` is the tokenizer's."""
    per_token = run.shape.training_flops_per_token(run.model_vocabulary(vocabulary), run.context)
    return float(per_token) * run.positions * run.context


def evaluation_share(run: Run) -> float:
    """Evaluation's share of a run's FLOPs; a forward pass is a third of a training step's work on the same tokens."""
    sizes, shape = run.evaluation, run.shape
    costs = [metric.cost for metric in METRICS if metric.cost]
    probed: float = sum(cost.sequences for cost in costs)
    # An ablation needs one pass of the intact model and, for each head, half of the layers on average.
    probed += sum(cost.sequences_per_head for cost in costs) * (1 + shape.layers * shape.heads / 2)
    tested = sizes.test_sequences * (1 + len(run.further_tests))
    if run.parent:
        tested += sizes.test_sequences + sizes.pool_sequences + sizes.seen_sequences
    tokens: float = (tested + sizes.pool_sequences + sizes.seen_sequences) * run.context
    tokens += probed * min(run.context, PROBE_CONTEXT)
    evaluated = tokens * len(sizes.steps(run.steps)) / 3
    return evaluated / (evaluated + run.positions * run.context)


def activation_bytes_per_token(shape: Shape, checkpointed: bool) -> int:
    """What a training step in bfloat16 keeps of each token until the backward pass, without the loss; the residual
    stream is float32.

    Per block: the residual stream before each norm (4·d), what the matrix products read (2 bytes each), queries, keys,
    values and their mix (2 bytes each) with a float32 log-sum per head, and the MLP's insides. Checkpointed: the residual
    stream before each block, and one block's insides while it is computed again.
    """
    d, inner, width = shape.d_model, shape.heads * shape.d_head, shape.mlp_width
    if shape.style is Style.QWEN:
        # RMSNorm keeps what it normalised too, that of queries and keys in float32; SwiGLU keeps both branches, the gate's
        # activation and their product.
        attention = 8 * d + 2 * 2 * d + 4 * 4 * inner + 5 * 2 * inner + 20 * shape.heads
        mlp = 8 * d + 2 * d + 4 * 2 * width
    else:
        attention = 4 * d + 2 * 2 * d + 4 * 2 * inner + 4 * shape.heads
        mlp = 4 * d + 2 * d + 2 * 2 * width if width else 0
    block = attention + mlp
    return shape.layers * 4 * d + block if checkpointed else shape.layers * block


@dataclass(frozen=True)
class Memory:
    """Bytes that training keeps on a device at once, at least; the kernels' workspaces come on top."""

    state: int
    activations: int
    loss: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.state + self.activations + self.loss


def training_memory(
    shape: Shape, vocabulary: int, context: int, sequences: int, checkpointed: bool, sharded_over: int = 1
) -> Memory:
    """Memory of one process in bfloat16 with `sequences` at a time; `sharded_over`: processes that split the state.

    The loss holds a chunk of logits three times over (bfloat16, float32, bfloat16 gradient), the float32 gradient of the
    unembedding and the gradient of what it reads.
    """
    parameters = shape.parameters_total(vocabulary)
    tokens = sequences * context
    chunk = min(CHUNK_LOGITS, tokens * vocabulary)
    return Memory(
        state=parameters * STATE_BYTES // sharded_over + parameters * (GRADIENT_BYTES + CAST_BYTES),
        activations=tokens * activation_bytes_per_token(shape, checkpointed),
        loss=chunk * (2 + 4 + 2) + 4 * vocabulary * shape.d_model + tokens * (4 + 2 + 2) * shape.d_model,
    )


def work(run: Run) -> float:
    """Relative time of a run on one core: its FLOPs, and 0.6 MFLOP per token for what is not arithmetic (measured for
    2x32, 2x64 and 2x96, where it predicts the ratios of seconds within 2%). Used to order runs and to guess time left."""
    per_token = run.shape.training_flops_per_token(vocabulary=1024, context=run.context) + 6e5
    return per_token * run.positions * run.context
