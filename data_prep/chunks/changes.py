"""Decide which encoded chunks remain valid after the input of an interrupted build has changed."""

import fcntl
from collections.abc import Collection, Sequence
from pathlib import Path

from data_prep.errors import InputError
from data_prep.files import read_record
from data_prep.sources import Chunk

CLAIMS, SETTLEMENT = "claims", "settlement.npz"


def chunk_file(folder: Path, chunk_id: int, suffix: str) -> Path:
    """The file of a chunk in the folder of the encoded chunks."""
    return folder / f"{chunk_id:06d}{suffix}"


def ids_after_change(folder: Path, old: Sequence[Chunk], old_ids: Sequence[int], new: Sequence[Chunk]) -> list[int]:
    """The id of each new chunk: its old one if it has not changed. The encoded text of the other old chunks is not valid.

    Raises InputError if a file has changed after it was encoded, unless it had bad rows or could not be read.
    """
    now = {name: state for chunk in new for name, state in chunk.states().items()}
    changed = {
        name: "has changed" if name in now else "is missing"
        for chunk in old
        for name, state in chunk.states().items()
        if now.get(name) != state
    }
    damaged: set[str] = set()
    encoded: set[str] = set()
    for chunk, chunk_id in zip(old, old_ids, strict=True):
        path = chunk_file(folder, chunk_id, ".json")
        record = read_record(path, "bad", "ended") if path.is_file() else {"bad": 0, "ended": False}
        encoded |= chunk.states().keys() if record["ended"] else set()
        damaged |= chunk.states().keys() if record["bad"] or chunk_file(folder, chunk_id, ".error").is_file() else set()
    if refused := [name for name in changed if name in encoded - damaged]:
        name = refused[0]
        raise InputError(
            f"{folder}: {name or 'the dataset'} {changed[name]} since it was encoded for this build, which was interrupted; delete the"
            " folder to start again"
        )
    next_id = 1 + max([*old_ids, *(int(path.name[:6]) for path in folder.glob("[0-9]*.*"))], default=-1)
    ids = dict(zip(old, old_ids, strict=True))
    return [ids.get(chunk, next_id + number) for number, chunk in enumerate(new)]


def delete_encoded(folder: Path, ids: Collection[int]) -> None:
    """Delete the encoded text of these chunks, and the settlement. Raises InputError if another process is encoding."""
    with (folder / CLAIMS).open("ab") as claims:
        try:
            fcntl.lockf(claims, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise InputError(
                f"{folder}: the input has changed while other processes are encoding it; stop them and run the command again"
            ) from error
        (folder / SETTLEMENT).unlink(missing_ok=True)
        # Delete the records first: segments without a record are not used.
        for pattern in (".json", "-*.npz", ".error"):
            for chunk_id in ids:
                for path in folder.glob(f"{chunk_id:06d}{pattern}"):
                    path.unlink(missing_ok=True)
