"""Read the installed Python source files: real text that needs no download."""

import hashlib
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from data_prep.errors import InputError
from data_prep.sources.decoding import decode_python
from data_prep.sources.document import BadRow, BadText, Document
from data_prep.sources.source import Chunk, Source

CHUNK_BYTES = 2**24


class InstalledPython(Source):
    """The standard library and the installed packages of the running interpreter."""

    kind: Literal["installed-python"] = "installed-python"

    @property
    def in_words(self) -> str:
        """See `DataSource.in_words`."""
        return "Python code (the standard library and installed packages)"

    def read(self) -> Iterator[Document | BadRow]:
        """Yield every .py file, ordered by the hash of its content.

        This order does not depend on folder names or file dates, and any prefix is a random sample of the files. Each
        file is read twice, to keep only digests and paths in memory. A file that is neither UTF-8 nor in its
        declared encoding is a bad row.
        Raises InputError if no Python files are found.
        """
        for chunk in self.chunks(CHUNK_BYTES, 0):
            yield from self.read_chunk(chunk)

    def chunks(self, size: int, most_tokens: int) -> list[Chunk]:
        """Several files per chunk. Files that cannot be read come first, and `read_chunk` reports them."""
        roots = installed_python_roots()
        files: list[tuple[bytes, str, Path, int]] = []
        unreadable: list[tuple[bytes, str, Path, int]] = []
        for name, path in installed_files(roots, "*.py"):
            try:
                content = path.read_bytes()
                files.append((hashlib.sha256(content).digest(), name, path, len(content)))
            except OSError:
                unreadable.append((b"", name, path, 0))
        if not files:
            raise InputError(f"installed-python: no Python source found in {', '.join(map(str, roots))}")
        chunks = []
        ordered = [*unreadable, *sorted(files)]
        start = text_bytes = 0
        for number, (_, _, _, file_bytes) in enumerate(ordered, 1):
            text_bytes += file_bytes
            if text_bytes >= size or number == len(ordered):
                names = tuple((name, str(path)) for _, name, path, _ in ordered[start:number])
                state = ",".join(digest.hex() for digest, *_ in ordered[start:number])
                chunks.append(Chunk(names, text_bytes=text_bytes, state=state))
                start, text_bytes = number, 0
        return chunks

    def read_chunk(self, chunk: Chunk) -> Iterator[Document | BadRow]:
        """Yield the files of a chunk."""
        for name, path in chunk.files:
            try:
                yield Document.of(name, decode_python(Path(path).read_bytes()))
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
