"""Describe invalid values in the words of a TOML file."""

import datetime
from typing import Any

LONGEST_VALUE = 100  # characters of a value that an error message quotes

# Replacements for pydantic's messages that mention Python types or regular expressions
PLAIN_MESSAGES = {
    "model_type": "expected a table",
    "model_attributes_type": "expected a table",
    "dict_type": "expected a table",
    "list_type": "input should be a valid list",
    "tuple_type": "input should be a valid list",
    "union_tag_not_found": "the key 'kind' is missing",
    "string_unicode": "not valid Unicode",
}


INSERTED = {"[key]", "constrained-str"}  # words in pydantic's locations that are not keys of the table


def key_path(location: tuple[int | str, ...]) -> str:
    """The dotted key at pydantic's location of an error, e.g. `data.source.paths`.

    Pydantic also inserts the kind of a source after the key `source`, and the words in INSERTED. The path omits them.
    """
    keys = zip(("", *location), location, strict=False)
    return ".".join(str(key) for previous, key in keys if previous != "source" and key not in INSERTED)


def problem(error: Any) -> str:
    """Describe one pydantic error and the value found, e.g. `input should be a valid integer, found 'abc'`.

    error: an element of `ValidationError.errors()`.
    """
    kind, message = error["type"], error["msg"]
    if kind == "missing":  # pydantic's input is then the entire table
        return "required, but missing"
    if kind in ("too_short", "too_long"):
        limit, count = ("at least", "min_length") if kind == "too_short" else ("at most", "max_length")
        message = f"list should have {limit} {error['ctx'][count]} item" + "s" * (error["ctx"][count] != 1)
    message = PLAIN_MESSAGES.get(kind, message)
    return f"{message[0].lower()}{message[1:]}, found {toml_text(error['input'])}"


def toml_text(value: Any) -> str:
    """Write a value as in a TOML file, without line breaks. Long values are shortened."""
    text = _toml_text(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def _toml_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml_text, value)) + "]"
    return repr(value)
