"""Hugging Face datasets with a column of token ids, read through the `datasets` library."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_prep.errors import CannotResume
from data_prep.sources.hugging_face import one_line_errors, open_dataset
from data_prep.sources.tokens.runs import TokenFile, TokenFormat, TokenRun, require_dtype, require_length

if TYPE_CHECKING:
    from data_prep.sources.tokens.source import Tokens

FIELD = "input_ids"
ROWS = 1000  # per block


class Datasets(TokenFormat):
    """Each row of the column is one list of tokens."""

    suffixes = ()
    options = frozenset({"tokens_field", "split"})
    rows = True

    def read(self, file: TokenFile, source: "Tokens") -> Iterator[TokenRun]:
        """Yield the rows of a dataset in order. `file.path` is a folder or the name of a dataset on the hub."""
        import pyarrow as pa

        name, field, split = str(file.path), source.tokens_field or FIELD, source.split or "train"
        with one_line_errors(name):
            rows = open_dataset(name, None, split)
            columns = rows.column_names
            if columns is not None and field not in columns:
                raise CannotResume(
                    f"{name}: no column {field!r} (data.source.tokens_field); columns: {', '.join(columns)}"
                )
            start = 0
            for table in rows.with_format("arrow").iter(ROWS):
                column = table.column(field).combine_chunks()
                if isinstance(column, pa.ChunkedArray):
                    column = column.chunk(0)
                if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
                        or pa.types.is_fixed_size_list(column.type)):  # fmt: skip
                    raise CannotResume(f"{name}: column {field!r} has type {column.type}, expected lists of integers")
                values = column.flatten()
                if column.null_count or values.null_count:
                    raise CannotResume(f"{name}: column {field!r} contains null")
                if not pa.types.is_integer(values.type):
                    raise CannotResume(f"{name}: column {field!r} has type {column.type}, expected lists of integers")
                tokens = values.to_numpy()
                require_dtype(Path(name), tokens.dtype, source)
                lengths = _lengths(column)
                require_length(name, int(lengths.max(initial=0)))
                yield TokenRun(file.name, start, tokens, np.cumsum(lengths))
                start += len(tokens)


def _lengths(column: Any) -> Any:
    import pyarrow.compute as pc

    return pc.list_value_length(column).to_numpy(zero_copy_only=False).astype(np.int64)
