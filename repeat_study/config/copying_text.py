"""The paragraphs for the copying probe: those shipped with this package, or the user's own."""

from pathlib import Path
from typing import Any

from data_prep.errors import InputError
from data_prep.files import read_text

_FOLDER = Path(__file__).parent / "copying_texts"
SHIPPED = tuple(sorted(path.stem for path in _FOLDER.glob("*.txt")))
DEFAULT = "english"


def shipped_text(name: str = DEFAULT) -> str:
    """Paragraphs that are separated by blank lines.

    english: from Alice's Adventures in Wonderland (Carroll 1865, public domain). python: code written for this project.
    """
    return (_FOLDER / f"{name}.txt").read_text(encoding="utf-8")


def insert_copying_text(table: dict[str, Any], folder: Path) -> None:
    """Replace `evaluation.copying_text = {file = PATH}` or `{shipped = NAME}` with the text.

    As a result, a run's identity depends on the text and not on its path. The default text becomes None, so a run that names it is the
    same as one that does not. Relative paths are relative to `folder`.
    Raises InputError if the table has other keys, if no such text is shipped, or if the file cannot be read.
    """
    evaluation = table.get("evaluation")
    if not isinstance(evaluation, dict) or not isinstance(value := evaluation.get("copying_text"), dict):
        return
    match value:
        case {"file": str(path), **others} if not others:
            evaluation["copying_text"] = read_text(folder / path)
        case {"shipped": name, **others} if not others and name in SHIPPED:
            evaluation["copying_text"] = None if name == DEFAULT else shipped_text(name)
        case _:
            names = " or ".join(f'"{name}"' for name in SHIPPED)
            raise InputError(
                f"evaluation.copying_text: expected text, {{file = PATH}} or {{shipped = {names}}}, found {value!r}"
            )
