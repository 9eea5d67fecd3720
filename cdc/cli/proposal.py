"""A mapping between tables that are there on both sides, guessed by names and types.

    every pair of tables ─▶ how alike are their names, how much of each finds a column there?
    best pairs first     ─▶ each table once
    columns of a pair    ─▶ the same: best pairs first, each column once

A guess is for a person to confirm: it comes with its confidence, and what is doubtful is not
proposed at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from functools import cache, partial
from heapq import nlargest
from typing import Generic, TypeVar

import msgspec

from cdc.topics import topic_name
from schemas.evolution import widens
from schemas.table import Column, TableSchema
from schemas.types import LOGICAL
from sinks.room import holds

__all__ = ["ColumnMatch", "TableMatch", "match_tables", "proposal_text"]

_T = TypeVar("_T")

_COLUMN_LEAST, _TABLE_LEAST = 0.6, 0.45
"""Below this a pair is not proposed."""
_NAME, _TYPE = 0.75, 0.25
"""What a column's confidence is made of."""
_KEYS = 0.9
"""How alike the names of two keys of one column count at least."""
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_YAML_WORDS = ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
_WORDS = re.compile(r"[^\W\d_]+|\d+")
_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_CANDIDATES = 8
"""Tables looked at closely for each of the source: every pair of columns of theirs is compared."""
_SAME_WORDS = {
    "nr": "number",
    "no": "number",
    "num": "number",
    "qty": "quantity",
    "amt": "amount",
    "addr": "address",
    "tel": "phone",
    "telephone": "phone",
    "desc": "description",
    "ts": "at",
    "timestamp": "at",
    "date": "at",
    "mail": "email",
    "key": "id",
    "client": "customer",
    "tbl": "",
    "dim": "",
    "fact": "",
    "stg": "",
}
"""What databases abbreviate, or call by two names, and prefixes that say nothing."""


class ColumnMatch(msgspec.Struct, frozen=True):
    """A column of the target and the one it may be filled from; `cast`: what `as:` has to say."""

    target: str
    source: str
    confidence: float
    cast: str = ""


class TableMatch(msgspec.Struct, frozen=True):
    """A pair of tables. `left` are columns of the source, `unfilled` of the target, unmatched."""

    source: TableSchema
    target: TableSchema
    confidence: float
    columns: Sequence[ColumnMatch]
    left: Sequence[str]
    unfilled: Sequence[str]

    @property
    def key(self) -> Sequence[str] | None:
        """The target's key: () where the topic's goes with it, None where there is none to use."""
        plain = {column.source: column for column in self.columns if not column.cast}
        if all(name in plain for name in self.source.key):
            return ()
        filled = {column.target for column in self.columns}
        usable = bool(self.target.key) and filled.issuperset(self.target.key)
        return self.target.key if usable else None


class _Pair(msgspec.Struct, Generic[_T], frozen=True):
    one: _T
    other: _T
    score: float


def match_tables(
    sources: Sequence[TableSchema], targets: Sequence[TableSchema]
) -> tuple[list[TableMatch], list[TableSchema]]:
    """Return the pairs, in the order of `sources`, and the tables without a counterpart.

    A pair whose key would have nothing to be filled from is none.
    """
    scored = (
        _Pair(source, target, _table_score(source, target))
        for source in sources
        for target in nlargest(_CANDIDATES, targets, partial(_roughly, source))
    )
    pairs = _best(scored, _TABLE_LEAST)
    found = (_matched(pair) for pair in pairs)
    matched = {match.source.table: match for match in found if match.key is not None}
    alone = [table for table in sources if table.table not in matched]
    return [matched[table.table] for table in sources if table.table in matched], alone


def _best(scored: Iterable[_Pair[_T]], least: float) -> list[_Pair[_T]]:
    """Return pairs of which each is the best that is left, none twice."""
    found: list[_Pair[_T]] = []
    for pair in sorted(scored, key=lambda pair: -pair.score):
        if pair.score < least:
            break
        if all(pair.one is not f.one and pair.other is not f.other for f in found):
            found.append(pair)
    return found


def _matched(pair: _Pair[TableSchema]) -> TableMatch:
    source, target = pair.one, pair.other
    found = _columns(source, target)
    columns = [
        ColumnMatch(p.other.name, p.one.name, round(p.score, 2), _cast(p.one, p.other))
        for p in found
    ]
    order = [column.name for column in target.columns]
    columns.sort(key=lambda column: order.index(column.target))
    return TableMatch(
        source,
        target,
        round(pair.score, 2),
        columns,
        [c.name for c in source.columns if c.name not in {m.source for m in columns}],
        [c.name for c in target.columns if c.name not in {m.target for m in columns}],
    )


def _columns(source: TableSchema, target: TableSchema) -> list[_Pair[Column]]:
    keys = len(source.key) == len(target.key) == 1

    def score(one: Column, other: Column) -> float:
        kind = _type_score(one, other)
        if not kind:
            return 0.0
        # The id of a customer may be called so, or `customer_id`.
        names = (one.name, f"{source.table.name}_{one.name}")
        name = max(_alike(name, other.name) for name in names)
        if keys and one.name in source.key and other.name in target.key:
            name = max(name, _KEYS)
        return _NAME * name + _TYPE * kind

    pairs = ((one, other) for one in source.columns for other in target.columns)
    return _best((_Pair(*pair, score(*pair)) for pair in pairs), _COLUMN_LEAST)


