"""Read datasets from the Hugging Face hub (streamed) or from folders written by `save_to_disk`."""

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from data_prep.errors import InputError
from data_prep.files import user_path
from data_prep.sources.document import BadRow, BadText, Document, one_line
from data_prep.sources.source import Chunk, Source


class HuggingFace(Source):
    """A dataset on the hub, a local copy of such a dataset, or a folder written by `save_to_disk`."""

    kind: Literal["huggingface"] = "huggingface"
    dataset: str = Field(min_length=1)
    config: str | None = None
    split: str = "train"
    text_field: str = "text"
    max_bad_rows: int = Field(0, ge=0)

    @property
    def in_words(self) -> str:
        """See `DataSource.in_words`."""
        return f"Hugging Face dataset {Path(self.dataset).name if Path(self.dataset).is_absolute() else self.dataset}"

    def read(self) -> Iterator[Document | BadRow]:
        """Yield one document per row, in the dataset's order. Streaming downloads only the rows that are read.

        Raises InputError if the `datasets` library is missing, or if the dataset, its split or its column cannot be
        opened.
        """
        return self.read_chunk(Chunk())

    def read_chunk(self, chunk: Chunk) -> Iterator[Document | BadRow]:
        """Yield a range of the rows of a saved dataset, or of the shards of a streamed one. Raises InputError like `read`."""
        with one_line_errors(self.dataset):
            rows = open_dataset(self.dataset, self.config, self.split)
            columns = rows.column_names  # None if a streamed dataset does not declare them
            if columns is not None:
                if self.text_field not in columns:
                    raise InputError(
                        f"{self.dataset}: no column {self.text_field!r} (data.source.text_field); columns:"
                        f" {', '.join(columns)}"
                    )
                rows = rows.select_columns([self.text_field])
            if chunk.last is not None:
                if hasattr(rows, "select"):
                    rows = rows.select(range(chunk.first, chunk.last))
                else:
                    rows = rows.shard(num_shards=rows.num_shards, index=chunk.first)
            for number, row in enumerate(rows, (chunk.rows_before or 0) + 1):
                name = f"{Path(self.dataset).name}/{self.split}:{number}"
                try:
                    yield Document.of(name, row.get(self.text_field), field=self.text_field)
                except BadText as error:
                    yield BadRow(name, str(error))

    def text_bytes(self) -> float | None:
        """Size of a saved dataset in memory. For a streamed one, the size that it declares, or infinite."""
        if importlib.util.find_spec("datasets") is None:
            return None
        if not _is_saved(user_path(self.dataset, "data.source.dataset")):
            return inf
        with suppress(Exception):  # reading the dataset reports the error
            return float(open_dataset(self.dataset, self.config, self.split).data.nbytes)
        return None

    def chunks(self, size: int, most_tokens: int) -> list[Chunk]:
        """A range of rows of a saved dataset, or a shard of a streamed one, per chunk."""
        with one_line_errors(self.dataset):
            rows = open_dataset(self.dataset, self.config, self.split)
            if not hasattr(rows, "select"):
                shards = rows.num_shards
                if shards == 1:
                    return [Chunk()]
                return [Chunk((), number, number + 1, None if number else 0) for number in range(shards)]
            text_bytes, count = max(1, rows.data.nbytes), len(rows)
            state = str(getattr(rows, "_fingerprint", ""))
        step = max(1, int(count * size / text_bytes))
        ranges = [(first, min(first + step, count)) for first in range(0, count, step)]
        return [
            Chunk((), first, last, first, text_bytes * (last - first) // count, state) for first, last in ranges
        ] or [Chunk()]


def _is_saved(folder: Path) -> bool:
    return any((folder / marker).is_file() for marker in ("dataset_dict.json", "state.json"))


def open_dataset(dataset: str, config: str | None, split: str) -> Any:
    """Open a saved dataset, or stream one from a local copy or from the hub. Raises InputError or one of the library's errors."""
    try:
        datasets: Any = importlib.import_module("datasets")
    except ModuleNotFoundError as error:
        raise InputError("data.source: needs the datasets library; run pip install 'repeat-study[hf]'") from error
    folder = user_path(dataset, "data.source.dataset")
    if not _is_saved(folder):
        name = str(folder) if folder.is_dir() else dataset
        return datasets.load_dataset(name, config, split=split, streaming=True)
    saved = datasets.load_from_disk(str(folder))
    splits = saved if isinstance(saved, dict) else {str(saved.split or split): saved}
    if split not in splits:
        raise InputError(f"{dataset}: no split {split!r} (data.source.split); splits: {', '.join(splits)}")
    return splits[split]


@contextmanager
def one_line_errors(dataset: str) -> Iterator[None]:
    """Convert the library's errors to an InputError that names the dataset."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the library raises many types of error, from the hub, the network and pyarrow
        raise InputError(f"{dataset}: cannot be read: {type(error).__name__}: {one_line(error)}") from error
