"""The Python source files on this machine: real text that needs no download."""

import hashlib
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from data_prep.errors import InputError
from data_prep.sources.decoding import decode_python
from data_prep.sources.document import BadRow, BadText, Document
from data_prep.sources.source import Source


class InstalledPython(Source):
    """The standard library and installed packages of the running interpreter."""

    kind: Literal["installed-python"] = "installed-python"

    def read(self) -> Iterator[Document | BadRow]:
        """Every .py file, ordered by the hash of its content.

        A file that is neither UTF-8 nor in the encoding it declares is a bad row.

        Hash order makes the corpus a function of the set of texts: folder names and file dates do not matter, and any
        prefix is a random sample. Files are read twice, so memory holds one digest and one path per file.
        Raises InputError if there is no Python file.
        """
        roots = installed_python_roots()
        files: list[tuple[bytes, str, Path]] = []
        for name, path in installed_files(roots, "*.py"):
            try:
                files.append((hashlib.sha256(path.read_bytes()).digest(), name, path))
            except OSError as error:
                yield BadRow(name, f"cannot be read: {error.strerror}")
        if not files:
            raise InputError(f"installed-python: no Python source found below {', '.join(map(str, roots))}")
        for _, name, path in sorted(files):
            try:
                yield Document.of(name, decode_python(path.read_bytes()))
            except BadText as error:
                yield BadRow(name, str(error))
            except OSError as error:
                yield BadRow(name, f"cannot be read: {error.strerror}")


def installed_python_roots() -> list[Path]:
    """Folders of the standard library (first) and of the installed packages."""
    paths = sysconfig.get_paths()
    return [Path(root) for root in dict.fromkeys(paths[key] for key in ("stdlib", "purelib", "platlib"))]


def installed_files(roots: list[Path], pattern: str = "*") -> Iterator[tuple[str, Path]]:
    """Name relative to its root, and path, of every installed file; `roots` as from `installed_python_roots`."""
    for root in roots:
        for path in root.rglob(pattern):
            name = path.relative_to(root)
            # The standard library's folder often contains another environment's packages, and editable installs
            # write files that contain this machine's paths.
            foreign = root == roots[0] and {"site-packages", "dist-packages"} & set(name.parts)
            if not foreign and not name.name.startswith("__editable__") and path.is_file():
                yield str(name), path
