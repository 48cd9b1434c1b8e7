"""Sources of documents, one class per file. To add a source, see `data_prep.sources.source`."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import BeforeValidator, Field

from data_prep.sources.document import BadRow as BadRow
from data_prep.sources.document import Document as Document
from data_prep.sources.document import SourceReport as SourceReport
from data_prep.sources.hugging_face import HuggingFace as HuggingFace
from data_prep.sources.installed_prose import InstalledProse as InstalledProse
from data_prep.sources.installed_python import InstalledPython as InstalledPython
from data_prep.sources.source import Chunk as Chunk
from data_prep.sources.source import DataSource
from data_prep.sources.source import Source as Source
from data_prep.sources.synthetic import Synthetic as Synthetic
from data_prep.sources.text_files import TextFiles as TextFiles
from data_prep.sources.tokens import Tokens as Tokens

DIGEST_PREFIX = 16  # bytes compared to find duplicates; with 10^12 documents the probability of a collision is 10^-15

MOST_CHARACTERS = 10_000_000  # per document, because encoding needs about 170 bytes of memory per character


def _expand_kind(value: Any) -> Any:
    """Expand `source = "installed-python"` to `source = {kind = "installed-python"}`."""
    return {"kind": value} if isinstance(value, str) else value


if TYPE_CHECKING:
    SourceSpec = DataSource
else:  # the imported subclass whose `kind` matches the table
    SourceSpec = Annotated[
        Union[(*Source.__subclasses__(), Tokens)],
        Field(discriminator="kind"),
        BeforeValidator(_expand_kind),
    ]


EMPTY, DUPLICATE = "empty", "duplicate"


def sorted_rows(rows: Iterable[Document | BadRow]) -> Iterator[Document | BadRow | str]:
    """Yield each row: a document to keep, a bad row, EMPTY for a blank text, or DUPLICATE for an exact copy of an earlier document.

    A document that is too long to encode is a bad row.
    """
    seen: set[bytes] = set()  # needs 82 bytes per document (measured with 10^6 documents)
    for row in rows:
        if isinstance(row, BadRow):
            yield row
        elif len(row.text) > MOST_CHARACTERS:
            yield _too_long(row)
        elif not row.text.strip():
            yield EMPTY
        elif (prefix := row.digest[:DIGEST_PREFIX]) in seen:
            yield DUPLICATE
        else:
            seen.add(prefix)
            yield row


def documents(source: Source, report: SourceReport) -> Iterator[Document]:
    """Yield the documents of a source in order, without blank texts or exact copies of earlier documents.

    `report` is updated while the source is read. Raises InputError if the source cannot be read or has too many bad rows.
    """
    for row in sorted_rows(source.read()):
        if isinstance(row, BadRow):
            report.add_bad(row, source.bad_row_limit)
            continue
        report.read += 1
        report.empty += row == EMPTY
        report.duplicates += row == DUPLICATE
        if isinstance(row, Document):
            yield row


def _too_long(document: Document) -> BadRow:
    reason = f"the document has {len(document.text)} characters, but at most {MOST_CHARACTERS} are accepted; split it"
    return BadRow(document.name, reason)
