"""Detect changes to a token store while runs train on it."""

from pathlib import Path

from data_prep.errors import InputError
from data_prep.files import sha256_file
from data_prep.token_store import MANIFEST, TokenStore
from repeat_study.records.completion import Stamp, stamp
from repeat_study.records.outcome import FileFault

ADVICE = "delete the store's folder and prepare it again"


class AlteredStore(FileFault):
    """A file of the token store does not match its checksum in the manifest."""


class StoreWatch:
    """Watches the files of an open store. Only files with a new size or modification time are read, which takes a second per GB."""

    def __init__(self, store: TokenStore) -> None:
        """Raises InputError if a file was altered after the store was built."""
        self._sha256: dict[Path, str] = {store.folder / name: sha for name, sha in store.manifest["sha256"].items()}
        self._stamps: dict[Path, Stamp] = {path: stamp(path) for path in self._sha256}
        manifest = stamp(store.folder / MANIFEST)
        newer = [path for path, first in self._stamps.items() if first and manifest and first[1] > manifest[1]]
        for path in newer:  # the manifest is written last, so newer files were copied or altered
            if not self._intact(path):
                raise InputError(f"{path}: does not match its checksum in the manifest; {ADVICE}")

    def altered(self) -> Path | None:
        """Return the first file whose content has changed since the store was opened, or None."""
        for path, previous in self._stamps.items():
            if (current := stamp(path)) != previous:
                if not self._intact(path):
                    return path
                self._stamps[path] = current
        return None

    def _intact(self, path: Path) -> bool:
        return path.is_file() and sha256_file(path) == self._sha256[path]
