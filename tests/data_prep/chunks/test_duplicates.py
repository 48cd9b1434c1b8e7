"""Duplicates among many files are detected exactly, in several partitions."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from data_prep.chunks.duplicates import first_copies


@given(
    files=st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=12), max_size=5),
    most_documents=st.integers(1, 30),
)
def test_only_the_first_of_equal_documents_is_kept(files: list[list[tuple[int, int]]], most_documents: int) -> None:
    """The first word has different high bits, so the documents are divided among the partitions; the second one decides about equality."""
    digests = [
        np.array([(first << 62, second, 0, 0) for first, second in file], np.uint64).reshape(-1, 4) for file in files
    ]
    seen: set[tuple[int, int]] = set()
    expected = []
    for document in (document for file in files for document in file):
        expected.append(document not in seen)
        seen.add(document)
    reads: list[int] = []

    def read(number: int) -> npt.NDArray[np.uint8]:
        reads.append(number)
        return digests[number].view(np.uint8)

    result = first_copies([len(file) for file in files], read, most_documents=most_documents)
    assert result.tolist() == expected
    assert len(set(reads)) == len(reads), "the digests of a file are read once"


def test_random_digests_have_no_duplicates_and_all_copies_are_dropped(tmp_path: Path) -> None:
    digests = np.random.default_rng(0).integers(0, 256, (5000, 32), np.uint8)
    result = first_copies([5000, 5000], lambda number: digests[::-1] if number else digests, tmp_path, 1000)
    assert result[:5000].all() and not result[5000:].any()
    assert not list(tmp_path.iterdir()), "temporary files are deleted"
