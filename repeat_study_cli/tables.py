"""Tables that fit the terminal's width without truncating any cell."""

from collections.abc import Iterator, Sequence
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.text import Text

GAP = "  "
Cell = str | tuple[str, str]  # a pair: the exact text, and a shorter one for narrow terminals


class WrappedTable:
    """A table without borders. The first `left` columns are left-aligned, the others right-aligned.

    A table that is too wide for the terminal is narrowed in this order: headings are wrapped, cells switch to their shorter
    text, the columns in `optional` are dropped from the last to the first, and the remaining columns are split into blocks
    that repeat the first column. Notes are printed in a separate column, headed `notes`, if it fits, and otherwise below the rows.
    """

    def __init__(self, *headings: str, left: int = 1, optional: Sequence[str] = (), notes: str = "note") -> None:
        self.headings = headings
        self.left = left
        self.optional = optional
        self.notes_heading = notes
        self.rows: list[tuple[Cell, ...]] = []
        self.notes: list[str] = []

    def add_row(self, *cells: Cell, note: str = "") -> None:
        """Add a row, with one cell per column."""
        if len(cells) != len(self.headings):
            raise ValueError(f"{len(cells)} cells for {len(self.headings)} columns")
        self.rows.append(cells)
        self.notes.append(note)

    def lines(self, width: int) -> list[Text]:
        """The lines of the table. A line is wider than `width` only if a single cell is."""
        exact, short = ([[_text(cell, version) for cell in row] for row in self.rows] for version in (0, 1))
        layouts = (
            ([[heading] for heading in self.headings], exact),
            (self._wrapped_headings(exact), exact),
            (self._wrapped_headings(short), short),
        )
        columns = list(range(len(self.headings)))
        notes_width = max(map(cell_len, (self.notes_heading, *self.notes))) + len(GAP) if any(self.notes) else 0
        for notes_fit in (True, False) if notes_width else (False,):
            for headings, rows in layouts:
                widths = _widths(headings, rows)
                if _total(widths, columns) + notes_width * notes_fit <= width:
                    return self._block(headings, rows, widths, columns, "beside" if notes_fit else "below")
        for heading in reversed(self.optional):
            if _total(widths, columns) > width:
                columns.remove(self.headings.index(heading))
        *others, last = _split(widths, columns, width)
        lines = []
        for block in others:
            lines += [*self._block(headings, rows, widths, block, "none"), Text()]
        return lines + self._block(headings, rows, widths, last, "below")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Print the lines. A cell that is wider than the terminal continues on the next line."""
        yield from self.lines(options.max_width)

    def _wrapped_headings(self, rows: list[list[str]]) -> list[list[str]]:
        """Wrap each heading to the width of its longest word or cell."""
        wrapped = []
        for column, heading in enumerate(self.headings):
            widest = max([len(word) for word in heading.split()] + [cell_len(row[column]) for row in rows], default=0)
            lines = [""]
            for word in heading.split():
                fits = len(lines[-1]) + 1 + len(word) <= widest
                lines[-1:] = [f"{lines[-1]} {word}".strip()] if fits or not lines[-1] else [lines[-1], word]
            wrapped.append(lines)
        return wrapped

    def _block(
        self,
        headings: list[list[str]],
        rows: list[list[str]],
        widths: list[int],
        columns: list[int],
        notes: Literal["beside", "below", "none"],
    ) -> list[Text]:
        depth = max(len(headings[column]) for column in columns)
        padded = [[""] * (depth - len(heading)) + heading for heading in headings]
        lines = []
        for level in range(depth):
            line = self._line([heading[level] for heading in padded], widths, columns)
            has_title = notes == "beside" and any(self.notes) and level == depth - 1
            lines.append(_as_line(f"{line}{GAP}{self.notes_heading}" if has_title else line, "bold"))
        for row, note in zip(rows, self.notes, strict=True):
            line = self._line(row, widths, columns)
            lines.append(_as_line(f"{line}{GAP}{note}" if notes == "beside" else line))
            if note and notes == "below":
                lines.append(_as_line(f"    {note}"))
        return lines

    def _line(self, cells: Sequence[str], widths: list[int], columns: list[int]) -> str:
        padded = []
        for column in columns:
            space = " " * (widths[column] - cell_len(cells[column]))
            padded.append(cells[column] + space if column < self.left else space + cells[column])
        return GAP.join(padded)


def _text(cell: Cell, version: int) -> str:
    return cell if isinstance(cell, str) else cell[version]


def _as_line(line: str, style: str = "") -> Text:
    return Text(line.rstrip(), style=style, overflow="fold", no_wrap=False)


def _widths(headings: list[list[str]], rows: list[list[str]]) -> list[int]:
    """Width of each column in terminal cells."""
    return [max(map(cell_len, [*headings[column], *(row[column] for row in rows)])) for column in range(len(headings))]


def _total(widths: list[int], columns: list[int]) -> int:
    return sum(widths[column] for column in columns) + len(GAP) * (len(columns) - 1)


def _split(widths: list[int], columns: list[int], width: int) -> list[list[int]]:
    """Split the columns into blocks that fit into `width`. Every block starts with the first column."""
    first, *others = columns
    blocks = [[first]]
    for column in others:
        if _total(widths, [*blocks[-1], column]) > width and len(blocks[-1]) > 1:
            blocks.append([first])
        blocks[-1].append(column)
    return blocks
