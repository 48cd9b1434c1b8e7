"""The specification of a token store, as given in a study's `[data]` table."""

import hashlib
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticKnownError

from data_prep.errors import InputError
from data_prep.files import canonical_json, sha256_file, user_path
from data_prep.shares import ShareOrder, exact_shares
from data_prep.sources import Document, Source, SourceSpec, Tokens
from data_prep.sources.document import split_hash
from data_prep.token_store import TOKENIZER, Split
from data_prep.tokenizer import END_OF_TEXT, SMALLEST_VOCABULARY, load_tokenizer, vocabulary_of

BUILD_FORMAT = 2  # incremented when a code change makes the same spec produce a different store
SOURCE_NAME = r"^[a-z][a-z0-9_-]*$"


class MixedSource(BaseModel):
    """One source of a mixture, declared by a `[[data.mix]]` table."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    name: str = Field("", pattern=SOURCE_NAME)  # the kind of the source if empty
    source: SourceSpec
    share: float = Field(gt=0, le=1)  # share of the unique sequences, as a decimal
    max_tokens: int = Field(gt=0, le=10**15)  # defaults to data.max_tokens

    @property
    def label(self) -> str:
        """The name, or the kind of the source if it has no name."""
        return self.name or self.source.kind


class DataSpec(BaseModel):
    """Specification of a token store. Its fields are the keys of a study's `[data]` table.

    With `mix`, the training text comes from several stores. This is then the specification of the first store, and the others use its
    tokenizer. `stores` lists all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    mix: tuple[MixedSource, ...] = Field((), strict=False)
    source: SourceSpec
    # Size of the byte-level BPE to train. For a source of tokens without a tokenizer, the number of ids.
    vocabulary: int = Field(1024, ge=2, le=2**20)
    tokenizer: str | None = None  # path to a tokenizer.json file to use instead
    tokenizer_of: "DataSpec | None" = None  # reuse that store's tokenizer, so its models accept these tokens
    end_of_text: str = END_OF_TEXT
    max_tokens: int = Field(gt=0, le=10**15)  # total for both splits; the last document may exceed it
    test_fraction: float = Field(0.05, gt=0, le=1)  # 1: everything is test text
    # Maximum number of training documents that two sources of a mixture may share. It does not change any store.
    max_shared_documents: int = Field(0, ge=0, exclude=True)

    @field_validator("vocabulary")
    @classmethod
    def _enough_for_bytes(cls, value: int, info: ValidationInfo) -> int:
        if value < SMALLEST_VOCABULARY and not isinstance(info.data.get("source"), Tokens):
            raise PydanticKnownError("greater_than_equal", {"ge": SMALLEST_VOCABULARY})
        return value

    @property
    def has_tokenizer(self) -> bool:
        """Whether the store has a tokenizer. A source of tokens needs none."""
        if self.tokenizer_of is not None:
            return self.tokenizer_of.has_tokenizer
        return self.tokenizer is not None or not isinstance(self.source, Tokens)

    @property
    def trains_tokenizer(self) -> bool:
        """Whether the vocabulary of the store, or of the store whose tokenizer it uses, is trained on the store's text."""
        if self.tokenizer_of is not None:
            return self.tokenizer_of.trains_tokenizer
        return self.tokenizer is None and isinstance(self.source, Source) and self.source.fixed_vocabulary() is None

    @model_validator(mode="before")
    @classmethod
    def _describe_first_source(cls, values: Any) -> Any:
        """For a mixture, use `max_tokens` as the default for all sources, and copy the keys of the first source."""
        if not isinstance(values, dict) or not (mix := values.get("mix")) or not isinstance(mix, list | tuple):
            return values
        if "source" in values:
            raise InputError("data.source: cannot be combined with data.mix; omit one of them")
        default = {"max_tokens": values["max_tokens"]} if "max_tokens" in values else {}
        tables = [default | table if isinstance(table, dict) else table for table in mix]
        first = {
            key: tables[0][key] for key in ("source", "max_tokens") if isinstance(tables[0], dict) and key in tables[0]
        }
        return values | first | {"mix": tables}

    @model_validator(mode="after")
    def _check_mix(self) -> "DataSpec":
        if not self.mix:
            if self.max_shared_documents:
                raise InputError("data.max_shared_documents: needs a mixture of sources ([[data.mix]] tables)")
            return self
        labels = [mixed.label for mixed in self.mix]
        for number, label in enumerate(labels):
            if label in labels[:number]:
                raise InputError(f"data.mix.{number}.name: {label!r} is used twice; each source needs its own name")
        try:
            ShareOrder(exact_shares([mixed.share for mixed in self.mix]))
        except InputError as error:
            raise InputError(f"data.mix: {error}") from error
        return self

    @model_serializer(mode="wrap")
    def _omit_empty_mix(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in fields(self).items() if key != "mix" or value}

    @property
    def stores(self) -> "tuple[DataSpec, ...]":
        """The specification of every store with training text: one, or one per source of the mixture."""
        if not self.mix:
            return (self,)
        first = self.model_copy(update={"mix": (), "max_shared_documents": 0})
        tokenizer = {} if self.tokenizer is not None or self.tokenizer_of is not None else {"tokenizer_of": first}
        others = [{"source": mixed.source, "max_tokens": mixed.max_tokens, **tokenizer} for mixed in self.mix[1:]]
        return (first, *(first.model_copy(update=other) for other in others))

    @property
    def in_words(self) -> str:
        """What the training text is, with the share of each source of a mixture. For readers of a report."""
        if not self.mix:
            return self.source.in_words
        return ", ".join(f"{100 * mixed.share:.3g}% {mixed.source.in_words}" for mixed in self.mix)

    @property
    def store_name(self) -> str:
        """Folder name of the store. Specs that describe the same store have the same name."""
        # `max_bad_rows` can make a build fail, but it does not change the store.
        without: dict[str, Any] = {"source": {"max_bad_rows"}}
        without["tokenizer_of"] = without["mix"] = True
        if self.tokenizer is not None or self.tokenizer_of is not None:
            without["vocabulary"] = True
        content = [BUILD_FORMAT, self.model_dump(exclude=without)]
        if self.tokenizer_of is not None:
            content.append(self.tokenizer_of.store_name)
        return f"{self.source.kind}-{hashlib.sha256(canonical_json(content)).hexdigest()[:8]}"

    def chunks_folder(self, data_dir: Path) -> Path:
        """The folder of the encoded text while the store is being built from a text source."""
        return data_dir / f".{self.store_name}.chunks"

    def expected_vocabulary(self) -> int:
        """Vocabulary size of the store once it is built. Raises InputError if the given tokenizer cannot be read."""
        if self.tokenizer_of is not None:
            return self.tokenizer_of.expected_vocabulary()
        if self.tokenizer is not None:
            return vocabulary_of(load_tokenizer(user_path(self.tokenizer, "data.tokenizer")))
        words = self.source.fixed_vocabulary() if isinstance(self.source, Source) else None
        return self.vocabulary if words is None else len(words) + 1  # plus the end-of-text token

    def tokenizer_file(self, data_dir: Path) -> Path | None:
        """Path to the existing tokenizer.json to use, or None if the build makes a new one or needs none."""
        if not self.has_tokenizer:
            return None
        if self.tokenizer_of is not None:
            built = data_dir / self.tokenizer_of.store_name / TOKENIZER
            being_built = self.tokenizer_of.chunks_folder(data_dir) / TOKENIZER
            return built if built.is_file() or not being_built.is_file() else being_built
        return None if self.tokenizer is None else user_path(self.tokenizer, "data.tokenizer")

    def inputs(self, data_dir: Path) -> dict[str, str]:
        """Describe the input files on this machine: the sizes of text files and the checksum of the tokenizer.

        The store's manifest records them, so later changes can be detected.
        """
        inputs = {}
        if (path := self.tokenizer_file(data_dir)) and path.is_file():
            inputs["tokenizer"] = sha256_file(path)
        return inputs | self.source.input_sizes()

    def split_of(self, document: Document) -> Split:
        """Assign a document to a split by the hash of its origin.

        Stores with the same `test_fraction` always assign the same text to the same split.
        """
        return "test" if split_hash(document.origin) < self.test_fraction * 2**64 else "train"
