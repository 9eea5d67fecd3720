"""What a row must be like to be applied: rules over the target's columns.

    rules:
      - {field: email, required: true}
      - {field: email, format: email, on_invalid: skip}
      - {field: age, range: [0, 150]}
      - {field: sku, unique: true}
      - {expr: "total >= paid", name: not overpaid, on_invalid: stop}

The first rule that a row breaks decides what becomes of it. NULL breaks `required` alone, and a
value that was not sent breaks nothing: it was judged when it came. A delete is not judged.

`unique` compares the rows of one transaction of the target, in the order of the source, so that a
value may be handed from row to row; across transactions only a unique index of the target can tell.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from threading import Lock
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cdc.errors import ConfigError, DataError, Stop
from schemas.change import ABSENT, Cell
from schemas.table import Column, TableId, TableSchema
from sinks.expression import Expression
from sinks.fields import Cel
from sinks.values import read_cell, text_of

__all__ = ["OnInvalid", "Rule", "Rules", "Tally"]

OnInvalid = Literal["dead_letter", "skip", "stop"]
_CHECKS = ("required", "range", "regex", "enum", "format", "unique", "expr")
_Check = Callable[[bytes], bool]


def _email(text: str) -> bool:
    name, at, host = text.rpartition("@")
    return bool(at and re.fullmatch(r"[^\s@\"]{1,64}", name)) and _hostname(host) and "." in host


def _hostname(text: str) -> bool:
    parts = text.split(".")
    return len(text) <= 253 and all(
        re.fullmatch(r"[^\W_](?:[\w-]{0,61}[^\W_])?", part) for part in parts
    )


def _url(text: str) -> bool:
    parts = urlsplit(text)
    return bool(re.fullmatch(r"[a-z][a-z0-9+.-]*", parts.scheme) and parts.netloc)


def _parses(parse: Callable[[str], Any]) -> Callable[[str], bool]:
    def judge(text: str) -> bool:
        parse(text)
        return True

    return judge


FORMATS: dict[str, Callable[[str], bool]] = {
    "email": _email,
    "hostname": _hostname,
    "url": _url,
    "uuid": _parses(UUID),
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
    "phone": lambda text: re.fullmatch(r"\+[1-9]\d{6,14}", text) is not None,
    "date": _parses(date.fromisoformat),
    "timestamp": _parses(datetime.fromisoformat),
}
"""What `format:` may say; phone is E.164, date and timestamp are ISO 8601."""


class Rule(BaseModel):
    """One rule: a field and one check of it, or an expression over the target's columns."""

    model_config = ConfigDict(extra="forbid")

    field: str | None = Field(default=None, description="Target column")
    required: bool = Field(default=False, description="It is not NULL")
    range: tuple[int | float | str | None, int | float | str | None] | None = Field(
        default=None, description="Least and greatest: numbers, or times as text; null is open"
    )
    regex: str | None = Field(default=None, description="Python pattern for the whole text")
    enum: list[bool | int | float | str] | None = Field(
        default=None, description="The values it may have, compared as text"
    )
    format: str | None = Field(default=None, description=f"One of {', '.join(FORMATS)}")
    unique: bool = Field(default=False, description="No two rows of one transaction have the same")
    expr: Cel | None = Field(default=None, description="CEL over the target's columns")
    name: str = Field(default="", description="In metrics and letters; usually `field.check`")
    on_invalid: OnInvalid | None = Field(
        default=None, description="What becomes of a row that breaks it; empty: the table's"
    )

    @model_validator(mode="after")
    def _one_check(self) -> Rule:
        given = self.model_fields_set.intersection(_CHECKS)
        if len(given) != 1 or self.required != ("required" in given):
            raise ValueError(f"a rule has exactly one of {', '.join(_CHECKS)}")
        if (self.field is None) != (self.expr is not None):
            raise ValueError("a rule is for a `field`, or is an `expr`")
        if self.format is not None and self.format not in FORMATS:
            raise ValueError(f"`format: {self.format}` is none of {', '.join(FORMATS)}")
        try:
            re.compile(self.regex or "")
        except re.error as error:
            raise ValueError(f"`{self.regex}` is no pattern: {error}") from error
        self.name = self.name or self.expr or f"{self.field}.{next(iter(given))}"
        return self


class Tally:
    """How many rows broke which rule: two threads count, one reads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, table: TableId, rule: str) -> None:
        """Count a row of `table` that broke `rule`."""
        with self._lock:
            self._counts[str(table), rule] += 1

    def drain(self) -> Mapping[tuple[str, str], int]:
        """Return the counts since the last call, by table and rule."""
        if not self._counts:
            return {}
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return counts


class _Bound(msgspec.Struct, frozen=True):
    """A rule bound to a table: its column's place, and the judge of a text or of a whole row."""

    rule: Rule
    place: int
    check: _Check | None = None
    expression: Expression | None = None

    def accepts(self, row: Sequence[Cell], names: Sequence[str]) -> bool:
        if self.expression is not None:
            found = self.expression.value(dict(zip(names, row, strict=True)))
            return found is ABSENT or found is True
        cell = row[self.place]
        if cell is None or cell is ABSENT:
            return cell is ABSENT or not self.rule.required
        try:
            return self.check is None or self.check(cell)
        except (ValueError, ArithmeticError, DataError):
            return False


