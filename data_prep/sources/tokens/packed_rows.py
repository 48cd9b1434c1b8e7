"""Detect rows that were cut from a stream of documents at a fixed length, and join them again."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

import numpy as np

from data_prep.errors import CannotResume
from data_prep.permutation import Ints
from data_prep.sources.tokens.runs import End, TokenRun

ROWS = 1000  # the number of rows that decide whether the data is packed


def join_packed(runs: Iterator[TokenRun], end_of_text: int, end: End, notes: list[str]) -> Iterator[TokenRun]:
    """Remove the document ends from runs of packed rows, so that documents end only at end-of-text tokens.

    Rows are packed if the first ones all have the same length and at least one has an end-of-text token in the middle. The last row
    of a file can be shorter. The result is appended to `notes`. Raises CannotResume if a later row has another length.
    """
    first: list[TokenRun] = []
    rows = 0
    for run in runs:
        first.append(replace(run, tokens=run.tokens.copy()))
        rows += len(_lengths(run))
        if rows >= ROWS:
            break
    length = int(_lengths(first[0])[0]) if first and len(_lengths(first[0])) else 0
    if rows < 2 or not length or not _same_length(first, length):
        yield from chain(first, runs)
        return
    if not any(_ends_inside(run, length, end_of_text, end) for run in first):
        notes.append(
            f"rows: the first {min(rows, ROWS):,} are {length:,} tokens long, without token {end_of_text} in the middle, so each row"
            " is one document"
        )
        yield from chain(first, runs)
        return
    notes.append(
        f"rows: packed, {length:,} tokens each; they were joined and divided into documents at token {end_of_text}"
    )
    short = None
    for run in chain(first, runs):
        lengths = _lengths(run)
        if short == run.name or bool((lengths[:-1] != length).any()) or bool((lengths > length).any()):
            raise CannotResume(
                f"{run.name}: a row is not {length} tokens long, but the rows before it are packed to this length"
            )
        short = run.name if len(lengths) and lengths[-1] < length else None
        yield TokenRun(run.name, run.start, run.tokens, None)


def _lengths(run: TokenRun) -> Ints:
    assert run.ends is not None
    return np.diff(run.ends, prepend=0)


def _same_length(runs: list[TokenRun], length: int) -> bool:
    """Whether the first rows have this length. If there are no other rows, the last one can be shorter."""
    lengths = np.concatenate([_lengths(run) for run in runs])
    shorter_last = len(lengths) <= ROWS and 0 < lengths[-1] < length
    return bool((lengths[: len(lengths) - shorter_last][:ROWS] == length).all())


def _ends_inside(run: TokenRun, length: int, end_of_text: int, end: End) -> bool:
    """Whether a document ends in the middle of a row."""
    places = np.flatnonzero(run.tokens == end_of_text) % length
    return bool((places != (length - 1 if end == "after" else 0)).any())
