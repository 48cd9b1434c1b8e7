"""Detect changes to token stores while runs train on them or are evaluated on them."""

from pathlib import Path

from data_prep.errors import InputError
from data_prep.files import sha256_file
from data_prep.token_store import MANIFEST, TokenStore
from repeat_study.records.completion import Stamp, stamp
from repeat_study.records.outcome import FileFault

ADVICE = "delete the store's folder and prepare it again"


class AlteredStore(FileFault):
    """A file in a token store does not match its checksum in the manifest."""


class StoreWatch:
    """Watches the files of open stores. Only files whose size or modification time changes are reread, at about a second per GB."""

    def __init__(self, store: TokenStore) -> None:
        """Raises the same InputErrors as `add`."""
        self._sha256: dict[Path, str] = {}
        self._stamps: dict[Path, Stamp] = {}
        self.add(store)

    def add(self, store: TokenStore) -> None:
        """Watch another store. Raises InputError if a file was altered after the store was built."""
        sha256 = {store.folder / name: digest for name, digest in store.manifest["sha256"].items()}
        if sha256.keys() <= self._sha256.keys():
            return
        stamps = {path: stamp(path) for path in sha256}
        manifest = stamp(store.folder / MANIFEST)
        newer = [path for path, first in stamps.items() if first and manifest and first[1] > manifest[1]]
        for path in newer:  # the manifest is written last, so newer files have been copied or altered
            if not _intact(path, sha256[path]):
                raise InputError(f"{path}: does not match its checksum in the manifest; {ADVICE}")
        self._sha256 |= sha256
        self._stamps |= stamps

    def altered(self) -> Path | None:
        """Return the first file whose content has changed since its store was added, or None."""
        for path, previous in self._stamps.items():
            if (current := stamp(path)) != previous:
                if not _intact(path, self._sha256[path]):
                    return path
                self._stamps[path] = current
        return None


def _intact(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_file(path) == sha256
