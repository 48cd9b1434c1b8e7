"""The texts that a run is evaluated on: its test set, its pool, and unique text that it has trained on."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_prep.errors import InputError
from data_prep.permutation import permute, stream_key
from data_prep.shares import ShareOrder, exact_shares
from data_prep.token_store import TokenStore
from repeat_study.config.run import Run
from repeat_study.config.run_draw import training_stores


@dataclass(frozen=True)
class Texts:
    """One run's evaluation texts: int64 tokens of shape [sequences, context + 1]."""

    test: Tensor
    pool: Tensor  # a clean run never trains on these sequences, so its pool loss is the null
    seen: Tensor  # unique text that the run trains on exactly once
    seen_after: int  # number of steps after which the run has trained on all of `seen`


def texts_of(run: Run, store: TokenStore) -> Texts:
    """Select a run's evaluation texts.

    All runs that use a store (or a mixture of stores) share its test sequences. The pool and seen sequences are the first sequences in
    the run's pool and in its unique stream, so runs that share a pool or a unique stream are evaluated on the same text from it.
    """
    mixture, draw, sizes = run.mixture(), run.draw(store), run.evaluation
    available = mixture.pool or draw.pool_capacity
    seen = min(sizes.seen_sequences, mixture.unique_positions)
    return Texts(
        test=test_set(run, store),
        pool=torch.from_numpy(draw.pool_tokens(np.arange(min(sizes.pool_sequences, available)))),
        seen=torch.from_numpy(draw.unique_tokens(np.arange(seen))),
        seen_after=mixture.unique_position(seen - 1) // run.sequences_per_step + 1 if seen else 0,
    )


def test_set(run: Run, store: TokenStore) -> Tensor:
    """The run's own test sequences, [sequences, context + 1]: from its corpus or, for a mixture, from all sources by their shares.

    store: the store of `run.corpus`. Raises InputError if a store is missing or a test split is shorter than one sequence.
    """
    if not run.mix:
        return sample_test_split(run, store)
    order = ShareOrder(exact_shares([mixed.share for mixed in run.mix]))
    samples = [sample_test_split(run, source) for source in training_stores(run, store)]
    # The longest prefix of the order for which every source has enough sequences
    available = min(order.position(number, len(sample)) for number, sample in enumerate(samples))
    source, index = order.at(np.arange(min(run.evaluation.test_sequences, available)))
    return torch.stack([samples[number][row] for number, row in zip(source.tolist(), index.tolist(), strict=True)])


def sample_test_split(run: Run, store: TokenStore) -> Tensor:
    """Sample as many sequences from the store's test split as the run's spec requests, or take all of them if there are fewer.

    The result has shape [sequences, context + 1]. Raises InputError if the split is shorter than one sequence.
    """
    available = store.sequences_in("test", run.context)
    if not available:
        raise InputError(f"{store.folder}: the test split is shorter than one sequence of {run.context + 1} tokens")
    chosen = permute(np.arange(min(run.evaluation.test_sequences, available)), available, stream_key("test"))
    return torch.from_numpy(store.gather("test", chosen, run.context))
