"""Find the first copy of every document among any number of documents, in bounded memory."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from data_prep.permutation import Ints

Words = npt.NDArray[np.uint64]
MOST_DOCUMENTS = 10_000_000  # per pass; a pass needs about 50 bytes per document


def first_copies(
    counts: Sequence[int],
    digests_of: Callable[[int], npt.NDArray[np.uint8]],
    most_documents: int = MOST_DOCUMENTS,
) -> npt.NDArray[np.bool_]:
    """Whether each document differs from all documents before it, shape [documents]. Documents with the same 16 bytes are equal.

    counts: number of documents in each file; digests_of: reads the digests of a file, shape [documents, at least 16].
    If there are more than `most_documents` documents, the digests are read several times, and each pass compares a share of them: the
    share is determined by the digest, so equal documents meet in the same pass. Beyond this, memory is 1 byte per document.
    """
    is_first = np.ones(sum(counts), bool)
    passes = max(1, -(-len(is_first) // most_documents))
    for number in range(passes):
        first_words, second_words, positions = _selected(counts, digests_of, number, passes)
        is_first[positions[_repeated(first_words, second_words)]] = False
    return is_first


def _selected(
    counts: Sequence[int], digests_of: Callable[[int], npt.NDArray[np.uint8]], number: int, passes: int
) -> tuple[Words, Words, Ints]:
    """Both words of the digests that belong to this pass, and their positions, in order."""
    pieces = list(_pieces(counts, digests_of, number, passes))
    if not pieces:
        return np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int64)
    first_words, second_words, positions = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return first_words, second_words, positions


def _pieces(
    counts: Sequence[int], digests_of: Callable[[int], npt.NDArray[np.uint8]], number: int, passes: int
) -> Iterator[tuple[Words, Words, Ints]]:
    offset = 0
    for file, count in enumerate(counts):
        if not count:
            continue
        words = np.ascontiguousarray(digests_of(file)[:, :16]).view("<u8")
        # The high bits of the first word choose the pass.
        chosen = np.flatnonzero((words[:, 0] >> np.uint64(32)) * np.uint64(passes) >> np.uint64(32) == number)
        yield words[chosen, 0], words[chosen, 1], chosen + offset
        offset += count


def _repeated(first_words: Words, second_words: Words) -> Ints:
    """Indices of the documents that equal an earlier one."""
    order = np.argsort(first_words, kind="stable")
    ordered = first_words[order]
    same = ordered[1:] == ordered[:-1]
    candidates = np.flatnonzero(np.append(False, same) | np.append(same, False))
    order = order[candidates]  # the documents whose first words occur more than once: few, so sort them by both words
    order = order[np.lexsort((order, second_words[order], first_words[order]))]
    equal = (first_words[order][1:] == first_words[order][:-1]) & (second_words[order][1:] == second_words[order][:-1])
    repeated: Ints = order[1:][equal]
    return repeated
