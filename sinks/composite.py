"""Parts of composite values: PostgreSQL's text of one, and what lies at a path in it.

    (Berlin,"10 ""Alt"" 7",,"(52.5,13.4)")        a part that is empty is NULL, "" is the empty text

Source: PostgreSQL 18 manual, "Composite Type Input and Output Syntax": whoever writes quotes a part
with commas, parentheses, quotes, backslashes or white space, and doubles quotes and backslashes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cdc.errors import ConfigError, DataError
from schemas.table import Column, Part, Type
from sinks.cast import Convert

__all__ = ["composite_path", "split"]

_PART = re.compile(rb'(?:"((?:[^"\\]|\\.|"")*)"|([^",()\\]*))(?=[,)])', re.DOTALL)
_DOUBLED = re.compile(rb'""|\\(.)', re.DOTALL)


def split(text: bytes) -> list[bytes | None]:
    """Return the parts of a composite's text. Raises `ValueError` for what is none."""
    at, out = 1, list[bytes | None]()
    while text.startswith(b"(") and (found := _PART.match(text, at)) is not None:
        quoted, plain = found.groups()
        if quoted is not None:
            out.append(_DOUBLED.sub(lambda two: two[1] or b'"', quoted))
        else:
            out.append(plain or None)
        at = found.end() + 1
        if at == len(text):
            return out
    raise ValueError(f"not a composite: {text[:40]!r}")


def composite_path(column: Column, path: Sequence[str], place: str) -> tuple[Type, Convert]:
    """Return the type of what lies at `path` in a composite column, and what hands it out.

    Raises `errors.ConfigError`, at the YAML path `place`, for a part that is not there.
    """
    steps: list[tuple[int, int]] = []
    parts, here, kind = column.parts, column.name, column.type
    for name in path:
        number = _number(name, parts, here, place)
        steps.append((number, len(parts)))
        here, kind, parts = f"{here}.{name}", parts[number].type, parts[number].parts

    def read(text: bytes) -> bytes | None:
        found: bytes | None = text
        for number, count in steps:
            if found is None:
                return None
            found = _step(found, number, count)
        return found

    return kind, read


def _number(name: str, parts: Sequence[Part], here: str, place: str) -> int:
    names = [part.name for part in parts]
    if name not in names:
        hint = f"Choose among {', '.join(names)}." if names else "It is no composite."
        raise ConfigError(f"{place}: {here} has no part {name!r}", hint=hint)
    return names.index(name)


def _step(text: bytes, number: int, count: int) -> bytes | None:
    try:
        found = split(text)
    except ValueError as error:
        raise DataError(str(error)) from error
    if len(found) != count:
        raise DataError(
            f"a composite of {len(found)} parts, where {count} have names",
            hint="Its type was altered just then; the source reads the table again by itself.",
        )
    return found[number]
