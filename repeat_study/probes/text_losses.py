"""Measure losses on a run's own texts and on the study's extra test sets, and the in-context score on the test set.

The null is a clean run: it never trains on the text on which its pool loss is measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from data_prep.token_store import find_store
from repeat_study.model.decoder import Decoder
from repeat_study.probes.in_context import in_context
from repeat_study.probes.probe import Evaluation, Probe, Subject
from repeat_study.probes.texts import Texts, sample_test_split, texts_of
from repeat_study.records.tables import Columns


@dataclass(frozen=True)
class LossInputs:
    """All texts on which one run's losses are measured."""

    texts: Texts
    extra_tests: dict[str, Tensor]  # the sequences of each extra test set, by name


def prepare(subject: Subject) -> LossInputs:
    """Prepare the texts of a run. Raises InputError if the store of an extra test set is missing."""
    run, data_dir = subject.run, subject.store.folder.parent
    extra_tests = {
        test.name: sample_test_split(run, find_store(data_dir, test.fingerprint)) for test in run.further_tests
    }
    return LossInputs(texts_of(run, subject.store), extra_tests)


def own_losses(model: Decoder, sequences: Sequence[Tensor]) -> list[Tensor]:
    """Compute each lane's token losses in nats on its own sequences [n, context + 1].

    Returns one float64 tensor [n, context] per lane, on the CPU. If a lane has fewer sequences than another, its sequences
    are repeated to fill the batch, and the losses on these copies are dropped.
    """
    longest = max(sequences, key=len)
    if not len(longest):
        return [torch.empty(0, longest.shape[1] - 1, dtype=torch.float64)] * len(sequences)
    order = torch.arange(len(longest))
    padded = [of_lane[order % len(of_lane)] if len(of_lane) else longest for of_lane in sequences]
    losses_lbt = model.token_losses(torch.stack(padded).to(model.embedding.device)).cpu()
    return [losses_bt[: len(of_lane)].double() for losses_bt, of_lane in zip(losses_lbt, sequences, strict=True)]


def mean(losses_bt: Tensor) -> float | None:
    """Mean loss in nats per token; None if there are no sequences."""
    return float(losses_bt.mean()) if len(losses_bt) else None


def per_sequence(losses_bt: Tensor) -> Columns:
    """Columns with each sequence's index and mean loss in nats per token; empty if there are no sequences."""
    return {"sequence": list(range(len(losses_bt))), "loss": losses_bt.mean(dim=1).tolist()} if len(losses_bt) else {}


def measure(inputs: Sequence[LossInputs | None], model: Decoder, step: int) -> list[Evaluation]:
    """Measure the losses. The loss on seen text is None until the run has trained on all of that text."""
    lanes = [lane for lane in inputs if lane]
    test = lanes[0].texts.test  # all lanes share the test set and the extra test sets
    test_lbt = model.token_losses(test.to(model.embedding.device).expand(len(lanes), -1, -1)).cpu()
    pool = own_losses(model, [lane.texts.pool for lane in lanes])
    seen = own_losses(model, [lane.texts.seen if step >= lane.texts.seen_after else test[:0] for lane in lanes])
    extra_tests = {name: own_losses(model, [tokens] * len(lanes)) for name, tokens in lanes[0].extra_tests.items()}
    return [
        Evaluation(
            {
                "test_loss": float(test_bt.double().mean()),
                "pool_loss": mean(pool[lane]),
                "seen_unique_loss": mean(seen[lane]),
                **{f"test_loss_{name}": mean(losses[lane]) for name, losses in extra_tests.items()},
                **in_context(test_bt),
            },
            {"test_sequences": per_sequence(test_bt.double()), "pool_sequences": per_sequence(pool[lane])},
        )
        for lane, test_bt in enumerate(test_lbt)
    ]


PROBE = Probe(prepare, measure)
