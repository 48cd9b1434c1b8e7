"""Public functions of `data_prep`: build a token store, or open an existing one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data_prep.data_spec import DataSpec
from data_prep.document_batch import Progress
from data_prep.errors import InputError
from data_prep.prepare import prepare
from data_prep.token_store import TokenStore
from data_prep.validation import key_path, problem


def build_store(
    spec: DataSpec | Mapping[str, Any],
    data_dir: str | Path = "data",
    progress: Progress = lambda stage, share: None,
    processes: int = 1,
) -> TokenStore:
    """Build a token store from a spec, or open it if it already exists in `data_dir`.

        store = build_store({"source": "installed-python", "vocabulary": 1024, "max_tokens": 1_000_000})
        store.train  # uint16 token ids, shape [tokens]

    spec: a DataSpec, or a mapping with the keys of a study's `[data]` table. progress: a callback that receives the
    name of the current stage, sometimes followed by " | " and details, and the fraction of it that is done (0 to 1).
    processes: how many worker processes encode text. With 1, this process encodes with one thread per core. With more, a script
    must call this function under `if __name__ == "__main__":`.
    Raises InputError if the spec is invalid, the corpus cannot be used or the disk is full.
    """
    if not isinstance(spec, DataSpec):
        try:
            spec = DataSpec.model_validate(dict(spec))
        except ValidationError as error:
            first = error.errors()[0]
            if isinstance(cause := first.get("ctx", {}).get("error"), InputError):
                raise cause from error
            key = key_path(("data", *first["loc"]))
            raise InputError(f"{key}: {problem(first)}") from error
    if spec.mix:
        raise InputError("data.mix: a mixture has several stores; build each spec in spec.stores")
    return prepare(spec, Path(data_dir), progress, processes)


def open_store(folder: str | Path, verify: bool = False) -> TokenStore:
    """Open the token store in `folder`, e.g. "data/installed-python-1a2b3c4d".

    verify: also check every file against its checksum, which reads the whole store.
    Raises InputError if the folder has no manifest, if the manifest was altered, or if a file is missing or truncated.
    With `verify`, it is also raised if a file does not match its checksum.
    """
    return TokenStore(Path(folder), verify)
