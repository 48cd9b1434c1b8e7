"""The English on this machine: docstrings, README and licence texts of the installed packages, their code left out.

It is another language in the same installation, for testing what carries over. What was taken from a Python file has that
file for its origin, so the docstrings of a file that models of `installed-python` train on are training text here too.
"""

import ast
import gc
import hashlib
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from data_prep.errors import InputError
from data_prep.sources.document import BadRow, Document, SourceReport, decoded, split_draw
from data_prep.sources.installed_python import installed_files, installed_python_roots

# Files that people wrote for people to read; the suffix may say anything, as in LICENSE.APACHE.
TEXTS = re.compile(
    r"(?i)(readme|licen[cs]e|copying|notice|authors|contributing|history|changes|changelog)|.*\.(md|rst)$"
)
METADATA = "METADATA"  # of an installed package: headers, a blank line, and its README
CODE = (".py", ".pyi", ".pyc", ".json", ".so", ".h", ".hpp")
FEWEST_CHARACTERS = 200  # of a document: below that it is a stub, the same in many files


class InstalledProse(BaseModel):
    """What the running interpreter's installation has to say in English."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["installed-prose"] = "installed-prose"


def read(report: SourceReport) -> Iterator[Document]:
    """A document per Python file, its docstrings in order, and per text file; ordered by the hash of their content.

    Where several files say the same, the document counts as taken from the one whose split is the last to be test text: it is
    tested on only where none of them is trained on. All texts are held in memory, some 60 MB, because of that.
    Raises InputError when there is no text below the roots.
    """
    roots = installed_python_roots()
    found: dict[bytes, Document] = {}
    with _many_short_lived_objects():
        for name, text, origin in _texts(roots, report):
            try:
                document = Document.of(name, text, origin)
            except BadRow as error:
                report.add_bad(name, str(error))
                continue
            standing = found.get(document.digest)
            if standing is not None:
                report.read += 1
                report.duplicates += 1
            if standing is None or split_draw(origin) > split_draw(standing.origin):
                found[document.digest] = document
    if not found:
        raise InputError(f"installed-prose: no text found below {', '.join(map(str, roots))}")
    for digest in sorted(found):
        yield found[digest]


def docstrings(source: str | bytes) -> list[str]:
    """Docstrings of a module, its classes and functions, in order, without indentation. Raises SyntaxError or ValueError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of invalid escapes and the like in other people's code
        tree = ast.parse(source)
    return [text for node in _documented([tree]) if (text := ast.get_docstring(node))]


def without_code(text: str) -> str:
    """Text without fenced blocks, examples of an interactive session and the indented blocks that `::` announces."""
    kept: list[str] = []
    fence, session, literal = "", False, None
    for line in text.splitlines():
        bare = line.strip()
        indent = len(line) - len(line.lstrip())
        if fence:
            fence = "" if bare.startswith(fence) else fence
        elif bare.startswith(("```", "~~~")):
            fence = bare[:3]
        elif literal is not None and (not bare or indent > literal):
            continue
        else:
            literal = None
            session = bool(bare) and (session or bare.startswith((">>> ", "... ", "In [")))
            if not session:
                kept.append(line.rstrip())
                literal = indent if bare.endswith("::") else None
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()


def _texts(roots: list[Path], report: SourceReport) -> Iterator[tuple[str, str, bytes]]:
    """Name, text and origin of every document there is, each file's content once."""
    seen: set[bytes] = set()
    for name, path in installed_files(roots):
        python = path.suffix == ".py"
        if not python and not _is_text(path):
            continue
        try:
            content = path.read_bytes()
        except OSError as error:
            report.add_bad(name, f"cannot be read: {error.strerror}")
            continue
        origin = hashlib.sha256(content).digest()
        if origin in seen or (python and b'"""' not in content and b"'''" not in content):
            continue
        seen.add(origin)
        try:
            text = "\n\n".join(docstrings(content)) if python else _body(path, decoded(content))
        except (BadRow, SyntaxError, ValueError, RecursionError) as error:
            if not python:  # test suites hold Python that is not meant to be read
                report.add_bad(name, str(error))
            continue
        if len(text := without_code(text)) >= FEWEST_CHARACTERS:
            yield name, text, origin


def _is_text(path: Path) -> bool:
    if path.name == METADATA:
        # A package that was installed from a folder is somebody's work in progress.
        return not (path.parent / "direct_url.json").exists()
    return path.suffix.lower() not in CODE and bool(TEXTS.match(path.name))


def _body(path: Path, text: str) -> str:
    return text.partition("\n\n")[2] if path.name == METADATA else text


Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _documented(nodes: Iterable[ast.AST]) -> Iterator[Documented]:
    """Nodes that may have a docstring. Expressions have none inside, and are most of a tree."""
    for node in nodes:
        if isinstance(node, Documented):
            yield node
        for part in ("body", "orelse", "finalbody", "handlers"):
            if isinstance(inner := getattr(node, part, None), list):
                yield from _documented(inner)


@contextmanager
def _many_short_lived_objects() -> Iterator[None]:
    """No search for cycles: syntax trees have none, and looking for them takes half of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
