"""Which files the paths of a source name: files, folders and globs.

One rule for every spelling, so that `corpus`, `corpus/**` and a link to `corpus` give the same documents:

- A name that begins with a dot is skipped below a folder, and no wildcard matches it. A path may name it itself.
- A link to a folder is followed, unless it leads back to a folder that contains it. Each folder is read once.
- The type of a file is its suffix, in any case. Files of other types are skipped.
- A file that is found twice is read once, under its first name.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from data_prep.errors import InputError
from data_prep.files import user_path

PLAIN, PARQUET = (".txt", ".md", ".py"), (".parquet",)
# Web corpora call compressed JSON lines .json.gz. A plain .json is mostly one value, such as a configuration.
JSON_LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".ndjson.gz", ".ndjson.zst", ".json.gz", ".json.zst")
SUFFIXES = (*PLAIN, *JSON_LINES, *PARQUET)
MOST_SUFFIXES = 5  # listed in the line on skipped files


@dataclass
class FoundFiles:
    """The files that paths name, and how many were skipped."""

    files: list[tuple[str, Path]]  # in order: name relative to the given path, and path
    hidden: int  # files and folders
    other_types: Counter[str]  # files by suffix

    def skipped(self) -> str:
        """One line on what was skipped; empty if nothing was."""
        kinds = [f"{self.hidden} hidden (name begins with a dot)"] if self.hidden else []
        if self.other_types:
            by_count = sorted(self.other_types.items(), key=lambda item: (-item[1], item[0]))
            suffixes = [f"{suffix} {count}" for suffix, count in by_count]
            listed = ", ".join(suffixes[:MOST_SUFFIXES]) + (", …" if len(suffixes) > MOST_SUFFIXES else "")
            kinds.append(f"{self.other_types.total()} of other types ({listed})")
        return f"files skipped: {', '.join(kinds)}" if kinds else ""


@dataclass(frozen=True)
class _Folder:
    """A folder, and its entries that are not folders."""

    path: Path
    files: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)  # folders too


def find_files(paths: tuple[str, ...]) -> FoundFiles:
    """Find every file that the paths name, each once.

    Raises InputError if a path matches no file with a known suffix, names a file with another one, or cannot be read.
    """
    names: dict[Path, tuple[str, Path]] = {}
    hidden: set[Path] = set()
    other_types: set[Path] = set()
    for given in paths:
        path = user_path(given, "data.source.paths")
        try:
            root, matches = _matches(path)
            folders = list(_walk([match for match in matches if match.is_dir()]))
            below = {match for match in matches if not match.is_dir()}.union(*(folder.files for folder in folders))
            known = sorted(file for file in below if has_suffix(file, SUFFIXES) and file.is_file())
            for file in known:
                names.setdefault(file.resolve(), (file.relative_to(root).as_posix(), file))
        except (OSError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
            place, reason = getattr(error, "filename", None) or path, getattr(error, "strerror", None) or error
            raise InputError(f"{place}: cannot be read: {reason}") from error
        hidden_here = {file for folder in folders for file in folder.hidden}
        if not known:
            note = f"; hidden files and folders skipped: {len(hidden_here)}" if hidden_here else ""
            raise InputError(f"{given}: data.source.paths matches no file that ends in {' '.join(SUFFIXES)}{note}")
        hidden |= hidden_here
        other_types |= below - set(known)
    return FoundFiles(list(names.values()), len(hidden), Counter(map(_type_of, other_types)))


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether the file's name ends in one of the (lower-case) suffixes, in any case."""
    return path.name.lower().endswith(suffixes)


def _type_of(file: Path) -> str:
    return (file.suffix.lower() or "no suffix") if file.is_file() else "broken links and devices"


def _matches(path: Path) -> tuple[Path, list[Path]]:
    """The folder that names are relative to, and the files and folders that a path names."""
    if path.is_dir():
        return path, [path]
    if path.exists():
        if not has_suffix(path, SUFFIXES):
            raise InputError(f"{path}: unknown file type; accepted suffixes: {' '.join(SUFFIXES)}")
        return path.parent, [path]
    parts = path.parts
    first = next((place for place, part in enumerate(parts) if _has_wildcard(part)), len(parts) - 1)
    root = Path(*parts[:first])
    return root, list(_glob(root, parts[first:]))


def _has_wildcard(part: str) -> bool:
    return not set(part).isdisjoint("*?[")


def _glob(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    """Files and folders below `folder` that match the parts of a glob; `**` is any number of folders.

    Not glob.glob, which follows links in circles: with two such links it does not end.
    """
    if not parts or parts == ("**",):
        yield folder
    elif parts[0] == "**":
        for inner in _walk([folder] if folder.is_dir() else []):
            yield from _glob(inner.path, parts[1:])
    elif not _has_wildcard(parts[0]):
        if (folder / parts[0]).exists():
            yield from _glob(folder / parts[0], parts[1:])
    elif folder.is_dir():
        for entry in folder.iterdir():
            visible = parts[0].startswith(".") or not entry.name.startswith(".")
            if visible and fnmatchcase(entry.name, parts[0]) and not _leads_back(entry):
                yield from _glob(entry, parts[1:])


def _leads_back(entry: Path) -> bool:
    """Whether a path is a link to a folder that contains it, perhaps through other links."""
    if not (entry.is_symlink() and entry.is_dir()):
        return False
    target = entry.resolve()
    return any(folder.resolve().is_relative_to(target) for folder in entry.parents)


def _walk(folders: list[Path]) -> Iterator[_Folder]:
    """The folders and all folders below them, each once.

    Links come last, so that a folder which is also reached without a link is found under its own name.
    """
    read: set[Path] = set()
    later = sorted(folders, key=lambda folder: (folder.is_symlink(), folder))
    while later:
        pending = [later.pop(0)]
        while pending:
            folder = _Folder(pending.pop())
            if (real := folder.path.resolve()) in read:
                continue
            read.add(real)
            for entry in sorted(folder.path.iterdir()):
                if entry.name.startswith("."):
                    folder.hidden.append(entry)
                elif not entry.is_dir():
                    folder.files.append(entry)
                elif not entry.is_symlink():
                    pending.append(entry)
                elif not _leads_back(entry):
                    later.append(entry)
            yield folder
