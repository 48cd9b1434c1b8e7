"""Sources of documents. A source is a deterministic stream: the same texts give the same documents in the same order."""

import hashlib
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.errors import InputError


@dataclass(frozen=True)
class Document:
    """One text with a name to find it by; the name plays no part in any order, split or fingerprint."""

    name: str
    text: str
    digest: bytes  # SHA-256 of the UTF-8 text


@dataclass
class SourceReport:
    """What a source met on its way: counts of files, exact duplicates and unreadable files."""

    found: int = 0
    duplicates: int = 0
    empty: int = 0
    not_utf8: list[str] = field(default_factory=list)


def installed_python_roots() -> list[Path]:
    """The standard library and the installed packages of the running interpreter."""
    paths = sysconfig.get_paths()
    return [Path(root) for root in dict.fromkeys(paths[key] for key in ("stdlib", "purelib", "platlib"))]


def installed_python(report: SourceReport, roots: list[Path] | None = None) -> Iterator[Document]:
    """Every distinct .py file below the roots, ordered by the hash of its content.

    Hash order makes the corpus a function of the set of texts: neither folder names nor file dates matter, and any
    prefix of it is a random sample. Two passes over the files keep memory at one digest per file.
    Raises InputError when there is no Python file below the roots.
    """
    roots = installed_python_roots() if roots is None else roots
    name_by_digest: dict[bytes, tuple[str, Path]] = {}
    for root in roots:
        for path in sorted(root.rglob("*.py")):
            name = path.relative_to(root)
            # The standard library's folder often holds another environment's packages; an editable install writes
            # a file with this machine's paths into it.
            if (root != roots[0] or not {"site-packages", "dist-packages"} & set(name.parts)) and not (
                name.name.startswith("__editable__") or not path.is_file()
            ):
                report.found += 1
                content = path.read_bytes()
                digest = hashlib.sha256(content).digest()
                if not content.strip():
                    report.empty += 1
                elif digest in name_by_digest:
                    report.duplicates += 1
                else:
                    name_by_digest[digest] = (str(name), path)
    if not name_by_digest:
        raise InputError(f"installed-python: no Python source found below {', '.join(map(str, roots))}")
    for digest, (title, path) in sorted(name_by_digest.items()):
        try:
            yield Document(title, path.read_bytes().decode("utf-8"), digest)
        except UnicodeDecodeError:
            report.not_utf8.append(title)
