"""One run: everything that can change its result, and its identity."""

import hashlib
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from data_prep.draw import Draw, Unit
from data_prep.errors import InputError
from data_prep.files import canonical_json
from data_prep.mixture import RepeatMixture, Spacing, pool_size
from data_prep.token_store import TokenStore
from repeat_study.config.base import Spec, validated
from repeat_study.config.model_sizes import Shape, shape_of

# Fields added after the first runs were recorded. Leaving them out when empty keeps the identities of those runs.
OMITTED_WHEN_EMPTY = ("further_tests", "parent")
RESULT_FORMAT = 3  # part of every identity; raised when the same spec would give other numbers


class EvaluationSpec(Spec):
    """When and on how much a run is evaluated: the `[evaluation]` table."""

    even_points: int = Field(15, ge=1, le=10_000)  # evenly spaced over the run, the last one at its end
    log_points: int = Field(6, ge=0, le=10_000)  # log-spaced from the first step to the last
    test_sequences: int = Field(48, ge=1)
    pool_sequences: int = Field(12, ge=1)  # the first of the pool, or all of a smaller one
    seen_sequences: int = Field(12, ge=1)  # the first of the unique stream, once they have been trained on
    # Paragraphs between blank lines, for the copying loss; None: the shipped ones.
    copying_text: str | None = Field(None, max_length=100_000)

    def steps(self, total: int) -> list[int]:
        """Optimiser steps after which a run of `total` steps is evaluated; 0 (untrained) and `total` always are."""
        even = np.linspace(0, total, self.even_points + 1)
        return sorted({0, total, *(int(step) for step in np.round(even)), *self.log_steps(total)})

    def log_steps(self, total: int) -> list[int]:
        """Those of them that are log-spaced."""
        return sorted({int(step) for step in np.round(np.geomspace(1, total, self.log_points))})


class TrainingSpec(Spec):
    """What all runs of a study share unless its grid varies it: the `[training]` table."""

    tokens: int = Field(gt=0, le=10**15)  # T; rounded down to whole optimiser steps
    context: int = Field(ge=2, le=2**24)
    sequences_per_step: int = Field(ge=1, le=2**24)
    vocabulary_multiple: int = Field(
        1, ge=1, le=2**16
    )  # the model's vocabulary is the tokenizer's, rounded up to these
    learning_rate: float = Field(gt=0, lt=1)
    weight_decay: float = Field(0.1, ge=0)
    warmup_fraction: float = Field(0.02, ge=0, lt=1)
    final_learning_rate_fraction: float = Field(0.1, ge=0, le=1)  # of the peak, at the end of the cosine
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    gradient_clip: float = Field(1.0, gt=0)  # largest norm of a lane's gradient


class FurtherTest(Spec):
    """Another text that a run is tested on at every evaluation, as on its own test set."""

    name: str
    fingerprint: str  # of the store whose test split it is; empty until it is prepared


class Parent(Spec):
    """The finished run whose weights another one starts from."""

    study: str  # in whose folder it lies; no part of any identity
    label: str
    identity: str  # of the parent; empty while it is not known which one it will be
    repeats: int
    repeated_fraction: float
    seed: int

    @property
    def name(self) -> str:
        """The parent's directory, below its study's."""
        return f"{self.label}-{self.identity[:8]}"