def _roughly(source: TableSchema, target: TableSchema) -> float:
    """Return how alike two tables may be: their names, and the words of their columns."""
    ours, theirs = (
        {word for column in table.columns for word in _words(column.name)}
        for table in (source, target)
    )
    shared = len(ours & theirs) / (len(ours | theirs) or 1)
    return _alike(source.table.name, target.table.name) + shared


def _table_score(source: TableSchema, target: TableSchema) -> float:
    """Half the name, half how many columns of the smaller table have a counterpart."""
    found = _columns(source, target)
    smaller = min(len(source.columns), len(target.columns)) or 1
    covered = sum(pair.score for pair in found) / smaller
    return 0.5 * _alike(source.table.name, target.table.name) + 0.5 * covered


@cache
def _alike(one: str, other: str) -> float:
    """Return how alike two names are, 0 to 1, by their words."""
    first, second = _words(one), _words(other)
    if first == second:
        return 1.0
    shared = len(set(first) & set(second)) * 2 / (len(set(first)) + len(set(second)) or 1)
    letters = SequenceMatcher(None, "".join(first), "".join(second), autojunk=False).ratio()
    return 0.95 * max(shared, letters)


@cache
def _words(name: str) -> tuple[str, ...]:
    found = [_singular(word.lower()) for word in _WORDS.findall(_HUMPS.sub("_", name))]
    words = tuple(word for word in (_SAME_WORDS.get(word, word) for word in found) if word)
    return words or (name,)


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word


def _type_score(one: Column, other: Column) -> float:
    """Return 1 for the same type, less where it is widened or cast, 0 where it cannot be."""
    if one.type.logical == other.type.logical or widens(one.type, other.type):
        return 1.0
    narrower = {one.type.logical, other.type.logical} <= _WHOLE  # what does not fit is refused
    return 0.5 if narrower or _cast(one, other) else 0.0


_TEXTS, _WHOLE = {"string", "text"}, {"int16", "int32", "int64"}
_NUMBERS = {*_TEXTS, *_WHOLE, "decimal", "float64"}
_MOMENTS = {"string", "date", "timestamp", "timestamptz"}
_CASTS: dict[str, tuple[str, set[str]]] = {
    "string": ("text", set(LOGICAL)),
    "text": ("text", set(LOGICAL)),
    "int64": ("bigint", {*_TEXTS, "decimal"}),
    "int32": ("int", {*_TEXTS, "int64"}),
    "int16": ("smallint", _WHOLE),
    "float64": ("float", _NUMBERS),
    "decimal": ("numeric", _NUMBERS),
    "boolean": ("bool", {"string"}),
    "date": ("date", _MOMENTS),
    "timestamp": ("timestamp", _MOMENTS),
    "timestamptz": ("timestamptz", _MOMENTS),
    "json": ("json", {"string"}),
    "uuid": ("uuid", {"string"}),
}
"""Type of the target → what `as:` says, and the types of the source it is worth trying on."""


def _cast(one: Column, other: Column) -> str:
    """Return what `as:` has to say so that `one` fits `other`, empty where nothing or none can."""
    name, sources = _CASTS.get(other.type.logical, ("", set()))
    if one.type.logical == other.type.logical or widens(one.type, other.type):
        # PostgreSQL takes a shorter text where the mapping says that it is meant so.
        shorter = other.type.logical == "string" and holds(other.type, one.type) is False
        return name if shorter and other.type.native.startswith("postgres ") else ""
    return name if one.type.logical in sources else ""


def proposal_text(
    source: str, kind: str, matches: Sequence[TableMatch], alone: Sequence[TableSchema]
) -> str:
    """Return a `sinks:` block to be confirmed: every line a comment, its confidence beside it."""
    lines = [
        "sinks:",
        "  copy:",
        f"    type: {kind}",
        "    url: ${TARGET_URL}",
        "    tables:",
        *(line for match in matches for line in _table_lines(source, match)),
        *(f"      # {table.table}: no counterpart found" for table in alone),
    ]
    return "".join(f"# {line}\n" for line in lines)


def _table_lines(source: str, match: TableMatch) -> Iterator[str]:
    topic, to = topic_name(source, match.source.table), str(match.target.table)
    yield f"      {_quoted(topic)}:  # {match.confidence:.0%} alike"
    yield f"        to: {_quoted(to)}"
    if match.key:
        yield f"        key: [{', '.join(map(_quoted, match.key))}]"
    yield "        fields:"
    for column in match.columns:
        origin = _quoted(column.source)
        value = f"{{from: {origin}, as: {column.cast}}}" if column.cast else origin
        yield f"          {_quoted(column.target)}: {value}  # {column.confidence:.0%}"
    for word, names in (("not taken", match.left), ("not filled", match.unfilled)):
        if names:
            yield f"          # {word}: {', '.join(names)}"


def _quoted(name: str) -> str:
    """Return a name as YAML takes it for a text."""
    if _PLAIN.fullmatch(name) and name.lower() not in _YAML_WORDS:
        return name
    return json.dumps(name, ensure_ascii=False)
