"""Read the installed Python source files: real text that needs no download."""

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
    """The standard library and the installed packages of the running interpreter."""

    kind: Literal["installed-python"] = "installed-python"

    def read(self) -> Iterator[Document | BadRow]:
        """Yield every .py file, ordered by the hash of its content.

        This order does not depend on folder names or file dates, and any prefix is a random sample of the files. Each
        file is read twice, to keep only digests and paths in memory. A file that is neither UTF-8 nor in its
        declared encoding is a bad row.
        Raises InputError if no Python files are found.
        """
        roots = installed_python_roots()
        files: list[tuple[bytes, str, Path]] = []
        for name, path in installed_files(roots, "*.py"):
            try:
                files.append((hashlib.sha256(path.read_bytes()).digest(), name, path))
            except OSError as error:
                yield BadRow(name, f"cannot be read: {error.strerror}")
        if not files:
            raise InputError(f"installed-python: no Python source found in {', '.join(map(str, roots))}")
        for _, name, path in sorted(files):
            try:
                yield Document.of(name, decode_python(path.read_bytes()))
            except BadText as error:
                yield BadRow(name, str(error))
            except OSError as error:
                yield BadRow(name, f"cannot be read: {error.strerror}")


def installed_python_roots() -> list[Path]:
    """The standard-library folder, followed by the folders of installed packages."""
    paths = sysconfig.get_paths()
    return [Path(root) for root in dict.fromkeys(paths[key] for key in ("stdlib", "purelib", "platlib"))]


def installed_files(roots: list[Path], pattern: str = "*") -> Iterator[tuple[str, Path]]:
    """Yield the name (relative to its root) and path of every installed file below `roots`."""
    for root in roots:
        for path in root.rglob(pattern):
            name = path.relative_to(root)
            # The standard-library folder often contains another environment's packages, and editable installs write
            # files that contain paths on this machine. Skip both.
            foreign = root == roots[0] and {"site-packages", "dist-packages"} & set(name.parts)
            if not foreign and not name.name.startswith("__editable__") and path.is_file():
                yield str(name), path
