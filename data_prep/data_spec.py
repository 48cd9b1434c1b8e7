"""What a token store is built from: the `[data]` table of a study."""

import hashlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from data_prep.files import canonical_json, sha256_file, user_path
from data_prep.sources import Document, SourceSpec
from data_prep.sources.document import split_hash
from data_prep.token_store import TOKENIZER, Split
from data_prep.tokenizer import END_OF_TEXT, SMALLEST_VOCABULARY, load_tokenizer, vocabulary_of

BUILD_FORMAT = 2  # increased when the same spec and texts give a different store


class DataSpec(BaseModel):
    """What a token store is built from: the `[data]` table of a study."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    source: SourceSpec
    vocabulary: int = Field(1024, ge=SMALLEST_VOCABULARY, le=2**20)  # of a byte-level BPE trained on the training split
    tokenizer: str | None = None  # path of a tokenizer.json to use instead
    tokenizer_of: "DataSpec | None" = None  # use the tokenizer of this store, so that its models can read these tokens
    end_of_text: str = END_OF_TEXT
    max_tokens: int = Field(gt=0, le=10**15)  # of both splits; the document that reaches it is the last
    test_fraction: float = Field(0.05, gt=0, le=1)  # 1: everything is test text

    @property
    def store_name(self) -> str:
        """Folder name of the store. Two specs share a store only if they ask for the same one."""
        without: dict[str, Any] = {"source": {"max_bad_rows"}}  # it decides whether the store is built, not its content
        without["tokenizer_of"] = True
        if self.tokenizer is not None or self.tokenizer_of is not None:
            without["vocabulary"] = True
        content = [BUILD_FORMAT, self.model_dump(exclude=without)]
        if self.tokenizer_of is not None:
            content.append(self.tokenizer_of.store_name)
        return f"{self.source.kind}-{hashlib.sha256(canonical_json(content)).hexdigest()[:8]}"

    def expected_vocabulary(self) -> int:
        """Vocabulary size the store will have. Raises InputError if the given tokenizer cannot be read."""
        if self.tokenizer_of is not None:
            return self.tokenizer_of.expected_vocabulary()
        if self.tokenizer is not None:
            return vocabulary_of(load_tokenizer(user_path(self.tokenizer, "data.tokenizer")))
        words = self.source.fixed_vocabulary()
        return self.vocabulary if words is None else len(words) + 1  # and the end of text

    def tokenizer_file(self, data_dir: Path) -> Path | None:
        """Path of the existing tokenizer.json to use; None if a tokenizer is made for this store."""
        if self.tokenizer_of is not None:
            return data_dir / self.tokenizer_of.store_name / TOKENIZER
        return None if self.tokenizer is None else user_path(self.tokenizer, "data.tokenizer")

    def inputs(self, data_dir: Path) -> dict[str, str]:
        """Identify the input files on this machine: sizes of text files and the checksum of the tokenizer.

        A store records them, so that changed input under the same names is detected.
        """
        inputs = {}
        if (path := self.tokenizer_file(data_dir)) and path.is_file():
            inputs["tokenizer"] = sha256_file(path)
        return inputs | self.source.input_sizes()

    def split_of(self, document: Document) -> Split:
        """The split of a document, decided by the hash of its origin.

        Stores with equal `test_fraction` agree: no text is test text in one and training text in another.
        """
        return "test" if split_hash(document.origin) < self.test_fraction * 2**64 else "train"
