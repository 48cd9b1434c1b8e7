"""The functions that `import data_prep` offers: build a token store, or open one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data_prep.build import Progress
from data_prep.data_spec import DataSpec
from data_prep.errors import InputError
from data_prep.prepare import prepare
from data_prep.token_store import TokenStore


def build_store(
    spec: DataSpec | Mapping[str, Any],
    data_dir: str | Path = "data",
    progress: Progress = lambda stage, share: None,
) -> TokenStore:
    """Build the token store of a spec in `data_dir`, or open it if it exists.

        store = build_store({"source": "installed-python", "vocabulary": 1024, "max_tokens": 1_000_000})
        store.train  # uint16 token ids, shape [tokens]

    spec: a DataSpec, or a mapping with the keys of a study's `[data]` table. progress: called with the stage and the
    share of it that is done, 0..1.
    Raises InputError if the spec is invalid, the corpus cannot be used or the disk is full.
    """
    if not isinstance(spec, DataSpec):
        try:
            spec = DataSpec.model_validate(dict(spec))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, ("data", *first["loc"])))
            raise InputError(f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}, found {first['input']!r}") from error
    return prepare(spec, Path(data_dir), progress)


def open_store(folder: str | Path, verify: bool = False) -> TokenStore:
    """Open the token store in `folder`, e.g. "data/installed-python-1a2b3c4d".

    verify: also compare every file with its checksum (reads the whole store).
    Raises InputError if there is no store, or a file is missing, truncated or altered.
    """
    return TokenStore(Path(folder), verify)
