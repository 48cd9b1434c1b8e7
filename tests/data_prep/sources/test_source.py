"""The requirements for a new source."""

from collections.abc import Iterator
from typing import Literal

import pytest

from data_prep.errors import InputError
from data_prep.sources import BadRow, Document, SourceReport, documents
from data_prep.sources.source import Source


class Countdown(Source):
    kind: Literal["countdown"] = "countdown"
    start: int

    def read(self) -> Iterator[Document | BadRow]:
        for number in range(self.start, 0, -1):
            yield Document.of(f"countdown:{number}", f"{number} to go")
        yield BadRow("countdown:0", "too late")


class StrictCountdown(Countdown):
    max_bad_rows: int = 0


def test_a_source_needs_only_a_kind_fields_and_a_read_method() -> None:
    report = SourceReport()
    texts = [document.text for document in documents(Countdown(start=3), report)]
    assert texts == ["3 to go", "2 to go", "1 to go"]
    assert report == SourceReport(read=4, bad=1, bad_named=["countdown:0: too late"])


def test_a_source_with_a_field_max_bad_rows_stops_above_that_limit() -> None:
    with pytest.raises(InputError, match=r"countdown:0: too late; bad rows so far: 1, .*max_bad_rows is 0$"):
        list(documents(StrictCountdown(start=1), SourceReport()))
    assert len(list(documents(StrictCountdown(start=1, max_bad_rows=1), SourceReport()))) == 1