class Run(TrainingSpec):
    """One run: everything that can change its result, and nothing else."""

    internal_fields: ClassVar[frozenset[str]] = frozenset({"corpus", "evaluation", "further_tests"})
    model: str
    repeats: int = Field(ge=1, le=10**12)  # R
    repeated_fraction: float = Field(0.0, ge=0, le=1)  # f; 0 in the clean control, whatever the grid says
    seed: int = Field(0, ge=0, lt=2**31)  # of the start weights, the corpus's shuffle and the order of copies
    unit: Unit = Field(Unit.SEQUENCE, strict=False)  # what the pool is made of
    spacing: Spacing = Field(Spacing.PASSES, strict=False)  # how the copies of a pool sequence lie in the run
    burst_distance: int = Field(0, ge=0, le=10**12)  # of spacing bursts: pool positions from one copy to the next
    pool_seed: int = Field(0, ge=0, lt=2**31)  # draws another pool beside the same unique stream
    evaluation: EvaluationSpec
    corpus: str = ""  # fingerprint of the token store; empty until it is prepared
    further_tests: tuple[FurtherTest, ...] = Field((), strict=False)
    parent: Parent | None = None  # None: from weights drawn with the seed

    @model_serializer(mode="wrap")
    def _omit_empty_fields(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        omitted = [key for key in OMITTED_WHEN_EMPTY if not getattr(self, key)]
        return {key: value for key, value in fields(self).items() if key not in omitted}

    @model_validator(mode="before")
    @classmethod
    def _clean_control_has_no_pool(cls, values: dict[str, Any]) -> dict[str, Any]:
        if values.get("repeats") != 1:
            return values
        of_the_pool = {"repeated_fraction": 0.0, "spacing": Spacing.PASSES, "burst_distance": 0, "pool_seed": 0}
        return values | {key: of_the_pool[key] for key in of_the_pool.keys() & values.keys()}

    @model_validator(mode="after")
    def _possible(self) -> Self:
        shape_of(self.model)
        if self.repeats > 1 and self.repeated_fraction == 0:
            raise InputError(f"repeated_fraction: needed with repeats = {self.repeats}; accepted are 0 < f <= 1")
        if self.steps < 1:
            raise InputError(
                f"tokens: {self.tokens} is less than one step of {self.sequences_per_step} sequences x {self.context} tokens"
            )
        self.mixture()  # refuses what cannot be mixed
        return self

    @property
    def shape(self) -> Shape:
        """Dimensions of the model."""
        return shape_of(self.model)

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return self.tokens // self.tokens_per_step

    @property
    def tokens_per_step(self) -> int:
        """Tokens of an optimiser step."""
        return self.sequences_per_step * self.context

    @property
    def positions(self) -> int:
        """Sequences the run trains on, repeats counted."""
        return self.steps * self.sequences_per_step

    @property
    def pool(self) -> int:
        """Sequences in the repeated pool; 0 in the clean control."""
        return pool_size(self.positions, self.repeated_fraction, self.repeats)

    @property
    def label(self) -> str:
        """What people call the run: size, fraction, repeats and seed, and what departs from the ordinary."""
        parts = [self.model]
        if self.repeats > 1 or not self.parent:
            parts.append(f"f{self.repeated_fraction:g}-R{self.repeats}" if self.repeats > 1 else "clean")
        if self.parent:
            parent = self.parent.label.removeprefix(f"{self.model}-").removesuffix(f"-s{self.parent.seed}")
            if self.parent.seed != self.seed:
                parent += f"-s{self.parent.seed}"
            parts.append(f"from-{parent}")
        if self.unit is not Unit.SEQUENCE:
            parts.append(f"{self.unit}s")
        if self.spacing is not Spacing.PASSES:
            parts.append(f"{self.spacing}{self.burst_distance or ''}")
        parts.append(f"s{self.seed}")
        if self.pool_seed:
            parts.append(f"p{self.pool_seed}")
        if self.weight_decay != TrainingSpec.model_fields["weight_decay"].default:
            parts.append(f"wd{self.weight_decay:g}")
        return "-".join(parts)

    @property
    def name(self) -> str:
        """The run directory's name: the label and the first 8 digits of the identity."""
        return f"{self.label}-{self.identity[:8]}"

    @property
    def identity(self) -> str:
        """SHA-256 over the spec: two runs are the same run iff these agree, on whatever machine."""
        spec = self.model_dump()
        if self.parent:
            spec["parent"] = self.parent.identity
        return hashlib.sha256(canonical_json([RESULT_FORMAT, spec])).hexdigest()

    def model_vocabulary(self, vocabulary: int) -> int:
        """Rows of the embedding for a tokenizer's vocabulary: GPT-2's 50,257 becomes 50,304 in multiples of 64."""
        return -(-vocabulary // self.vocabulary_multiple) * self.vocabulary_multiple

    def mixture(self) -> RepeatMixture:
        """The order of the run's sequences; InputError where R, f and tokens fit no pool of whole sequences."""
        return RepeatMixture(self.positions, self.pool, self.repeats, self.seed, self.spacing, self.burst_distance)

    def draw(self, store: TokenStore) -> Draw:
        """The text of the run's sequences; InputError where the store holds too little."""
        draw = Draw(store, self.context, self.positions, self.unit, self.seed, self.pool_seed)
        draw.require(self.pool)
        if not store.sequences_in("test", self.context):
            raise InputError(
                f"context: the test split has {store.test.size} tokens, less than one sequence of {self.context} and its"
                " target; give more text or a larger data.test_fraction"
            )
        return draw


def run_of(record: dict[str, Any], path: Path) -> Run:
    """The run that the fields of a spec.json declare; InputError where they are none."""
    fields = {key: value for key, value in record.items() if key in Run.model_fields}
    try:
        return validated(Run, fields, "")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