class Rules:
    """The rules of one target table; `place` is the YAML path of the list."""

    def __init__(
        self, rules: Sequence[Rule], usual: OnInvalid, schema: TableSchema, place: str
    ) -> None:
        self._usual = usual
        self._table = schema.table
        self._names = [column.name for column in schema.columns]
        bound = [_bound(r, schema, f"{place}[{n}]") for n, r in enumerate(rules)]
        self._each = [one for one in bound if not one.rule.unique]
        self.unique = [(one.rule, one.place) for one in bound if one.rule.unique]

    def judge(self, row: Sequence[Cell], tally: Tally) -> bool:
        """Tell whether `row` is to be applied: False, it is skipped.

        Raises `errors.DataError` for the dead letters, and `errors.Stop`.
        """
        for one in self._each:
            try:
                said = "" if one.accepts(row, self._names) else _what(one.rule)
            except DataError as error:
                said = str(error)
            if said:
                return self.broken(one.rule, said, tally)
        return True

    def broken(self, rule: Rule, said: str, tally: Tally) -> bool:
        """Do what is to be done with a row that broke `rule`; returns as `judge`, or raises."""
        tally.add(self._table, rule.name)
        policy = rule.on_invalid or self._usual
        if policy == "skip":
            return False
        kind = Stop if policy == "stop" else DataError
        raise kind(
            f"{self._table} breaks the rule `{rule.name}`: {said}",
            hint="Repair the row in the source, or loosen the rule.",
        )


def _bound(rule: Rule, schema: TableSchema, place: str) -> _Bound:
    if rule.expr is not None:
        return _Bound(rule, -1, expression=_condition(rule.expr, f"{place}.expr", schema.columns))
    names = [column.name for column in schema.columns]
    if rule.field not in names:
        raise ConfigError(
            f"{place}: {rule.field} is no column of the target",
            hint=f"Choose among {', '.join(names)}.",
        )
    if rule.unique and not schema.key:
        raise ConfigError(
            f"{place}: a table without a key has no rows to tell apart",
            hint="Name unique target columns under `key:`.",
        )
    number = names.index(rule.field)
    return _Bound(rule, number, _check(rule, schema.columns[number], place))


def _condition(text: str, place: str, columns: Sequence[Column]) -> Expression:
    found = Expression(text, place, columns)
    if found.kind not in (None, "bool"):
        raise ConfigError(
            f"{place}: `{text}` gives {found.kind}, not true or false",
            hint="Compare it with something.",
        )
    return found


def _check(rule: Rule, column: Column, place: str) -> _Check | None:
    if rule.range is not None:
        return _between(rule.range, column, place)
    if rule.regex is not None:
        match = re.compile(rule.regex).fullmatch
        return lambda text: match(text.decode()) is not None
    if rule.enum is not None:
        allowed = {text_of(value) for value in rule.enum}
        return allowed.__contains__
    if rule.format is not None:
        judge = FORMATS[rule.format]
        return lambda text: judge(text.decode())
    return None


def _between(limits: Sequence[Any], column: Column, place: str) -> _Check:
    read = read_cell(column.type, exact=True)
    try:
        low, high = _ordered([None if one is None else read(text_of(one) or b"") for one in limits])
    except (ValueError, ArithmeticError, TypeError, DataError) as error:
        raise ConfigError(
            f"{place}.range: {list(limits)} is no range of {column.name}: {error}",
            hint="Numbers for a number, `2026-01-31` or `2026-01-31 08:00:00+00` for a time.",
        ) from error

    def check(text: bytes) -> bool:
        value = read(text)
        return (low is None or value >= low) and (high is None or value <= high)

    return check


def _ordered(limits: Sequence[Any]) -> Sequence[Any]:
    given = [one for one in limits if one is not None]
    if not given or any(isinstance(one, str | bytes | dict | list | bool) for one in given):
        raise TypeError("it takes a number or a time")
    if given[0] > given[-1]:
        raise ValueError("the least is above the greatest")
    return limits


def _what(rule: Rule) -> str:
    """Return what is wrong, without the value: letters are summed by their reason."""
    if rule.expr is not None:
        return "it is not true"
    if rule.required:
        return f"{rule.field} is NULL"
    if rule.format is not None:
        return f"{rule.field} is no {rule.format}"
    if rule.regex is not None:
        return f"{rule.field} does not match `{rule.regex}`"
    return f"{rule.field} is not in its {'list' if rule.range is None else 'range'}"
