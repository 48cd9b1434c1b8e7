"""Tables fit the terminal without truncating any cell."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from repeat_study_cli.tables import WrappedTable

WORDS = st.text(string.ascii_letters + string.digits, min_size=1, max_size=18)


def rendered(table: WrappedTable, width: int) -> str:
    console = Console(width=width, record=True, highlight=False)
    console.print(table)
    return console.export_text()


@given(columns=st.integers(1, 9), rows=st.integers(0, 4), width=st.integers(40, 140), data=st.data())
def test_no_cell_is_truncated_and_no_line_is_wider_than_the_terminal(
    columns: int, rows: int, width: int, data: st.DataObject
) -> None:
    headings = [f"{data.draw(WORDS)} {number}" for number in range(columns)]
    table = WrappedTable(*headings)
    cells = [[data.draw(WORDS) for _ in range(columns)] for _ in range(rows)]
    for row in cells:
        table.add_row(*row, note=data.draw(st.sampled_from(["", "a note of some words"])))
    text = rendered(table, width)
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    assert all(cell in text.split() for row in cells for cell in row)
    assert all(word in text.split() for heading in headings for word in heading.split())


def test_a_narrow_terminal_gets_shorter_texts_then_fewer_columns_then_blocks() -> None:
    table = WrappedTable("run", "tokens", "speed", "loss", optional=("speed",))
    table.add_row("2x64-f0.9-R100-s0", ("1,536,000", "1.54M"), "12,345", "4.123", note="a note")
    wide = rendered(table, 80)
    assert "1,536,000" in wide and "note" in wide.splitlines()[0] and wide.splitlines()[1].endswith("a note")
    short = rendered(table, 42)
    assert "1.54M" in short and "12,345" in short and short.splitlines()[2] == "    a note"
    dropped = rendered(table, 34)
    assert "12,345" not in dropped and "1.54M" in dropped and "4.123" in dropped
    blocks = rendered(table, 25)
    assert blocks.count("2x64-f0.9-R100-s0") == 2 and "1.54M" in blocks and "4.123" in blocks


def test_a_row_has_one_cell_per_column() -> None:
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        WrappedTable("a", "b").add_row("1")
