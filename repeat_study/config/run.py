"""The spec of one run: every setting that can change its result, and the identity derived from them."""

import hashlib
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from data_prep.combined_draw import CombinedDraw
from data_prep.draw import Draw, Unit
from data_prep.errors import InputError
from data_prep.files import canonical_json
from data_prep.mixture import RepeatMixture, Spacing, named_pool_size
from data_prep.shares import ShareOrder, exact_shares
from data_prep.token_store import TokenStore
from repeat_study.config.base import NOT_BLANK, Spec, validated
from repeat_study.config.corpora import FurtherTest, MixedCorpus, PoolCorpus
from repeat_study.config.fixed_pool import HoldFixed
from repeat_study.config.model_sizes import Shape, shape_of
from repeat_study.config.run_draw import run_draw

# Fields added after the first runs were recorded. They are omitted when empty, so older runs keep their identities.
OMITTED_WHEN_EMPTY = ("further_tests", "parent", "pool_corpus", "mix", "fixed_pool")
RESULT_FORMAT = 3  # part of every identity; incremented when a change to the code alters results


class EvaluationSpec(Spec):
    """The `[evaluation]` table: when a run is evaluated, and on how much text."""

    even_points: int = Field(15, ge=1, le=10_000)  # evenly spaced evaluations, with the last one at the end of the run
    log_points: int = Field(6, ge=0, le=10_000)  # log-spaced evaluations from the first step to the last
    test_sequences: int = Field(48, ge=1)
    pool_sequences: int = Field(12, ge=1)  # taken from the start of the pool; the entire pool if it is smaller
    seen_sequences: int = Field(12, ge=1)  # taken from the start of the unique stream, once the run has trained on them
    # Paragraphs for the copying loss, separated by blank lines. None: the English paragraphs shipped with this package.
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

    internal_fields: ClassVar[frozenset[str]] = frozenset(
        {"corpus", "evaluation", "further_tests", "pool_corpus", "mix", "fixed_pool"}
    )
    translated_keys: ClassVar[frozenset[str]] = frozenset({"pool_tokens"})  # to `fixed_pool`
    model: str
    repeats: int = Field(ge=0, le=10**12)  # R; 0 is the clean control of a named pool
    repeated_fraction: float = Field(0.0, ge=0, le=1)  # f; 0 in the clean control and if `fixed_pool` is given
    seed: int = Field(0, ge=0, lt=2**31)  # for initial weights, data order and the choice of the pool
    unit: Unit = Field(Unit.SEQUENCE, strict=False)  # whether the pool consists of sequences or of documents
    spacing: Spacing = Field(Spacing.PASSES, strict=False)  # how the copies of a pool sequence are spread over the run
    burst_distance: int = Field(0, ge=0, le=10**12)  # only for bursts: distance between copies, in pool sequences
    pool_seed: int = Field(0, ge=0, lt=2**31)  # selects a different pool for the same unique stream
    evaluation: EvaluationSpec
    corpus: str = ""  # fingerprint of the token store; empty until it is prepared
    further_tests: tuple[FurtherTest, ...] = Field((), strict=False)
    parent: Parent | None = None  # None: start from random weights
    pool_corpus: PoolCorpus | None = None  # the store of a named pool; None: the pool is drawn from the corpus
    mix: tuple[MixedCorpus, ...] = Field((), strict=False)  # the sources of the unique stream; empty: only `corpus`
    fixed_pool: int = Field(0, ge=0)  # size of the pool in sequences; 0: f·T/R
    hold_fixed: HoldFixed = Field(
        HoldFixed.TOTAL, strict=False
    )  # which tokens `tokens` counts if `fixed_pool` is given

    @model_serializer(mode="wrap")
    def _omit_empty_fields(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        omitted = [key for key in OMITTED_WHEN_EMPTY if not getattr(self, key)]
        if self.hold_fixed is HoldFixed.TOTAL:
            omitted.append("hold_fixed")
        return {key: value for key, value in fields(self).items() if key not in omitted}

    @model_validator(mode="before")
    @classmethod
    def _clear_pool_of_clean_control(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Reset the pool settings of clean runs, so that grid points that differ only in these settings share one clean run."""
        if values.get("repeats") != (0 if values.get("pool_corpus") else 1):
            return values
        cleared = {"repeated_fraction": 0.0, "spacing": Spacing.PASSES, "burst_distance": 0, "pool_seed": 0}
        cleared |= {"fixed_pool": 0, "hold_fixed": HoldFixed.TOTAL}
        return values | {key: cleared[key] for key in cleared.keys() & values.keys()}

    @model_validator(mode="after")
    def _check_fields_together(self) -> Self:
        shape_of(self.model)
        self._check_pool()
        if self.mix:
            ShareOrder(exact_shares([mixed.share for mixed in self.mix]))  # raises InputError unless they add up to 1
            if self.mix[0].fingerprint != self.corpus:
                raise InputError(f"mix.0.fingerprint: {self.mix[0].fingerprint!r} found, but corpus is {self.corpus!r}")
        if self.tokens < self.tokens_per_step:
            step = f"{self.sequences_per_step} sequences x {self.context} tokens"
            raise InputError(f"tokens: {self.tokens} is less than one step of {step}")
        if self.fixed_pool * self.repeats > self.positions:
            pool, tokens, largest = (
                self.fixed_pool * self.context,
                self.positions * self.context,
                self.positions // self.fixed_pool,
            )
            if not largest:
                raise InputError(
                    f"pool_tokens: a pool of {pool:,} tokens is larger than the run, which has {tokens:,} tokens; use a smaller pool,"
                    f' more tokens or hold_fixed = "{HoldFixed.FRESH}"'
                )
            raise InputError(
                f"pool_tokens: {self.repeats} repeats of a pool of {pool:,} tokens are {self.repeats * pool:,} tokens, but the run"
                f" has only {tokens:,}; the largest possible R is {largest}"
            )
        self.mixture()  # raises InputError if R, f and T are incompatible
        return self

    def _check_pool(self) -> None:
        """Raise InputError if the fields that describe the pool contradict each other."""
        if self.pool_corpus is None:
            if self.repeats == 0:
                raise InputError(
                    "repeats: 0 needs a named pool (a [pool] table); without one, the clean control is repeats = 1"
                )
            if self.fixed_pool:
                raise InputError("pool_tokens: needs a named pool (a [pool] table); use repeated_fraction without one")
        if self.fixed_pool and self.repeated_fraction:
            raise InputError(
                f"repeated_fraction: {self.repeated_fraction} found together with pool_tokens; expected one of the two, because"
                " the size of the pool determines f"
            )
        if self.hold_fixed is HoldFixed.FRESH and not self.fixed_pool:
            raise InputError('hold_fixed: "fresh" needs pool_tokens; expected "total" with repeated_fraction')
        if not (self.is_clean_control or self.repeated_fraction or self.fixed_pool):
            alternative = " (or pool_tokens)" if self.pool_corpus else ""
            raise InputError(
                f"repeated_fraction{alternative}: required with repeats = {self.repeats}; expected 0 < f <= 1"
            )

    @property
    def is_clean_control(self) -> bool:
        """Whether the run trains on no pool text: R = 0 with a named pool, and R = 1 without one.

        With a named pool, R = 1 is the clean control of the pool's domain: it trains on the pool's text, but only once.
        """
        return self.repeats == (0 if self.pool_corpus else 1)

    @property
    def has_separate_pool(self) -> bool:
        """Whether the run has a named pool whose store is not a store of the unique stream."""
        stores = {self.corpus, *(mixed.fingerprint for mixed in self.mix)}
        return self.pool_corpus is not None and self.pool_corpus.fingerprint not in stores

    @property
    def shape(self) -> Shape:
        """Dimensions of the model."""
        return shape_of(self.model)

    @property
    def steps(self) -> int:
        """Number of optimizer steps."""
        added = self.repeats * self.fixed_pool if self.hold_fixed is HoldFixed.FRESH else 0
        return (self.clean_positions + added) // self.sequences_per_step

    @property
    def clean_positions(self) -> int:
        """Number of sequences in a clean control with the same `tokens`: all sequences, or the unique ones if `hold_fixed` is "fresh"."""
        return self.tokens // self.tokens_per_step * self.sequences_per_step

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
        if self.fixed_pool or self.is_clean_control:
            return self.fixed_pool
        return named_pool_size(self.positions, self.repeated_fraction, self.repeats)

    @property
    def label(self) -> str:
        """Readable name that contains the model, the fraction or size of the pool, repeats, parent and seed.

        It also contains the unit, spacing, pool seed and weight decay if they differ from their defaults.
        """
        parts = [self.model]
        if not self.is_clean_control:
            size = f"pool{self.fixed_pool * self.context}" if self.fixed_pool else f"f{self.repeated_fraction:g}"
            parts.append(f"{size}-R{self.repeats}")
        elif not self.parent:
            parts.append("clean")
        if self.hold_fixed is not HoldFixed.TOTAL:
            parts.append(self.hold_fixed.value)
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

    @property
    def training_fingerprints(self) -> set[str]:
        """Fingerprints of the token stores of the unique stream and the pool."""
        pool = {self.pool_corpus.fingerprint} if self.pool_corpus else set()
        return {self.corpus, *(mixed.fingerprint for mixed in self.mix)} | pool

    def sequences_by_source(self, sequences: int) -> dict[str, int]:
        """For a mixture, the number of sequences from each source among the first `sequences` of the unique stream; otherwise empty.

        A pool that is not named mixes the sources in the same shares, so this also applies to its first sequences.
        """
        if not self.mix:
            return {}
        counts = ShareOrder(exact_shares([mixed.share for mixed in self.mix])).counts(sequences)
        return {mixed.name: count for mixed, count in zip(self.mix, counts.tolist(), strict=True)}

    def mixture(self) -> RepeatMixture:
        """The order of the run's sequences. Raises InputError if R, f and T do not allow a pool of whole sequences."""
        return RepeatMixture(
            self.positions, self.pool, max(1, self.repeats), self.seed, self.spacing, self.burst_distance
        )

    def draw(self, store: TokenStore) -> Draw | CombinedDraw:
        """The text of the run's sequences. Other stores that the run needs are found in the folder of `store`.

        Raises InputError if a store is missing or has too few tokens.
        """
        return run_draw(self, store)


def run_from_record(record: dict[str, Any], path: Path) -> Run:
    """The run declared by the content of the spec.json at `path`. Raises InputError if the content is invalid."""
    fields = {key: value for key, value in record.items() if key in Run.model_fields}
    try:
        return validated(Run, fields, "")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
