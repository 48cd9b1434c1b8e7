"""Measure how much a fine-tuned run forgets, using its losses on its parent's texts.

The null is the same run at step 0, before fine-tuning.
"""

from collections.abc import Sequence

from data_prep.token_store import find_store
from repeat_study.model.decoder import Decoder
from repeat_study.probes.probe import Evaluation, Probe, Subject
from repeat_study.probes.text_losses import mean, own_losses
from repeat_study.probes.texts import Texts, texts_of


def prepare(subject: Subject) -> Texts | None:
    """Prepare the texts that the parent was evaluated on; None for a run that is trained from scratch."""
    if subject.parent is None:
        return None
    return texts_of(subject.parent, find_store(subject.store.folder.parent, subject.parent.corpus))


def measure(parents_texts: Sequence[Texts | None], model: Decoder, step: int) -> list[Evaluation]:
    """Measure the losses of the lanes that have a parent."""
    nothing = next(texts.test[:0] for texts in parents_texts if texts)
    losses = {
        f"parent_{name}_loss": own_losses(
            model, [getattr(texts, field) if texts else nothing for texts in parents_texts]
        )
        for name, field in (("test", "test"), ("pool", "pool"), ("seen_unique", "seen"))
    }
    return [
        Evaluation({key: mean(by_lane[lane]) for key, by_lane in losses.items()} if texts else {})
        for lane, texts in enumerate(parents_texts)
    ]


PROBE = Probe(prepare, measure)
