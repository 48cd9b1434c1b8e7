"""Find the files that a source's paths refer to. A path is a file, a folder or a glob.

The rules do not depend on how a path is written, so `corpus`, `corpus/**` and a link to `corpus` give the same documents:

- Files and folders whose names begin with a dot are skipped, and wildcards do not match them. To read one, name
  it explicitly in a path.
- A link to a folder is followed, unless that folder contains the link itself. Each folder is read once.
- A file's suffix determines its type, regardless of case. Files of other types are skipped.
- A file that several paths match is read once, under the first name found.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from data_prep.errors import InputError
from data_prep.files import user_path

PLAIN, PARQUET = (".txt", ".md", ".py"), (".parquet",)
# Web corpora use .json.gz for compressed JSON lines. A plain .json file usually contains a single value.
JSON_LINES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".ndjson.gz", ".ndjson.zst", ".json.gz", ".json.zst")
SUFFIXES = (*PLAIN, *JSON_LINES, *PARQUET)
MOST_NAMES = 3  # number of paths that `names_of` lists
MOST_SUFFIXES = 5  # number of suffixes listed in the summary of skipped files


@dataclass
class FoundFiles:
    """The files that were found, and how many others were skipped."""

    files: list[tuple[str, Path]]  # in reading order: (name relative to the given path, path)
    hidden: int  # number of files and folders
    other_types: Counter[str]  # number of files by suffix

    def skipped(self) -> str:
        """One-line summary of the skipped files, or an empty string if there are none."""
        kinds = [f"{self.hidden} hidden (name begins with a dot)"] if self.hidden else []
        if self.other_types:
            by_count = sorted(self.other_types.items(), key=lambda item: (-item[1], item[0]))
            suffixes = [f"{suffix} {count}" for suffix, count in by_count]
            listed = ", ".join(suffixes[:MOST_SUFFIXES]) + (", …" if len(suffixes) > MOST_SUFFIXES else "")
            kinds.append(f"{self.other_types.total()} of other types ({listed})")
        return f"files skipped: {', '.join(kinds)}" if kinds else ""


@dataclass(frozen=True)
class _Folder:
    """A folder, its visible files and its hidden entries."""

    path: Path
    files: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)  # files and folders


def find_files(paths: tuple[str, ...], suffixes: tuple[str, ...] = SUFFIXES) -> FoundFiles:
    """Find the files that match the paths and whose names end in one of `suffixes`. Each file is listed once.

    Raises InputError if a path matches no file with an accepted suffix, names a file with another suffix, or cannot be
    read.
    """
    names: dict[Path, tuple[str, Path]] = {}
    hidden: set[Path] = set()
    other_types: set[Path] = set()
    for given in paths:
        if not given:
            raise InputError('data.source.paths: an empty path; use "." for the current folder')
        path = user_path(given, "data.source.paths")
        try:
            root, matches = _matches(path, suffixes)
            folders = list(_walk([match for match in matches if match.is_dir()]))
            below = {match for match in matches if not match.is_dir()}.union(*(folder.files for folder in folders))
            accepted = sorted(file for file in below if has_suffix(file, suffixes) and file.is_file())
            for file in accepted:
                names.setdefault(file.resolve(), (file.relative_to(root).as_posix(), file))
        except (OSError, RuntimeError) as error:  # RuntimeError if a symbolic link points to itself
            place, reason = getattr(error, "filename", None) or path, getattr(error, "strerror", None) or error
            raise InputError(f"{place}: cannot be read: {reason}") from error
        hidden_here = {file for folder in folders for file in folder.hidden}
        if not accepted:
            note = f"; hidden files and folders skipped: {len(hidden_here)}" if hidden_here else ""
            raise InputError(
                f"{given}: data.source.paths matches no file with one of the suffixes {' '.join(suffixes)}{note}"
            )
        hidden |= hidden_here
        other_types |= below - set(accepted)
    return FoundFiles(list(names.values()), len(hidden), Counter(map(_type_of, other_types)))


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether the file name ends in one of the lower-case suffixes, ignoring case."""
    return path.name.lower().endswith(suffixes)


def _type_of(file: Path) -> str:
    return (file.suffix.lower() or "no suffix") if file.is_file() else "broken links and devices"


def _matches(path: Path, suffixes: tuple[str, ...]) -> tuple[Path, list[Path]]:
    """Find the base folder for document names, and the files and folders that a path matches."""
    if path.is_dir():
        return path, [path]
    if path.exists():
        if not has_suffix(path, suffixes):
            raise InputError(f"{path}: unknown file type; accepted suffixes: {' '.join(suffixes)}")
        return path.parent, [path]
    parts = path.parts
    first = next((index for index, name in enumerate(parts) if _has_wildcard(name)), len(parts) - 1)
    root = Path(*parts[:first])
    return root, list(_glob(root, parts[first:]))


def _has_wildcard(name: str) -> bool:
    return not set(name).isdisjoint("*?[")


def _glob(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files and folders below `folder` that match the parts of a glob; `**` matches any number of folders.

    `glob.glob` is unsuitable: it follows circular links and does not terminate if there are two of them.
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
    """Whether a path is a link to a folder that contains it, directly or through other links."""
    if not (entry.is_symlink() and entry.is_dir()):
        return False
    target = entry.resolve()
    return any(folder.resolve().is_relative_to(target) for folder in entry.parents)


def _walk(folders: list[Path]) -> Iterator[_Folder]:
    """Yield the folders and all folders below them, each once.

    Links are followed last, so a folder that can also be reached without a link is found under its own name.
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


def names_of(paths: Sequence[str]) -> str:
    """The distinct names of the paths, for readers on other machines: "a.txt, b.txt", or "a.txt and 4 more".

    The name is the last component without a wildcard, such as "corpus" for "data/corpus/**".
    """
    names = list(dict.fromkeys(map(_name_of, paths)))
    return ", ".join(names) if len(names) <= MOST_NAMES else f"{names[0]} and {len(names) - 1} more"


def _name_of(path: str) -> str:
    plain = [part for part in Path(path).parts if part != "/" and not _has_wildcard(part)]
    return plain[-1] if plain else path
