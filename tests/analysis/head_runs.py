"""Write runs that have induction heads with known scores."""

from pathlib import Path
from typing import Any

from written_runs import NULL, write_run

from data_prep.token_store import TokenStore
from repeat_study.config.run import Run

SIZES = {"2x32": 24576, "2x64": 98304, "2x128": 393216}
GOOD, BAD = [0.5, *[0.875] * 5], [0.5, *[0.25] * 5]  # probabilities of the tokens in one copy


def score_of(size: float) -> float:
    """Prefix matching of a clean model, for which 1 - score is a power law of size."""
    return 1 - (0.1 + 12 * size**-0.3)


def formed(score: float) -> list[Any]:
    """Prefix matching at four evaluations of a model with two layers of two heads; the last head ends at `score`."""
    quiet = [[NULL, 0.0], [NULL / 2, NULL]]
    return [quiet, quiet, [[NULL, 0.0], [NULL / 2, score / 2]], [[NULL, 0.0], [NULL / 2, score]]]


def write_runs_with_heads(folder: Path, template: Run, store: TokenStore) -> None:
    """Write clean and repeated runs with induction heads, and a one-layer control.

    At R = 4, the effective size of a run is half its actual size by prefix matching and a third by copying loss. At R = 16, a run has
    no induction heads.
    """
    for model, size in SIZES.items():
        for repeats, share, score in ((1, 1.0, score_of(size)), (4, 1 / 3, score_of(size / 2)), (16, 0.9, NULL)):
            loss = 2 + 40 * (size * (0.95 if repeats > 1 else 1)) ** -0.3
            metrics = {"copying_loss": 1 + 30 * (size * share) ** -0.3, "copying_gain": 1.5 * share}
            paragraph = [BAD, GOOD, BAD if repeats > 1 else GOOD] if repeats != 16 else [BAD, GOOD, GOOD]
            fields = {"model": model, "repeats": repeats, "repeated_fraction": 0.5}
            write_run(folder, template, store, [5.0, 4.5, 4.0, loss], formed(score), paragraph, metrics, **fields)
    one_layer = [[[NULL, NULL / 2]]] * 4
    for repeats in (1, 4):
        fields = {"model": "1x128", "repeats": repeats, "repeated_fraction": 0.5}
        write_run(folder, template, store, [5.0, 4.5, 4.0, 3.9], one_layer, [BAD, BAD, BAD], **fields)
