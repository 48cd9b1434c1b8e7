"""The `[pool]` table of a study: separate text that the runs repeat among their training data."""

from pydantic import Field

from data_prep.data_spec import DataSpec
from data_prep.sources import SourceSpec
from repeat_study.config.base import Spec


class PoolSpec(Spec):
    """A named pool, declared by the `[pool]` table."""

    source: SourceSpec
    max_tokens: int = Field(gt=0, le=10**15)  # tokens to read from the source, for both splits together
    test_fraction: float | None = Field(None, gt=0, lt=1)  # defaults to data.test_fraction
    # Maximum number of training documents that the pool may share with the data. Runs can see their text more than R times.
    max_shared_documents: int = Field(0, ge=0)

    def data(self, training: DataSpec) -> DataSpec:
        """The data spec of the pool's store, which uses the tokenizer of the training data.

        If the training data has the same source, tokens and test fraction, this is the training data's own store. The pool then
        consists of text that the unique stream leaves out.
        """
        test_fraction = self.test_fraction or training.test_fraction
        for store in training.stores:
            if (store.source, store.max_tokens, store.test_fraction) == (self.source, self.max_tokens, test_fraction):
                return store
        first = training.stores[0]
        return DataSpec(
            source=self.source,
            vocabulary=first.vocabulary,
            tokenizer_of=first,
            end_of_text=first.end_of_text,
            max_tokens=self.max_tokens,
            test_fraction=test_fraction,
        )

    def estimated_tokens(self, training: DataSpec) -> int:
        """Expected number of training tokens in the pool's store, if its source provides `max_tokens` tokens."""
        return int(self.max_tokens * (1 - (self.test_fraction or training.test_fraction)))
