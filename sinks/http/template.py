"""`{column}` in paths and bodies: names of the row's columns, and a few of ours with a `$`.

    path  /customers/{id}/orders/{line}     each value is quoted: it can never become a path
    body  {customer: {id: "{id}"}, note: "from {$table}"}
                      └ alone: the value itself, a number, null or an object; else text

`{{` and `}}` are braces. There is nothing to evaluate: a name is all a placeholder can hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from string import Formatter
from typing import Any
from urllib.parse import quote

from cdc.errors import ConfigError, DataError
from sinks.documents import plain

__all__ = ["OURS", "Values", "body_of", "check", "names", "path_of"]

OURS = ("$schema", "$table", "$key", "$row", "$op", "$name", "$at")
"""What every change has beside its columns; see `sinks/targets/http.md`."""

Values = Mapping[str, Any]
"""What placeholders stand for, as values of JSON; what was not sent is missing."""

_Part = tuple[str, str | None]
_Make = Callable[[Values], Any]
_LEFT_OUT = object()


def _parts(text: str) -> list[_Part]:
    """Return (literal, placeholder) pairs. Raises `ValueError` for more than a name."""
    out: list[_Part] = []
    for literal, name, form, conversion in Formatter().parse(text):
        if name == "" or form or conversion:
            raise ValueError(f"{text!r}: a placeholder is the name of a column, as in {{id}}")
        out.append((literal, name))
    return out


def check(template: Any) -> Any:
    """Return a template of a path or a body when its form is right. Raises `ValueError`."""
    if isinstance(template, str):
        _parts(template)
    elif isinstance(template, Mapping):
        for inner in template.values():
            check(inner)
    elif isinstance(template, list):
        for inner in template:
            check(inner)
    return template


def names(template: str) -> frozenset[str]:
    """Return the placeholders of a path. Raises `ValueError` as `check`."""
    return frozenset(name for _, name in _parts(template) if name is not None)


def path_of(template: str, known: Iterable[str], place: str) -> Callable[[Values], str]:
    """Return what makes the path of a row. Raises `errors.ConfigError` for an unknown name.

    What is made raises `errors.DataError` where a value cannot be part of a path.
    """
    parts = _known(template, known, place)

    def make(values: Values) -> str:
        return "".join(
            literal + ("" if name is None else _segment(values, name)) for literal, name in parts
        )

    return make


def body_of(template: Any, known: Iterable[str], place: str) -> _Make:
    """Return what makes the body of a row; raises as `path_of`."""
    make = _maker(template, frozenset(known), place)

    def body(values: Values) -> Any:
        made = make(values)
        return None if made is _LEFT_OUT else made

    return body


def _maker(template: Any, known: frozenset[str], place: str) -> _Make:
    if isinstance(template, str):
        return _text_maker(_known(template, known, place))
    if isinstance(template, Mapping):
        members = [(key, _maker(inner, known, place)) for key, inner in template.items()]
        return lambda values: {
            key: made for key, make in members if (made := make(values)) is not _LEFT_OUT
        }
    if isinstance(template, list):
        items = [_maker(inner, known, place) for inner in template]
        return lambda values: [made for make in items if (made := make(values)) is not _LEFT_OUT]
    return lambda _: template


def _text_maker(parts: list[_Part]) -> _Make:
    if len(parts) == 1 and not parts[0][0] and parts[0][1] is not None:
        name = parts[0][1]
        return lambda values: values.get(name, _LEFT_OUT)
    return lambda values: "".join(
        literal + ("" if name is None else plain(_sent(values, name))) for literal, name in parts
    )


def _known(template: str, known: Iterable[str], place: str) -> list[_Part]:
    names = {*known, *OURS}
    parts = _parts(template)
    unknown = [name for _, name in parts if name is not None and name not in names]
    if unknown:
        raise ConfigError(
            f"{place}: {template!r} names {', '.join(unknown)}, which is no column",
            hint=f"Choose among {', '.join(sorted(names))}.",
        )
    return parts


def _sent(values: Values, name: str) -> Any:
    if name not in values:
        raise DataError(
            f"{{{name}}} has no value: the log did not carry it",
            hint="Set REPLICA IDENTITY FULL on the source table.",
        )
    return values[name]


def _segment(values: Values, name: str) -> str:
    """Return a value quoted for a path, several joined by commas; none can change the path."""
    value = _sent(values, name)
    texts = [plain(one) for one in (value if isinstance(value, list) else [value])]
    if value is None or not texts or any(text in ("", ".", "..", "null") for text in texts):
        raise DataError(f"{{{name}}} is {plain(value)}, which no path can hold")
    return ",".join(quote(text, safe="") for text in texts)
