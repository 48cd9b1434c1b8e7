"""Read English text from the Python installation: docstrings, READMEs and licenses, without code.

It serves as a second language, alongside Python code, in transfer experiments. Docstrings have the same origin as their Python
file, so if a file is training text for `installed-python`, its docstrings are training text here too.
"""

import ast
import gc
import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from data_prep.errors import InputError
from data_prep.sources.decoding import decode_python, decode_text
from data_prep.sources.document import BadRow, BadText, Document, split_hash
from data_prep.sources.installed_python import installed_files, installed_python_roots
from data_prep.sources.source import Source

# These files are written for people. They may have any suffix, e.g. LICENSE.APACHE.
TEXTS = re.compile(
    r"(?i)(readme|licen[cs]e|copying|notice|authors|contributing|history|changes|changelog)|.*\.(md|rst)$"
)
METADATA = "METADATA"  # a package's metadata file: headers, a blank line and the README
CODE = (".py", ".pyi", ".pyc", ".json", ".so", ".h", ".hpp")
FEWEST_CHARACTERS = 200  # shorter documents are mostly stubs that many files share


class InstalledProse(Source):
    """The English text in the installation of the running interpreter."""

    kind: Literal["installed-prose"] = "installed-prose"

    @property
    def in_words(self) -> str:
        """See `DataSource.in_words`."""
        return "English text (docstrings and READMEs of installed Python packages)"

    def read(self) -> Iterator[Document | BadRow]:
        """Yield one document per Python file (its docstrings) and one per text file, ordered by the hash of the text.

        If several files contain the same text, its origin is the file with the largest split hash, so it is test text
        only if all of these files are in the test split. All texts are kept in memory (about 60 MB).
        Raises InputError if no text is found.
        """
        roots = installed_python_roots()
        documents: dict[bytes, Document] = {}
        copies: Counter[bytes] = Counter()
        with _no_garbage_collection():
            for text in _texts(roots):
                if isinstance(text, BadRow):
                    yield text
                    continue
                name, content, origin = text
                try:
                    document = Document.of(name, content, origin)
                except BadText as error:
                    yield BadRow(name, str(error))
                    continue
                copies[document.digest] += 1
                first = documents.setdefault(document.digest, document)
                if split_hash(origin) > split_hash(first.origin):
                    documents[document.digest] = document
        if not documents:
            raise InputError(f"installed-prose: no text found in {', '.join(map(str, roots))}")
        for digest in sorted(documents):
            for _ in range(copies[digest]):  # `documents` counts and drops the copies
                yield documents[digest]


def docstrings(source: str | bytes) -> list[str]:
    """Docstrings of a module and its classes and functions, in order and dedented. Raises SyntaxError or ValueError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # e.g. about invalid escapes in other people's code
        tree = ast.parse(source)
    return [text for node in _documented([tree]) if (text := ast.get_docstring(node))]


def without_code(text: str) -> str:
    """Remove fenced code, interactive examples, and the indented blocks after a line that ends in `::`."""
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


def _texts(roots: list[Path]) -> Iterator[tuple[str, str, bytes] | BadRow]:
    """Yield the name, content and origin of every text. Files with the same content are read once."""
    seen: set[bytes] = set()
    for name, path in installed_files(roots):
        python = path.suffix == ".py"
        if not python and not _is_text(path):
            continue
        try:
            content = path.read_bytes()
        except OSError as error:
            yield BadRow(name, f"cannot be read: {error.strerror}")
            continue
        file_hash = hashlib.sha256(content).digest()
        if file_hash in seen or (python and b'"""' not in content and b"'''" not in content):
            continue
        seen.add(file_hash)
        try:
            # As in `installed-python` and `files`, the hash of the decoded file determines the split.
            decoded = decode_python(content) if python else decode_text(content)
            origin = hashlib.sha256(decoded.encode()).digest()
            text = "\n\n".join(docstrings(content)) if python else _body(path, decoded)
        except (BadText, SyntaxError, ValueError, RecursionError) as error:
            if not python:  # test suites contain invalid Python on purpose
                yield BadRow(name, str(error))
            continue
        if len(text := without_code(text)) >= FEWEST_CHARACTERS:
            yield name, text, origin


def _is_text(path: Path) -> bool:
    if path.name == METADATA:
        # A package installed from a local folder is work in progress, so its README may change.
        return not (path.parent / "direct_url.json").exists()
    return path.suffix.lower() not in CODE and bool(TEXTS.match(path.name))


def _body(path: Path, text: str) -> str:
    return text.partition("\n\n")[2] if path.name == METADATA else text


Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _documented(nodes: Iterable[ast.AST]) -> Iterator[Documented]:
    """Yield the nodes that can have a docstring. Expressions have none and make up most of a tree, so they are skipped."""
    for node in nodes:
        if isinstance(node, Documented):
            yield node
        for block in ("body", "orelse", "finalbody", "handlers"):
            if isinstance(inner := getattr(node, block, None), list):
                yield from _documented(inner)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Disable garbage collection. Syntax trees have no reference cycles, yet the search for cycles takes half the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
