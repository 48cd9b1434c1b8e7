"""Compare the head probes with TransformerLens on one trained run: check that the numbers agree, then compare times.

TransformerLens is used in the usual way: patterns, values and scales come from one cache; its own functions compute detection
patterns, stacked head results and (with FactoredMatrix) eigenvalues; and each ablated head takes one hooked forward pass.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformer_lens import FactoredMatrix, HookedTransformer
from transformer_lens.head_detector import (
    get_induction_head_detection_pattern,
    get_previous_token_head_detection_pattern,
)
from transformer_lens.utils import get_act_name

from repeat_study.export.conversion import configuration, weights
from repeat_study.export.transformer_lens import to_hooked_transformer
from repeat_study.model.decoder import Decoder
from repeat_study.probes.ablation import ablated_losses
from repeat_study.probes.checkpoint_probe import load_trained
from repeat_study.probes.circuits import eigenvalue_copying, ov_circuit
from repeat_study.probes.evaluation import Evaluator, evaluator
from repeat_study.probes.head_table import ABLATED_COPIES, ABLATED_SEQUENCES, head_table
from repeat_study.probes.heads import SEQUENCES, HeadProbe, attention_patterns
from repeat_study.probes.positions import windows

LIMIT = 1e-4  # largest accepted absolute difference
REPETITIONS = 3  # repetitions of each timed function in a round

Functions = dict[str, Callable[[], object]]  # functions to be timed, by name and in this order


class Lens:
    """A head probe made with TransformerLens. Scores have shape [layers, heads, sequences], and tensor names have the shape
    suffixes of `probes.heads`."""

    def __init__(self, model: HookedTransformer, probe: HeadProbe) -> None:
        self.model, self.length = model, probe.length
        self.inputs, self.targets = probe.sequences[:, :-1], probe.sequences[:, 1:]
        self.sample_nsd = model.tokens_to_residual_directions(self.inputs[:, 1 : 1 + probe.length])
        # Computed from the tokens of a copied sequence, not from our target. The null is scored at the same positions.
        self.induction_qp = get_induction_head_detection_pattern(self.inputs[:1])

    def run(self) -> dict[str, Tensor]:
        logits, self.cache = self.model.run_with_cache(self.inputs)
        return {"random_losses": losses_of(logits, self.targets)}

    def patterns(self) -> dict[str, Tensor]:
        pattern_ynhqp = self.cache.stack_activation("pattern")

        def attention_to(target_qp: Tensor) -> Tensor:
            to_target_ynhq = (pattern_ynhqp * target_qp).sum(dim=-1)
            return to_target_ynhq[..., target_qp.any(dim=1)].mean(dim=-1).movedim(1, -1)

        match, before_qp = attention_to(self.induction_qp), get_previous_token_head_detection_pattern(self.inputs[:1])
        return {
            "prefix_matching": match[..., :SEQUENCES],
            "prefix_matching_null": match[..., SEQUENCES:],
            "previous_token": attention_to(before_qp)[..., SEQUENCES:],
            "previous_token_null": attention_to(before_qp @ before_qp)[..., SEQUENCES:],
        }

    def attribution(self) -> dict[str, Tensor]:
        # `logit_attrs` is not used, because it omits the gain of a final norm that is not folded into the unembedding.
        written_cntd = self.cache.stack_head_results(apply_ln=True) * self.model.ln_final.w
        along_ntd = self.model.tokens_to_residual_directions(self.targets) - self.sample_nsd.mean(dim=1, keepdim=True)
        push_cn = (written_cntd * along_ntd).sum(dim=-1)[..., self.induction_qp.any(dim=1)].mean(dim=-1)
        push_yhn = push_cn.unflatten(0, (self.model.cfg.n_layers, -1))
        return {"attribution": push_yhn[..., :SEQUENCES], "attribution_null": push_yhn[..., SEQUENCES:]}

    def copying(self) -> dict[str, Tensor]:
        value_ynhsk = self.cache.stack_activation("v")[:, :, 1 : 1 + self.length].transpose(2, 3)
        written_ynhsd = value_ynhsk @ self.model.W_O[:, None]
        written_ynhsd = self.centered(written_ynhsd, -1) * self.model.ln_final.w
        logits_ynhss = written_ynhsd @ self.sample_nsd[:, None].mT
        push = (logits_ynhss - logits_ynhss.mean(dim=-1, keepdim=True)).relu()
        share = push / push.sum(dim=-1, keepdim=True)
        means = (values.diagonal(dim1=-2, dim2=-1).mean(dim=-1).mT for values in (share, share.roll(-1, -1)))
        score, null = (4 * mean.clamp_max(0.5) - 1 for mean in means)
        return {"copying": score[..., :SEQUENCES], "copying_null": null[..., :SEQUENCES]}

    def centered(self, x: Tensor, dim: int) -> Tensor:
        """What LayerNorm does before it divides; RMSNorm does not subtract the mean."""
        return x - x.mean(dim=dim, keepdim=True) if self.model.cfg.normalization_type == "LN" else x

    def circuits(self) -> dict[str, Tensor]:
        """Eigenvalue copying scores, which depend on the weights alone, shape [layers, heads]."""
        model, scores = self.model, []
        read_dv = model.ln_final.w[:, None] * model.W_U
        for layer, block in enumerate(model.blocks):
            source_vd = self.centered(model.W_E, 1) * block.ln1.w
            circuit = source_vd @ FactoredMatrix(model.W_V[layer], model.W_O[layer]) @ self.centered(read_dv, 0)
            eigenvalues = circuit.eigenvalues
            scores.append(eigenvalues.real.sum(dim=-1) / eigenvalues.abs().sum(dim=-1))
        return {"ov_copying": torch.stack(scores)}

    def ablated(self, sequences: Tensor) -> tuple[Tensor, Tensor]:
        """Losses on sequences [batch, time + 1]: with all heads [batch, time], and without each one [layers, heads, batch, time]."""
        inputs, targets = sequences[:, :-1], sequences[:, 1:]
        logits, cache = self.model.run_with_cache(inputs)
        freeze = (lambda name: name.endswith("hook_pattern"), lambda pattern, hook: cache[hook.name])
        layers, heads, losses = range(self.model.cfg.n_layers), range(self.model.cfg.n_heads), []
        for layer in layers:
            for head in heads:
                hooks = [freeze, (get_act_name("z", layer), partial(silenced, head=head))]
                losses.append(losses_of(self.model.run_with_hooks(inputs, fwd_hooks=hooks), targets))
        return losses_of(logits, targets), torch.stack(losses).unflatten(0, (len(layers), len(heads)))


def silenced(z_nthk: Tensor, hook: object, head: int) -> Tensor:
    z_nthk[:, :, head] = 0
    return z_nthk


def losses_of(logits: Tensor, targets: Tensor) -> Tensor:
    return -logits.log_softmax(dim=-1).gather(-1, targets[..., None])[..., 0]


def texts_of(evaluate: Evaluator) -> dict[str, Tensor]:
    """The texts on which `head_table` ablates heads."""
    _, late = windows(evaluate.texts.test.shape[1] - 1)
    copying, test = evaluate.copying, evaluate.texts.test[:ABLATED_SEQUENCES, : late.stop + 1]
    end = 1 + min(ABLATED_COPIES, copying.copies) * copying.length
    copied = torch.cat([half[:ABLATED_SEQUENCES, :end] for half in copying.sequences.chunk(2)])
    return {"copied": copied, "test": test}


def patterns_of(model: Decoder, inputs: Tensor) -> Tensor:
    """Attention patterns, shape [layers, batch, heads, time, time]."""
    patterns: list[Tensor] = []

    def record(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        patterns.append(attention_patterns(query, key))
        return patterns[-1] @ value

    model.residual(inputs[None], record)
    return torch.stack(patterns)


def differences(model: Decoder, lens: Lens, evaluate: Evaluator) -> dict[str, float]:
    """Largest absolute difference in each quantity over all sequences, positions and heads."""
    assert evaluate.heads
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for name, inputs in {"of the head probe": lens.inputs, "of the test text": evaluate.texts.test[:, :-1]}.items():
        logits, cache = lens.model.run_with_cache(inputs)
        pairs[f"logits {name}"] = model(inputs[None])[0], logits
        pairs[f"patterns {name}"] = patterns_of(model, inputs), cache.stack_activation("pattern")
    ours = evaluate.heads(model)
    theirs = lens.run() | lens.patterns() | lens.attribution() | lens.copying() | lens.circuits()
    pairs |= {name: (getattr(ours, name)[0].reshape(value.shape), value) for name, value in theirs.items()}
    for name, sequences in texts_of(evaluate).items():
        mine = ablated_losses(model, sequences, torch.arange(sequences.shape[1] - 1))
        for model_kind, own, peer in zip(
            ("of the model", "without each head"), mine, lens.ablated(sequences), strict=True
        ):
            pairs[f"losses {model_kind}, {name} text"] = own[0], peer
    return {name: float((own - peer).abs().max()) for name, (own, peer) in pairs.items()}


def milliseconds(functions: Functions) -> dict[str, float]:
    total = dict.fromkeys(functions, 0.0)
    for _ in range(REPETITIONS):
        for name, work in functions.items():
            start = time.process_time()  # CPU time, to exclude other processes
            work()
            total[name] += 1e3 * (time.process_time() - start) / REPETITIONS
    return total


def timed(model: Decoder, lens: Lens, evaluate: Evaluator, rounds: int) -> dict[str, float]:
    """Print the table of times. Returns the ratios."""
    assert evaluate.heads
    heads, scores, texts = evaluate.heads, evaluate.heads(model), texts_of(evaluate)
    ours: Functions = {
        "scores": lambda: heads(model),
        "OV circuits": lambda: [eigenvalue_copying(ov_circuit(model, block)) for block in model.blocks],
        "ablation": lambda: head_table(model, scores, evaluate.copying, evaluate.texts.test),
    }
    theirs: Functions = {
        "run_with_cache": lens.run,
        "patterns": lens.patterns,
        "attribution": lens.attribution,
        "copying": lens.copying,
        "OV circuits": lens.circuits,
        "ablation": lambda: [lens.ablated(sequences) for sequences in texts.values()],
    }
    milliseconds(ours), milliseconds(theirs)  # warm-up
    rows: list[tuple[dict[str, float], dict[str, float]]] = []
    for round_ in range(rounds):
        if round_ % 2:
            own, peer = milliseconds(ours), milliseconds(theirs)
        else:
            peer, own = milliseconds(theirs), milliseconds(ours)
        peer["scores"] = sum(time_ms for name, time_ms in peer.items() if name != "ablation")
        for times in (own, peer):
            times["head suite"] = times["scores"] + times["ablation"]
        rows.append((own, peer))
    print(f"CPU time per checkpoint in ms, and ratio TransformerLens / ours; median and range over {rounds} rounds")
    print(f"{'':16} {'ours':>8} {'TransformerLens':>16}  ratio")
    ratios = {}
    for name in (*(name for name in theirs if name != "ablation"), "scores", "ablation", "head suite"):
        peer_median = statistics.median(peer[name] for _, peer in rows)
        if name not in rows[0][0]:  # our probe computes all scores in one pass, so only the peer has separate times
            print(f"  {name:14} {'':8} {peer_median:16.1f}")
            continue
        each = [peer[name] / own[name] for own, peer in rows]
        ratios[f"{name} TransformerLens / ours"] = statistics.median(each)
        own_median = statistics.median(own[name] for own, _ in rows)
        print(
            f"{name:16} {own_median:8.1f} {peer_median:16.1f}  {statistics.median(each):.2f} ({min(each):.2f}-{max(each):.2f})"
        )
    return ratios


@torch.no_grad()
def compared(folder: Path, data_dir: Path, rounds: int) -> dict[str, float]:
    """Print the tables of differences and times. Returns the ratios. Exits with code 1 if a difference exceeds LIMIT."""
    torch.set_num_threads(1)
    subject = load_trained(folder, data_dir)
    run, model = subject.run, subject.model
    evaluate = evaluator(run, subject.store)
    if evaluate.heads is None:
        raise SystemExit(f"probes: {folder}: a context of {run.context} tokens is too short for the head probe")
    lens = Lens(to_hooked_transformer(configuration(model), weights(model)), evaluate.heads)
    largest = differences(model, lens, evaluate)
    print(f"{folder.name}: largest absolute differences from TransformerLens; allowed: {LIMIT:g}")
    for name, difference in largest.items():
        print(f"{name:40} {difference:.1e}")
    if above := [name for name, difference in largest.items() if not difference <= LIMIT]:
        raise SystemExit(f"probes: TransformerLens disagrees on {', '.join(above)}")
    return timed(model, lens, evaluate, rounds)
