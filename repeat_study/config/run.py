"""The spec of one run: every setting that can change its result, and the identity derived from them."""

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
from repeat_study.config.base import NOT_BLANK, Spec, validated
from repeat_study.config.model_sizes import Shape, shape_of

# Fields added after the first runs were recorded. They are omitted when empty, so older runs keep their identities.
OMITTED_WHEN_EMPTY = ("further_tests", "parent")
RESULT_FORMAT = 3  # part of every identity; incremented when a change to the code alters results


class EvaluationSpec(Spec):
    """The `[evaluation]` table: when a run is evaluated, and on how much text."""

    even_points: int = Field(15, ge=1, le=10_000)  # evenly spaced evaluations, with the last one at the end of the run
    log_points: int = Field(6, ge=0, le=10_000)  # log-spaced evaluations from the first step to the last
    test_sequences: int = Field(48, ge=1)
    pool_sequences: int = Field(12, ge=1)  # taken from the start of the pool; the entire pool if it is smaller
    seen_sequences: int = Field(12, ge=1)  # taken from the start of the unique stream, once the run has trained on them
    # Paragraphs for the copying loss, separated by blank lines. None: the paragraphs shipped with this package.
    copying_text: str | None = Field(None, max_length=100_000, pattern=NOT_BLANK)

    def steps(self, total: int) -> list[int]:
        """Optimizer steps at which a run of `total` steps is evaluated, including 0 (untrained) and `total`."""
        even = np.linspace(0, total, self.even_points + 1)
        return sorted({0, total, *(int(step) for step in np.round(even)), *self.log_steps(total)})

    def log_steps(self, total: int) -> list[int]:
        """Optimizer steps of the log-spaced evaluations."""
        return sorted({int(step) for step in np.round(np.geomspace(1, total, self.log_points))})


class TrainingSpec(Spec):
    """The `[training]` table: values for all runs of a study, which `[models]` and the grid can override."""

    tokens: int = Field(gt=0, le=10**15)  # T, rounded down to whole optimizer steps
    context: int = Field(ge=2, le=2**24)
    sequences_per_step: int = Field(ge=1, le=2**24)
    vocabulary_multiple: int = Field(1, ge=1, le=2**16)  # the model's vocabulary is rounded up to a multiple of this
    learning_rate: float = Field(gt=0, lt=1)  # peak value
    weight_decay: float = Field(0.1, ge=0)
    warmup_fraction: float = Field(0.02, ge=0, lt=1)
    final_learning_rate_fraction: float = Field(0.1, ge=0, le=1)  # final value, relative to the peak
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    gradient_clip: float = Field(1.0, gt=0)  # maximum gradient norm, separately for each lane


class FurtherTest(Spec):
    """An additional test set, which is evaluated whenever the run's own test set is evaluated."""

    name: str
    fingerprint: str  # the fingerprint of the test set's token store; empty until the store is prepared


class Parent(Spec):
    """The finished run whose weights another run starts from."""

    study: str  # the study that the parent belongs to; not part of any identity
    label: str
    identity: str  # empty while the parent is not known
    repeats: int
    repeated_fraction: float
    seed: int

    @property
    def name(self) -> str:
        """Name of the parent's run directory in the folder of its study."""
        return f"{self.label}-{self.identity[:8]}"


