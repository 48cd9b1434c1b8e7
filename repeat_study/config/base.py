"""What all specs share: frozen, strict, and errors of one line that say where, what was found and what is accepted."""

import difflib
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from data_prep.errors import InputError


class Spec(BaseModel):
    """Base of all specs: frozen, unknown keys refused, no silent conversion of types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    internal_fields: ClassVar[frozenset[str]] = frozenset()  # filled in by the program; a study file may not name them


SpecType = TypeVar("SpecType", bound=Spec)


def validated(kind: type[SpecType], values: dict[str, Any], where: str) -> SpecType:
    """The spec with these values; InputError of one line that begins with `where`."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise InputError(_one_line(kind, error, where)) from error


def _one_line(kind: type[Spec], error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    place = where + ".".join(map(str, first["loc"]))
    if isinstance(cause := first.get("ctx", {}).get("error"), InputError):
        return f"{where}{cause}"
    if first["type"] == "extra_forbidden":
        accepted = sorted(_fields_at(kind, first["loc"][:-1]) - kind.internal_fields)
        close = difflib.get_close_matches(str(first["loc"][-1]), accepted, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"{place}: unknown key; {hint}accepted are {', '.join(accepted)}"
    if first["type"] == "missing":
        return f"{place}: missing; give a value"
    message = first["msg"][0].lower() + first["msg"][1:]
    return f"{place}: {message}, found {first['input']!r}"


def _fields_at(kind: type[BaseModel], place: tuple[int | str, ...]) -> set[str]:
    """Keys of the table at a place, as a file names them."""
    tables = [kind]
    for key in place:
        if len(tables) > 1:  # of a union, as the kinds of a source: the key is its tag
            tables = [table for table in tables if table.model_fields["kind"].default == key]
        elif not isinstance(key, int):
            tables = _tables_in(tables[0].model_fields[key].annotation) or tables
    return {field.alias or name for name, field in tables[0].model_fields.items()}


def _tables_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [table for part in get_args(annotation) for table in _tables_in(part)]
