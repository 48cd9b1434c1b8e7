"""Datasets of the Hugging Face hub, streamed, and folders saved from them."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from data_prep.errors import InputError
from data_prep.sources.document import BadRow, Document, SourceReport, one_line


class HuggingFace(BaseModel):
    """A dataset by its name on the hub, a local copy of one, or a folder written by `save_to_disk`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["huggingface"] = "huggingface"
    dataset: str
    config: str | None = None
    split: str = "train"
    text_field: str = "text"
    max_bad_rows: int = Field(0, ge=0)


def read(spec: HuggingFace, report: SourceReport) -> Iterator[Document]:
    """One document per row, in the dataset's order; nothing is downloaded beyond what is read.

    Raises InputError without the `datasets` library, for a dataset that cannot be opened, a split or column it does
    not have, and more than `max_bad_rows` rows whose text is no string.
    """
    with _told_in_one_line(spec):
        rows = _open(spec)
        columns = rows.column_names  # None where a stream does not tell before it is read
        if columns is not None:
            if spec.text_field not in columns:
                raise InputError(
                    f"{spec.dataset}: no column {spec.text_field!r} (data.source.text_field); there is"
                    f" {', '.join(columns)}"
                )
            rows = rows.select_columns([spec.text_field])
        for number, row in enumerate(rows, 1):
            name = f"{Path(spec.dataset).name}/{spec.split}:{number}"
            try:
                document = Document.of(name, row.get(spec.text_field))
            except BadRow as error:
                report.add_bad(name, str(error), spec.max_bad_rows)
            else:
                yield document


def _open(spec: HuggingFace) -> Any:
    try:
        datasets: Any = importlib.import_module("datasets")
    except ModuleNotFoundError as error:
        raise InputError(
            "data.source: kind \"huggingface\" needs the datasets library; pip install 'repeat-study[hf]'"
        ) from error
    folder = Path(spec.dataset).expanduser()
    if not any((folder / mark).is_file() for mark in ("dataset_dict.json", "state.json")):
        name = str(folder) if folder.is_dir() else spec.dataset
        return datasets.load_dataset(name, spec.config, split=spec.split, streaming=True)
    saved = datasets.load_from_disk(str(folder))
    splits = saved if isinstance(saved, dict) else {str(saved.split or spec.split): saved}
    if spec.split not in splits:
        raise InputError(f"{spec.dataset}: no split {spec.split!r} (data.source.split); there is {', '.join(splits)}")
    return splits[spec.split]


@contextmanager
def _told_in_one_line(spec: HuggingFace) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # of the hub, of the network, of pyarrow: the library lets them all through
        raise InputError(f"{spec.dataset}: cannot be read: {type(error).__name__}: {one_line(error)}") from error
