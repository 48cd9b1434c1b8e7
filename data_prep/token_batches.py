"""Read a source of tokens as batches of documents: check the ids, drop duplicates and choose the splits."""

from collections.abc import Iterator
from hashlib import sha256
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.data_spec import DataSpec
from data_prep.document_batch import COUNTS, DIGEST_BYTES, BatchReader, CountedBatch
from data_prep.errors import CannotResume, InputError
from data_prep.files import read_record
from data_prep.permutation import Ints
from data_prep.sources import DIGEST_PREFIX, Tokens
from data_prep.sources.tokens.documents import DocumentRun, divide
from data_prep.sources.tokens.runs import Ids, TokenRun
from data_prep.store_writer import token_dtype
from data_prep.token_store import MANIFEST, TOKENIZER
from data_prep.tokenizer import load_tokenizer, special_token, vocabulary_of

SPLIT_WORD = (
    2  # index of the 8-byte word in a digest that determines the split; words 0 and 1 are compared to find duplicates
)


class TokenReader(BatchReader):
    """Reads documents that are already token ids.

    A document's digest is the SHA-256 of its ids in the data type of the store, without the end-of-text token. It
    determines the split and whether the document is a duplicate, so the format of the files does not matter.
    """

    stage = "copying tokens"
    more_documents = "is data.source.end_of_text the token that separates documents?"

    def __init__(self, spec: DataSpec, source: Tokens, folder: Path, fresh: bool) -> None:
        """folder: the store's folder; fresh: whether to copy the tokenizer, if there is one, into it."""
        self.spec, self.source = spec, source
        tokenizer_path = spec.tokenizer_file(folder.parent)
        if fresh and tokenizer_path is not None:
            (folder / TOKENIZER).write_text(load_tokenizer(tokenizer_path).to_str(pretty=True), encoding="utf-8")
        self.vocabulary, self.end_of_text = self._vocabulary_and_end(folder)
        self.dtype = token_dtype(self.vocabulary)
        super().__init__()
        self._notes: list[str] = []
        self._seen: set[bytes] = set()

    def _vocabulary_and_end(self, folder: Path) -> tuple[int, int]:
        """The size of the vocabulary, and the end-of-text token of both the files and the store."""
        in_files = self.source.end_of_text_token()
        if (folder / TOKENIZER).is_file():
            tokenizer = load_tokenizer(folder / TOKENIZER)
            vocabulary, end_of_text = vocabulary_of(tokenizer), special_token(tokenizer, self.spec.end_of_text)
            if in_files not in (None, end_of_text):
                raise InputError(
                    f"data.source.end_of_text: token {in_files} separates documents, but the tokenizer's"
                    f" {self.spec.end_of_text!r} is token {end_of_text}; set data.end_of_text to the name of token {in_files}"
                )
            return vocabulary, end_of_text
        vocabulary = self.spec.expected_vocabulary()
        if self.spec.tokenizer_of is not None:
            training = folder.parent / self.spec.tokenizer_of.store_name / MANIFEST
            end_of_text = int(read_record(training, "end_of_text")["end_of_text"])
            if in_files not in (None, end_of_text):
                raise InputError(
                    f"data.source.end_of_text: token {in_files} separates documents here, but the training data uses"
                    f" token {end_of_text}"
                )
            return vocabulary, end_of_text
        if in_files is None:
            raise InputError(
                "data.source.end_of_text: missing; set it to the token that separates documents, or set data.tokenizer"
            )
        if in_files >= vocabulary:
            raise InputError(
                f"data.vocabulary: {vocabulary} tokens, but the end-of-text token is {in_files}; set data.vocabulary to the"
                " number of ids, or set data.tokenizer"
            )
        return vocabulary, in_files

    @property
    def kept(self) -> int:
        """Number of distinct documents read so far."""
        return len(self._seen)

    def corpus_entries(self) -> dict[str, Any]:
        """Notes about packed rows. There are no malformed rows, because damaged files are not accepted."""
        return {"bad_named": [], "notes": self._notes}

    def notes(self) -> list[str]:
        """Notes about packed rows."""
        return self._notes

    def _all_batches(self) -> Iterator[CountedBatch]:
        runs = map(self._checked, self.source.runs(self.end_of_text, self._notes))
        for run in divide(runs, self.end_of_text, self.source.end_position):
            batch = self._batch(run)
            if batch.names:
                yield batch

    def _checked(self, run: TokenRun) -> TokenRun:
        """Check that all ids are in the vocabulary, and convert them to the data type of the store."""
        limits = np.iinfo(run.tokens.dtype)
        if len(run.tokens) and (limits.min < 0 or limits.max >= self.vocabulary):
            low, high = int(run.tokens.min()), int(run.tokens.max())
            if low < 0 or high >= self.vocabulary:
                bad = np.flatnonzero((run.tokens < 0) | (run.tokens >= self.vocabulary))[0]
                raise CannotResume(
                    f"{run.name}: token {run.start + bad} is {run.tokens[bad]}, but the vocabulary has {self.vocabulary} tokens;"
                    " check data.source.dtype, and data.vocabulary or data.tokenizer"
                )
        return TokenRun(run.name, run.start, run.tokens.astype(self.dtype, copy=False), run.ends)

    def _batch(self, run: DocumentRun) -> CountedBatch:
        numbers = np.flatnonzero(run.ends > run.starts)  # empty documents are dropped
        starts, ends = run.starts[numbers], run.ends[numbers]
        # Slicing a view of bytes is faster than slicing a view of tokens.
        content, size = run.tokens.view(np.uint8).data, run.tokens.itemsize
        ranges = zip((size * starts).tolist(), (size * ends).tolist(), strict=True)
        digests = [sha256(content[start:end]).digest() for start, end in ranges]
        is_new = self._is_new(digests)
        totals = np.array(list(self._totals.values()))
        counts = np.zeros((len(numbers), len(COUNTS)), np.int64)
        counts[:, 0], counts[:, 1], counts[:, 2] = numbers + 1, np.cumsum(~is_new), numbers - np.arange(len(numbers))
        self._totals["read"] += len(run.starts)
        self._totals["duplicates"] += int((~is_new).sum())
        self._totals["empty"] += len(run.starts) - len(numbers)
        joined = b"".join(digests if is_new.all() else compress(digests, is_new.tolist()))
        hashes = np.frombuffer(joined, "<u8").reshape(-1, DIGEST_BYTES // 8)[:, SPLIT_WORD]
        share = self.spec.test_fraction
        tokens, starts, lengths = _with_end_of_text(run.tokens, starts[is_new], ends[is_new], self.end_of_text)
        return CountedBatch(
            tokens=tokens,
            starts=starts,
            lengths=lengths,
            is_test=(hashes < share * 2.0**64) | (share == 1),
            digests=joined,
            names=list(map(f"{run.name}:".__add__, map(str, (run.first + numbers[is_new]).tolist()))),
            text_bytes=None,
            counts=totals + counts[is_new],
        )

    def _is_new(self, digests: list[bytes]) -> npt.NDArray[np.bool_]:
        """Whether each document differs from all earlier ones, shape [documents]."""
        prefixes = [digest[:DIGEST_PREFIX] for digest in digests]
        distinct = set(prefixes)
        if len(distinct) == len(prefixes) and self._seen.isdisjoint(distinct):
            self._seen |= distinct
            return np.ones(len(prefixes), bool)
        first = {prefix: index for index, prefix in reversed(list(enumerate(prefixes)))}  # index of the first copy
        is_new = np.zeros(len(prefixes), bool)
        is_new[list(first.values())] = True
        is_new[[first[prefix] for prefix in self._seen & distinct]] = False
        self._seen |= distinct
        return is_new


def _with_end_of_text(tokens: Ids, starts: Ints, ends: Ints, end_of_text: int) -> tuple[Ids, Ints, Ints]:
    """The documents, each followed by the end-of-text token, and their starts and lengths. Copies as little as possible."""
    lengths = ends - starts + 1
    in_place = tokens[np.minimum(ends, len(tokens) - 1)] == end_of_text
    in_place &= ends < len(tokens)
    if in_place.all():
        return tokens, starts, lengths
    if in_place[:-1].all():
        return np.append(tokens[: ends[-1]], np.array([end_of_text], tokens.dtype)), starts, lengths
    inside = np.zeros(len(tokens) + 1, np.int8)
    inside[starts] += 1
    inside[ends] -= 1
    content = tokens[np.cumsum(inside[:-1], dtype=np.int8).view(bool)]
    return np.insert(content, np.cumsum(ends - starts), end_of_text), np.cumsum(lengths) - lengths, lengths
