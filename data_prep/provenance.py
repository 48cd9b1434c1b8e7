"""Describe a run's sequences in readable form: their text, documents, copy numbers and distances to neighboring copies."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from data_prep.combined_draw import CombinedDraw
from data_prep.draw import Draw
from data_prep.mixture import RepeatMixture, Stream
from data_prep.token_store import TokenStore


@dataclass(frozen=True)
class DescribedSequence:
    """A description of the sequence at one position in a run."""

    position: int  # position in the run, counted in sequences from 0
    stream: Stream
    place: int  # slot in the pool, or index in the unique stream
    copy: int | None  # 1 for the first occurrence of the slot, R for the last; None in the unique stream
    since_last: int | None  # sequences since the previous copy; None if there is none
    until_next: int | None  # sequences until the next copy; None if there is none
    store: TokenStore  # the store that the text comes from
    documents: list[str]  # names of the documents that the text comes from, in order
    text: str  # the decoded tokens; the token ids, separated by spaces, if the store has no tokenizer


def describe_sequences(
    mixture: RepeatMixture, draw: Draw | CombinedDraw, positions: Iterable[int]
) -> Iterator[DescribedSequence]:
    """Describe the sequences at `positions`. Copies are numbered in order of appearance."""
    tokenizer = draw.stores[0].tokenizer() if draw.stores[0].has_tokenizer else None
    names = {store.folder: store.document_names("train") for store in draw.stores}
    for position in positions:
        provenance = mixture.at(position)
        stream, place = Stream(int(provenance.stream)), int(provenance.place)
        copy = since_last = until_next = None
        if stream is Stream.POOL:
            occurrences = mixture.occurrences(place)
            earlier = int(np.searchsorted(occurrences, position))
            copy = earlier + 1
            since_last = position - int(occurrences[earlier - 1]) if earlier else None
            until_next = int(occurrences[earlier + 1]) - position if copy < len(occurrences) else None
        store, indices = draw.source(stream, place)
        documents = dict.fromkeys((np.searchsorted(store.offsets("train"), indices, side="right") - 1).tolist())
        ids = store.train[indices].tolist()
        text = tokenizer.decode(ids, skip_special_tokens=False) if tokenizer else " ".join(map(str, ids))
        yield DescribedSequence(
            position=position,
            stream=stream,
            place=place,
            copy=copy,
            since_last=since_last,
            until_next=until_next,
            store=store,
            documents=[names[store.folder][number] for number in documents],
            text=text,
        )
