"""Notices that a token store is altered while runs train on it."""

from pathlib import Path

from data_prep.errors import InputError
from data_prep.files import sha256_file
from data_prep.token_store import MANIFEST, TokenStore
from repeat_study.records.completion import Stamp, stamp
from repeat_study.records.outcome import FileFault

ADVICE = "delete the store's folder and prepare it again"


class AlteredStore(FileFault):
    """A file of the token store is not what its manifest lists."""


class StoreWatch:
    """The files of an open store. Stamps decide whether a file is read again, since reading all takes a second per GB."""

    def __init__(self, store: TokenStore) -> None:
        """Raises InputError if a file was altered after the store was built."""
        self._sha256: dict[Path, str] = {store.folder / name: sha for name, sha in store.manifest["sha256"].items()}
        self._stamps: dict[Path, Stamp] = {path: stamp(path) for path in self._sha256}
        manifest = stamp(store.folder / MANIFEST)
        newer = [path for path, known in self._stamps.items() if known and manifest and known[1] > manifest[1]]
        for path in newer:  # the manifest is written last, so these were copied or altered
            if not self._intact(path):
                raise InputError(f"{path}: does not match its checksum in the manifest; {ADVICE}")

    def altered(self) -> Path | None:
        """The first file that is not as it was at the start."""
        for path, known in self._stamps.items():
            if (now := stamp(path)) != known:
                if not self._intact(path):
                    return path
                self._stamps[path] = now
        return None

    def _intact(self, path: Path) -> bool:
        return path.is_file() and sha256_file(path) == self._sha256[path]
