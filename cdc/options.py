"""The options of a pydantic model: which keys a place may have, and the table on a page.

A page carries its tables between `<!-- options: NAME -->` and `<!-- /options -->`; everything
between them is generated (`cdc connectors --markdown`) and a test compares.
"""

from __future__ import annotations

import enum
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

__all__ = ["fill_page", "known_keys", "option_rows", "option_table"]

_UNION = (Union, types.UnionType)
_BLOCK = re.compile(r"(<!-- options: (\S+) -->\n).*?(<!-- /options -->)", re.DOTALL)

_WORDS: dict[Any, str] = {
    str: "text",
    SecretStr: "secret",
    int: "integer",
    float: "number",
    bool: "true or false",
    Path: "path",
    type(None): "null",
    Any: "anything",
    dict: "map",
    list: "list",
    object: "anything",
}


def known_keys(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """Return the keys that are valid at `loc`, a place as pydantic names it, inside `model`.

    What pydantic adds for the members of a union is passed over.
    """
    places: list[Any] = [model]
    for key in loc:
        inner = [found for place in _members(places) for found in _inside(place, key)]
        places = inner or places
    keys = [name for place in _members(places) if _is_model(place) for name in _names(place)]
    return list(dict.fromkeys(keys))


def _members(annotations: Iterable[Any]) -> Iterable[Any]:
    for annotation in annotations:
        if get_origin(annotation) is typing.Annotated:
            yield from _members(get_args(annotation)[:1])
        elif get_origin(annotation) in _UNION:
            yield from _members(get_args(annotation))
        else:
            yield annotation


def _inside(annotation: Any, key: str | int) -> Iterable[Any]:
    if _is_model(annotation):
        if key in _names(annotation):
            yield _field(annotation, str(key)).annotation
        return
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        yield arguments[-1]
    elif isinstance(origin, type) and issubclass(origin, Iterable) and arguments:
        yield arguments[0]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _names(model: Any) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _field(model: Any, key: str) -> FieldInfo:
    fields: dict[str, FieldInfo] = model.model_fields
    return next(field for name, field in fields.items() if key == (field.alias or name))


def option_table(model: type[BaseModel]) -> str:
    """Return the options of `model` as a Markdown table, nested models under dotted names."""
    lines = ["| option | type | default | meaning |", "|---|---|---|---|"]
    for key, kind, default, said in option_rows(model):
        cells = (f"`{key}`", kind, f"`{default}`" if _is_value(default) else default, said)
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _is_value(default: str) -> bool:
    return default not in {"", "required"}


def option_rows(model: type[BaseModel], prefix: str = "") -> Iterable[tuple[str, str, str, str]]:
    """Yield (option, type, default, meaning); nested models under dotted names."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        said = (field.description or "").replace("\n", " ")
        yield key, _type(field.annotation), _default(field), said
        for inner in _members([field.annotation]):
            if _is_model(inner):
                yield from option_rows(inner, f"{key}.")


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin in _UNION:
        return " or ".join(_type(part) for part in arguments if part is not type(None))
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if isinstance(origin, type) and arguments:
        kind, inner = ("map", -1) if issubclass(origin, Mapping) else ("list", 0)
        return f"{kind} of {_type(arguments[inner])}"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return " or ".join(f"`{member.value}`" for member in annotation)
    return "block" if _is_model(annotation) else _word(annotation)


def _word(annotation: Any) -> str:
    return _WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)).lower())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, enum.Enum):
        value = value.value
    if value is None or value in ("", [], {}, ()) or isinstance(value, BaseModel | SecretStr):
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def fill_page(page: str, table: Callable[[str], str]) -> str:
    """Return `page` with each of its tables made anew; `table` maps its name to its text."""
    return _BLOCK.sub(lambda found: found[1] + table(found[2]) + found[3], page)
