"""The Python source on this machine: real text that needs no download."""

import hashlib
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from data_prep.errors import InputError
from data_prep.sources.document import BadRow, Document, SourceReport, decoded


class InstalledPython(BaseModel):
    """The standard library and the installed packages of the running interpreter."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["installed-python"] = "installed-python"


def installed_python_roots() -> list[Path]:
    """The folders of the standard library, first, and of the installed packages."""
    paths = sysconfig.get_paths()
    return [Path(root) for root in dict.fromkeys(paths[key] for key in ("stdlib", "purelib", "platlib"))]


def read(report: SourceReport) -> Iterator[Document]:
    """Every .py file below the roots, ordered by the hash of its content; files that are not UTF-8 count as bad.

    Hash order makes the corpus a function of the set of texts: neither folder names nor file dates matter, and any
    prefix of it is a random sample. Two passes over the files keep memory at one digest and one path per file.
    Raises InputError when there is no Python file below the roots.
    """
    roots = installed_python_roots()
    files: list[tuple[bytes, str, Path]] = []
    for name, path in installed_files(roots, "*.py"):
        try:
            files.append((hashlib.sha256(path.read_bytes()).digest(), name, path))
        except OSError as error:
            report.add_bad(name, f"cannot be read: {error.strerror}")
    if not files:
        raise InputError(f"installed-python: no Python source found below {', '.join(map(str, roots))}")
    for _, name, path in sorted(files):
        try:
            document = Document.of(name, decoded(path.read_bytes()))
        except BadRow as error:
            report.add_bad(name, str(error))
        except OSError as error:
            report.add_bad(name, f"cannot be read: {error.strerror}")
        else:
            yield document


def installed_files(roots: list[Path], pattern: str = "*") -> Iterator[tuple[str, Path]]:
    """Name below its root and path of every file of the installation; `roots`: the standard library's first."""
    for root in roots:
        for path in root.rglob(pattern):
            name = path.relative_to(root)
            # The standard library's folder often holds another environment's packages; an editable install writes
            # files with this machine's paths into it.
            foreign = root == roots[0] and {"site-packages", "dist-packages"} & set(name.parts)
            if not foreign and not name.name.startswith("__editable__") and path.is_file():
                yield str(name), path
