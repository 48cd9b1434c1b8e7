"""The base class of all specs, and a validation function with one-line error messages."""

import difflib
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from data_prep.data_spec import SOURCE_NAME
from data_prep.errors import InputError
from data_prep.validation import key_path, problem, toml_text


class Spec(BaseModel):
    """Base class of all specs. Specs are frozen, do not coerce types and reject unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    internal_fields: ClassVar[frozenset[str]] = frozenset()  # set by the program; not allowed in a study file
    translated_keys: ClassVar[frozenset[str]] = frozenset()  # accepted in a study file, and translated to other fields


# Regular expressions for names, and their descriptions for error messages
STUDY_NAME = r"^\w[\w.-]*$"
TEST_SET_NAME = r"^[a-z][a-z0-9_]*$"
ONE_LINE = r"^[^\x00-\x1f\x7f]+$"
NOT_BLANK = r"\S"
PATTERNS = {
    STUDY_NAME: "letters, digits, '_', '-' and '.', beginning with a letter, a digit or '_'",
    TEST_SET_NAME: "lowercase letters, digits and '_', beginning with a letter",
    SOURCE_NAME: "lowercase letters, digits, '_' and '-', beginning with a letter",
    ONE_LINE: "a nonempty string without line breaks",
    NOT_BLANK: "text that is not blank",
}

SpecType = TypeVar("SpecType", bound=Spec)


def validated(spec_type: type[SpecType], values: dict[str, Any], prefix: str) -> SpecType:
    """Validate `values` as a spec of this type.

    Raises InputError with a one-line message that starts with `prefix`, e.g. `grid.0.`.
    """
    try:
        return spec_type.model_validate(values)
    except ValidationError as error:
        raise InputError(_one_line(spec_type, error, prefix)) from error


def _one_line(spec_type: type[Spec], error: ValidationError, prefix: str) -> str:
    """Describe the first error: its location, the problem and the accepted values."""
    first = error.errors()[0]
    location = prefix + key_path(first["loc"])
    if isinstance(cause := first.get("ctx", {}).get("error"), InputError):
        return f"{prefix}{cause}"
    if first["type"] == "extra_forbidden":
        accepted = sorted(
            _keys_at(spec_type, first["loc"][:-1]) - spec_type.internal_fields | spec_type.translated_keys
        )
        close = difflib.get_close_matches(str(first["loc"][-1]), accepted, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"{location}: unknown key; {hint}expected {', '.join(accepted)}"
    if first["type"] == "missing":
        return f"{location}: missing; a value is required"
    if first["type"] == "union_tag_invalid":
        kinds = first["ctx"]["expected_tags"].replace("'", '"')
        return f"{location}: unknown kind {first['ctx']['tag']!r}; expected {kinds}"
    if first["type"] == "string_pattern_mismatch":
        accepted = PATTERNS.get(first["ctx"]["pattern"], first["ctx"]["pattern"])
        return f"{location}: expected {accepted}, found {toml_text(first['input'])}"
    if first["type"] == "union_tag_not_found":
        kinds = ", ".join(f'"{table.model_fields["kind"].default}"' for table in _tables_at(spec_type, first["loc"]))
        return f"{location}: {problem(first)}; expected one of {kinds}"
    return f"{location}: {problem(first)}"


def _keys_at(spec_type: type[BaseModel], location: tuple[int | str, ...]) -> set[str]:
    """Keys that a study file may use in the table at `location`."""
    return {field.alias or name for name, field in _tables_at(spec_type, location)[0].model_fields.items()}


def _tables_at(spec_type: type[BaseModel], location: tuple[int | str, ...]) -> list[type[BaseModel]]:
    """The spec of the table at `location`, or all specs in a union such as the kinds of a source."""
    tables = [spec_type]
    for key in location:
        if len(tables) > 1:  # a union, such as the source kinds: the key is the tag that selects one of its types
            tables = [table for table in tables if table.model_fields["kind"].default == key]
        elif not isinstance(key, int):
            tables = _tables_in(tables[0].model_fields[key].annotation) or tables
    return tables


def _tables_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [table for argument in get_args(annotation) for table in _tables_in(argument)]
