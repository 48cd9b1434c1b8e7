"""Find the first copy of every document among any number of documents, in bounded memory."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from data_prep.permutation import Ints

Words = npt.NDArray[np.uint64]
MOST_DOCUMENTS = 10_000_000  # compared together, which needs about 50 bytes of memory per document


def first_copies(
    counts: Sequence[int],
    digests_of: Callable[[int], npt.NDArray[np.uint8]],
    folder: Path | None = None,
    most_documents: int = MOST_DOCUMENTS,
) -> npt.NDArray[np.bool_]:
    """Whether each document differs from all documents before it, shape [documents]. Documents with the same 16 bytes are equal.

    counts: number of documents in each file; digests_of: reads the digests of a file, shape [documents, at least 16].
    The digests are read once. If there are more than `most_documents`, they are partitioned by their high bits into temporary files in
    `folder` (24 bytes per document), so equal documents are in the same partition, and the partitions are compared one after another.
    Beyond this, memory is 1 byte per document.
    """
    is_first = np.ones(sum(counts), bool)
    partitions = -(-len(is_first) // most_documents)
    rows = _rows(counts, digests_of)
    for part in [np.concatenate(list(rows))] if partitions == 1 else _partitioned(rows, partitions, folder):
        is_first[part[_repeated(part[:, 0], part[:, 1]), 2].astype(np.int64)] = False
    return is_first


def _rows(counts: Sequence[int], digests_of: Callable[[int], npt.NDArray[np.uint8]]) -> Iterator[Words]:
    """Both words of each digest and its position among all documents, for each file, shape [documents, 3]."""
    offset = 0
    for file, count in enumerate(counts):
        if count:
            words = np.ascontiguousarray(digests_of(file)[:, :16]).view("<u8")
            yield np.column_stack([words, np.arange(offset, offset + count, dtype=np.uint64)])
            offset += count


def _partitioned(rows: Iterator[Words], partitions: int, folder: Path | None) -> Iterator[Words]:
    """Write the rows to a temporary file per partition, and yield the partitions. The high bits of the first word choose the partition."""
    with TemporaryDirectory(prefix="digests-", dir=folder) as name:
        paths = [Path(name) / str(number) for number in range(partitions)]
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("wb")) for path in paths]
            for some in rows:
                chosen = ((some[:, 0] >> np.uint64(32)) * np.uint64(partitions) >> np.uint64(32)).astype(np.int64)
                some = some[np.argsort(chosen, kind="stable")]
                starts = np.cumsum(np.bincount(chosen, minlength=partitions))[:-1]
                for file, part in zip(files, np.split(some, starts), strict=True):
                    file.write(part.tobytes())
        for path in paths:
            yield np.fromfile(path, np.uint64).reshape(-1, 3)
            path.unlink()


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
