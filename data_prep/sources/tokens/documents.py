"""Divide runs of tokens into documents, without creating an object for each document."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data_prep.permutation import Ints
from data_prep.sources.tokens.runs import End, Ids, TokenRun, require_length


@dataclass(frozen=True)
class DocumentRun:
    """Consecutive documents of one file, including empty ones.

    starts, ends: first and last token (exclusive) of each document, without end-of-text tokens, as positions in `tokens`.
    first: number of the first of these documents within the file, counted from 1.
    """

    name: str  # of the file
    first: int
    tokens: Ids
    starts: Ints
    ends: Ints


def divide(runs: Iterator[TokenRun], end_of_text: int, end: End) -> Iterator[DocumentRun]:
    """Yield all documents. A document ends at each end-of-text token, and at each end that the file records.

    A document that continues in the next block or file is joined, unless the file records its end. Two consecutive
    end-of-text tokens enclose an empty document. As in TokenRun, `tokens` is valid until the next documents are read.
    """
    name, number = "", 0  # the current file, and how many of its documents have begun
    unfinished: list[Ids] = []  # the beginning of a document that continues in the next run
    begun: tuple[str, int] | None = None  # the file and number of that document
    for run in runs:
        if run.name != name:
            name, number = run.name, 0
        if run.ends is not None:
            starts, ends = _with_recorded_ends(run.tokens, run.ends, end_of_text, end)
            yield DocumentRun(name, number + 1, run.tokens, starts, ends)
            number += len(starts)
            continue
        marks = np.flatnonzero(run.tokens == end_of_text)
        head = run.tokens[: marks[0]] if len(marks) else run.tokens
        if begun is None and (len(head) or (len(marks) and end == "after")):
            number += 1
            begun = name, number
        unfinished.append(head if len(marks) else head.copy())
        require_length(run.name, sum(map(len, unfinished)))
        if not len(marks):
            continue
        if begun is not None:
            yield _joined(begun, unfinished)
        if len(marks) > 1:
            yield DocumentRun(name, number + 1, run.tokens, marks[:-1] + 1, marks[1:])
            number += len(marks) - 1
        unfinished, begun = [run.tokens[marks[-1] + 1 :].copy()], None
        if len(unfinished[0]) or end == "before":
            number += 1
            begun = name, number
    if begun is not None:
        yield _joined(begun, unfinished)


def _joined(begun: tuple[str, int], pieces: list[Ids]) -> DocumentRun:
    tokens = np.concatenate(pieces)
    return DocumentRun(*begun, tokens, np.array([0]), np.array([len(tokens)]))


def _with_recorded_ends(tokens: Ids, recorded: Ints, end_of_text: int, end: End) -> tuple[Ints, Ints]:
    """Starts and ends of documents whose ends are recorded. A document is also divided at end-of-text tokens inside it."""
    starts = np.concatenate([[0], recorded[:-1]])
    marks = np.flatnonzero(tokens == end_of_text)
    if not len(marks):
        return starts, recorded
    filled = recorded > starts
    # Positions where the format puts an end-of-text token: at the recorded start or end of each document.
    expected = recorded[filled] - 1 if end == "after" else starts[filled]
    inside = marks[~np.isin(marks, expected)]
    is_mark = np.zeros(len(starts), bool)
    is_mark[filled] = tokens[expected] == end_of_text
    starts, ends = (starts, recorded - is_mark) if end == "after" else (starts + is_mark, recorded)
    if not len(inside):
        return starts, ends
    # A document ends before each inner token, and the next one starts after it. At equal positions, the recorded boundary comes first.
    return np.sort(np.concatenate([starts, inside + 1]), kind="stable"), np.sort(
        np.concatenate([ends, inside]), kind="stable"
    )
