"""Losses on a run's own texts and on the study's further test sets, and how the test loss falls along the context.

The null is a clean run: its pool loss is on similar text that it never trains on.
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
    """The texts of one run."""

    texts: Texts
    further: dict[str, Tensor]  # further test sets by name, shaped like the test set


def prepare(subject: Subject) -> LossInputs:
    """Gather the texts. Raises InputError if the store of a further test set is missing."""
    run, data_dir = subject.run, subject.store.folder.parent
    further = {text.name: sample_test_split(run, find_store(data_dir, text.fingerprint)) for text in run.further_tests}
    return LossInputs(texts_of(run, subject.store), further)


def own_losses(model: Decoder, sequences: Sequence[Tensor]) -> list[Tensor]:
    """Every lane's loss of each token of its own sequences [n, context + 1] in nats: float64 tensors [n, context], one per lane.

    Lanes with fewer sequences are padded by cycling through them, and the padding is removed again.
    """
    longest = max(sequences, key=len)
    if not len(longest):
        return [torch.empty(0, longest.shape[1] - 1, dtype=torch.float64)] * len(sequences)
    order = torch.arange(len(longest))
    padded = [of_lane[order % len(of_lane)] if len(of_lane) else longest for of_lane in sequences]
    losses_lbt = model.token_losses(torch.stack(padded).to(model.embedding.device))
    return [losses_bt[: len(of_lane)].double() for losses_bt, of_lane in zip(losses_lbt, sequences, strict=True)]


def mean(losses_bt: Tensor) -> float | None:
    """The mean loss in nats per token; None if there are no sequences."""
    return float(losses_bt.mean()) if len(losses_bt) else None


def per_sequence(losses_bt: Tensor) -> Columns:
    """Each sequence's number and its mean loss in nats per token; empty if there are no sequences."""
    return {"sequence": list(range(len(losses_bt))), "loss": losses_bt.mean(dim=1).tolist()} if len(losses_bt) else {}


def measure(inputs: Sequence[LossInputs | None], model: Decoder, step: int) -> list[Evaluation]:
    """The losses; that on seen text is None until the run has trained on all of it."""
    lanes = [of_lane for of_lane in inputs if of_lane]
    test = lanes[0].texts.test  # the same in all lanes, as are the further test sets
    test_lbt = model.token_losses(test.to(model.embedding.device).expand(len(lanes), -1, -1))
    pool = own_losses(model, [lane.texts.pool for lane in lanes])
    seen = own_losses(model, [lane.texts.seen if step >= lane.texts.seen_after else test[:0] for lane in lanes])
    further = {name: own_losses(model, [tokens] * len(lanes)) for name, tokens in lanes[0].further.items()}
    return [
        Evaluation(
            {
                "test_loss": float(test_bt.double().mean()),
                "pool_loss": mean(pool[lane]),
                "seen_unique_loss": mean(seen[lane]),
                **{f"test_loss_{name}": mean(losses[lane]) for name, losses in further.items()},
                **in_context(test_bt),
            },
            {"test_sequences": per_sequence(test_bt.double()), "pool_sequences": per_sequence(pool[lane])},
        )
        for lane, test_bt in enumerate(test_lbt)
    ]


PROBE = Probe(prepare, measure)
