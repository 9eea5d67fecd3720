"""A cell as a value of JSON, for targets that take documents.

| logical type                  | JSON                                                   |
|-------------------------------|--------------------------------------------------------|
| int16, int32, int64           | number, every digit                                    |
| boolean                       | true or false                                          |
| float32, float64              | number; `"NaN"`, `"Infinity"`, `"-Infinity"` as text   |
| json                          | what it holds, as it stands there                      |
| bytes                         | text, base64                                           |
| timestamp, timestamptz        | text, ISO 8601: `2026-01-31T08:00:00.5`, with `Z`      |
| all others, also decimals     | the source's text, every digit                         |

NULL is null. What was not sent has no value: the member is left out.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

import orjson

from schemas.change import ABSENT, Cell
from schemas.table import Column, Type

__all__ = ["Document", "json_value", "plain"]

_Value = Callable[[bytes], Any]


def _number(text: bytes) -> float | str:
    number = float(text)
    return number if isfinite(number) else text.decode()


def _moment(text: bytes) -> str:
    """Leave infinity and years before Christ as they are: ISO 8601 has no such."""
    day, space, clock = text.decode().partition(" ")
    if not space or " " in clock:
        return text.decode()
    return f"{day}T{clock.removesuffix('+00')}{'Z' if clock.endswith('+00') else ''}"


def _base64(text: bytes) -> str:
    return b64encode(bytes.fromhex(text[2:].decode())).decode()


_VALUES: dict[str, _Value] = {
    "int16": int,
    "int32": int,
    "int64": int,
    "boolean": lambda text: text == b"t",
    "float32": _number,
    "float64": _number,
    "json": orjson.Fragment,
    "bytes": _base64,
    "timestamp": _moment,
    "timestamptz": _moment,
}


def json_value(kind: Type) -> _Value:
    """Return what makes the JSON value of a cell's text; `ValueError` for one of another type."""
    return _VALUES.get(kind.logical, bytes.decode)


def plain(value: Any) -> str:
    """Return a JSON value as text: what stands in a path, or inside a longer text."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


class Document:
    """Makes the values of rows with these columns."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._makers = [(column.name, json_value(column.type)) for column in columns]

    def members(self, cells: Sequence[Cell]) -> dict[str, Any]:
        """Return column → value, without what was not sent."""
        return {
            name: None if cell is None else make(cell)
            for (name, make), cell in zip(self._makers, cells, strict=True)
            if cell is not ABSENT
        }
