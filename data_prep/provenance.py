"""What stands at a position of a run, for people: which text, which copy, how far to the copies before and after it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from data_prep.draw import Draw
from data_prep.mixture import RepeatMixture, Stream


@dataclass(frozen=True)
class Sighting:
    """One sequence of a run."""

    position: int  # in the run, counted in sequences
    stream: Stream
    place: int  # slot of the pool, or place in the unique stream
    copy: int | None  # 1 for the first time the slot is seen, repeats for the last; None in the unique stream
    since: int | None  # sequences since the slot was last seen
    until: int | None  # sequences until it is seen again
    documents: list[str]  # names, in the order of the text
    text: str  # decoded


def sightings(mixture: RepeatMixture, draw: Draw, positions: Iterable[int]) -> Iterator[Sighting]:
    """Describe the sequences at `positions`; copies are counted in the order of the run, whatever the spacing."""
    offsets = draw.store.offsets("train")
    names = draw.store.document_names("train")
    tokenizer = draw.store.tokenizer()
    for position in positions:
        found = mixture.at(position)
        stream, place = Stream(int(found.stream)), int(found.place)
        copy = since = until = None
        if stream is Stream.POOL:
            seen = mixture.occurrences(place)
            copy = int(np.searchsorted(seen, position))
            since = position - int(seen[copy - 1]) if copy else None
            until = int(seen[copy + 1]) - position if copy + 1 < len(seen) else None
        indices = draw.indices(stream, place)
        documents = dict.fromkeys((np.searchsorted(offsets, indices, side="right") - 1).tolist())
        text = tokenizer.decode(draw.store.train[indices].tolist(), skip_special_tokens=False)
        yield Sighting(
            position, stream, place, copy + 1 if copy is not None else None, since, until,
            [names[number] for number in documents], text,
        )  # fmt: skip