class Run(TrainingSpec):
    """The spec of one run: every setting that can change its result, and nothing else."""

    internal_fields: ClassVar[frozenset[str]] = frozenset({"corpus", "evaluation", "further_tests"})
    model: str
    repeats: int = Field(ge=1, le=10**12)  # R
    repeated_fraction: float = Field(0.0, ge=0, le=1)  # f; always 0 in the clean control
    seed: int = Field(0, ge=0, lt=2**31)  # for initial weights, data order and the choice of the pool
    unit: Unit = Field(Unit.SEQUENCE, strict=False)  # whether the pool consists of sequences or of documents
    spacing: Spacing = Field(Spacing.PASSES, strict=False)  # how the copies of a pool sequence are spread over the run
    burst_distance: int = Field(0, ge=0, le=10**12)  # only for bursts: distance between copies, in pool sequences
    pool_seed: int = Field(0, ge=0, lt=2**31)  # selects a different pool for the same unique stream
    evaluation: EvaluationSpec
    corpus: str = ""  # fingerprint of the token store; empty until it is prepared
    further_tests: tuple[FurtherTest, ...] = Field((), strict=False)
    parent: Parent | None = None  # None: start from random weights

    @model_serializer(mode="wrap")
    def _omit_empty_fields(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        omitted = [key for key in OMITTED_WHEN_EMPTY if not getattr(self, key)]
        return {key: value for key, value in fields(self).items() if key not in omitted}

    @model_validator(mode="before")
    @classmethod
    def _clear_pool_of_clean_control(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Reset the pool settings of clean runs, so that grid points that differ only in these settings share one clean run."""
        if values.get("repeats") != 1:
            return values
        cleared = {"repeated_fraction": 0.0, "spacing": Spacing.PASSES, "burst_distance": 0, "pool_seed": 0}
        return values | {key: cleared[key] for key in cleared.keys() & values.keys()}

    @model_validator(mode="after")
    def _check_fields_together(self) -> Self:
        shape_of(self.model)
        if self.repeats > 1 and self.repeated_fraction == 0:
            raise InputError(f"repeated_fraction: required with repeats = {self.repeats}; expected 0 < f <= 1")
        if self.steps < 1:
            step = f"{self.sequences_per_step} sequences x {self.context} tokens"
            raise InputError(f"tokens: {self.tokens} is less than one step of {step}")
        self.mixture()  # raises InputError if R, f and T are incompatible
        return self

    @property
    def shape(self) -> Shape:
        """Dimensions of the model."""
        return shape_of(self.model)

    @property
    def steps(self) -> int:
        """Number of optimizer steps."""
        return self.tokens // self.tokens_per_step

    @property
    def tokens_per_step(self) -> int:
        """Tokens in one optimizer step."""
        return self.sequences_per_step * self.context

    @property
    def positions(self) -> int:
        """Number of sequences that the run trains on, counting every repeat."""
        return self.steps * self.sequences_per_step

    @property
    def pool(self) -> int:
        """Number of sequences in the repeated pool; 0 in the clean control."""
        return pool_size(self.positions, self.repeated_fraction, self.repeats)

    @property
    def label(self) -> str:
        """Readable name that contains the model, fraction, repeats, parent and seed.

        It also contains the unit, spacing, pool seed and weight decay if they differ from their defaults.
        """
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
        """Name of the run directory: the label and the first 8 digits of the identity."""
        return f"{self.label}-{self.identity[:8]}"

    @property
    def identity(self) -> str:
        """SHA-256 of the spec. Two specs declare the same run if and only if their identities are equal."""
        spec = self.model_dump()
        if self.parent:
            spec["parent"] = self.parent.identity
        return hashlib.sha256(canonical_json([RESULT_FORMAT, spec])).hexdigest()

    def model_vocabulary(self, vocabulary: int) -> int:
        """Number of embedding rows: the tokenizer's vocabulary, rounded up to a multiple of `vocabulary_multiple`."""
        return -(-vocabulary // self.vocabulary_multiple) * self.vocabulary_multiple

    def mixture(self) -> RepeatMixture:
        """The order of the run's sequences. Raises InputError if R, f and T do not allow a pool of whole sequences."""
        return RepeatMixture(self.positions, self.pool, self.repeats, self.seed, self.spacing, self.burst_distance)

    def draw(self, store: TokenStore) -> Draw:
        """The text of the run's sequences. Raises InputError if the store has too few tokens."""
        draw = Draw(store, self.context, self.positions, self.unit, self.seed, self.pool_seed)
        draw.require(self.pool)
        if not store.sequences_in("test", self.context):
            raise InputError(
                f"context: the test split contains only {store.test.size} tokens, but one test sequence needs {self.context + 1};"
                " provide more text or increase data.test_fraction"
            )
        return draw


def run_from_record(record: dict[str, Any], path: Path) -> Run:
    """The run declared by the content of the spec.json at `path`. Raises InputError if the content is invalid."""
    fields = {key: value for key, value in record.items() if key in Run.model_fields}
    try:
        return validated(Run, fields, "")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
