"""The shape of rows in the binary log: a Table_map event with what `binlog_row_metadata` adds.

Under NO_LOG, MariaDB's default, an event has types alone; MINIMAL adds signs and collations, FULL
names, labels and the key.

Sources: MySQL 8.4 `libs/mysql/binlog/event/rows_event.h` (Table_map_event, optional metadata);
MariaDB 10.5 and newer write it too; `sql/log_event.cc` of MariaDB for what a type's metadata means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cdc.decode.binlogevents import Reader, TableEvent
from schemas.table import TableId

__all__ = [
    "BINARY",
    "JSON",
    "MARIADB_TEXTS",
    "MYSQL_TEXTS",
    "VECTOR",
    "LoggedColumn",
    "LoggedTable",
    "table_of",
]

BINARY = 63
"""The collation of what has no characters."""

VECTOR, JSON = 242, 245
"""Types of MySQL alone."""

_ONE_BYTE = {4, 5, 17, 18, 19, 140, VECTOR, JSON, 249, 250, 251, 252, 255}
_TWO_BYTES = {15, 16, 141, 246, 247, 248, 253, 254}
_NO_BYTES = {1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14}
_NUMBERS = {1, 2, 3, 4, 5, 8, 9, 13, 246}
_STRING, _ENUM, _SET = 254, 247, 248


_TEXTS = {15, 140, 141, 249, 250, 251, 252, 253, 254}
MARIADB_TEXTS = frozenset({*_TEXTS, 255})
MYSQL_TEXTS = frozenset({*_TEXTS, VECTOR})
"""Types that the metadata has a collation for: geometries are texts here, vectors there."""


class LoggedColumn(msgspec.Struct, frozen=True):
    """One column as the log has it.

    `code` is the type in the log (ENUM and SET instead of the STRING that hides them); `size` is
    its metadata: bytes of a text or of its length, digits of a fraction, bits; for a decimal
    `precision` and `scale`. `collation` is a server's collation number.
    """

    code: int
    size: int
    scale: int = 0
    nullable: bool = True
    name: str = ""
    unsigned: bool = False
    collation: int = BINARY
    labels: tuple[bytes, ...] = ()


class LoggedTable(msgspec.Struct, frozen=True):
    """A table as the log has it. `primary_key` has the places of its columns, in its order.

    What it says of its columns beside their types: names, labels and the key (`named`), signs of
    numbers (`signed`), collations of texts (`collated`).
    """

    table: TableId
    columns: tuple[LoggedColumn, ...]
    primary_key: tuple[int, ...] = ()
    named: bool = True
    signed: bool = True
    collated: bool = True


def table_of(event: TableEvent, texts: frozenset[int]) -> LoggedTable:
    """Read a Table_map event; `texts` are the server's.

    Raises `ValueError` for one that is cut or has unknown types.
    """
    reader = Reader(event.body)
    reader.number(2)
    table = TableId(reader.name(), reader.name())
    codes = reader.take(reader.packed())
    sizes = Reader(reader.take(reader.packed()))
    columns = [_column(code, sizes) for code in codes]
    nulls = reader.take((len(codes) + 7) // 8)
    found = [
        msgspec.structs.replace(column, nullable=bool(nulls[place >> 3] >> (place & 7) & 1))
        for place, column in enumerate(columns)
    ]
    if sizes.left:
        raise ValueError(f"{sizes.left} bytes of metadata too many")
    extra: dict[int, bytes] = {}
    while reader.left:
        kind = reader.number(1)
        extra[kind] = reader.take(reader.packed())
    return _described(table, found, extra, texts)


def _column(code: int, sizes: Reader) -> LoggedColumn:
    if code in _NO_BYTES:
        return LoggedColumn(code, 0)
    if code in _ONE_BYTE:
        return LoggedColumn(code, sizes.number(1))
    if code not in _TWO_BYTES:
        raise ValueError(f"column type {code} is not known")
    return _wide(code, *sizes.take(2))


def _wide(code: int, low: int, high: int) -> LoggedColumn:
    if code == 246:
        return LoggedColumn(code, low, high)
    if code == 16:
        return LoggedColumn(code, high * 8 + low)
    if code in (15, 141):
        return LoggedColumn(code, low | high << 8)
    # STRING: the type it hides; of more than 255 bytes the upper bits of its size are in there
    return LoggedColumn(low | 0x30, high | ((low & 0x30) ^ 0x30) << 4)


def _described(
    table: TableId, columns: list[LoggedColumn], extra: Mapping[int, bytes], texts: frozenset[int]
) -> LoggedTable:
    """Return the table with what the optional metadata says of its columns."""
    facts: list[dict[str, Any]] = [{} for _ in columns]
    named = 4 in extra
    signed, collated = named or 1 in extra, named or bool(extra.keys() & {2, 3})
    if signed:
        numbers = [place for place, column in enumerate(columns) if column.code in _NUMBERS]
        _signs(extra.get(1, b""), numbers, facts)
    if collated:
        told = [place for place, column in enumerate(columns) if column.code in texts]
        _collations(extra.get(2), extra.get(3), told, facts)
    if named:
        _named(extra, columns, facts)
    found = tuple(
        msgspec.structs.replace(column, **known)
        for column, known in zip(columns, facts, strict=True)
    )
    key = _primary_key(extra, len(columns)) if named else ()
    return LoggedTable(table, found, key, named, signed, collated)


def _named(
    extra: Mapping[int, bytes], columns: Sequence[LoggedColumn], facts: list[dict[str, Any]]
) -> None:
    """Read what FULL metadata has and MINIMAL has not."""
    _names(extra[4], facts)
    chosen = [place for place, column in enumerate(columns) if column.code in (_ENUM, _SET)]
    _collations(extra.get(10), extra.get(11), chosen, facts)
    for kind, code in ((5, _SET), (6, _ENUM)):
        places = [place for place in chosen if columns[place].code == code]
        _labels(extra.get(kind, b""), places, facts)


def _names(data: bytes, facts: list[dict[str, Any]]) -> None:
    reader = Reader(data)
    for known in facts:
        known["name"] = reader.take(reader.packed()).decode()
    if reader.left:
        raise ValueError("there are more names than columns")


def _signs(data: bytes, places: Sequence[int], facts: list[dict[str, Any]]) -> None:
    if len(data) != (len(places) + 7) // 8:
        raise ValueError(f"{len(data)} bytes of signs for {len(places)} numbers")
    for index, place in enumerate(places):
        facts[place]["unsigned"] = bool(data[index >> 3] >> (7 - (index & 7)) & 1)


def _collations(
    common: bytes | None, each: bytes | None, places: Sequence[int], facts: list[dict[str, Any]]
) -> None:
    """Read one collation per text, or a common one and the places of those that differ."""
    found: dict[int, int] = {}
    if each is not None:
        reader = Reader(each)
        found = {index: reader.packed() for index in range(len(places))}
    elif common is not None:
        reader = Reader(common)
        found = dict.fromkeys(range(len(places)), reader.packed())
        while reader.left:
            index = reader.packed()
            found[index] = reader.packed()
    if len(found) != len(places):
        raise ValueError(f"{len(found)} collations for {len(places)} columns")
    for index, collation in found.items():
        facts[places[index]]["collation"] = collation


def _labels(data: bytes, places: Sequence[int], facts: list[dict[str, Any]]) -> None:
    reader = Reader(data)
    for place in places:
        count = reader.packed()
        if count > reader.left:
            raise ValueError(f"{count} labels in {reader.left} bytes")
        facts[place]["labels"] = tuple(reader.take(reader.packed()) for _ in range(count))
    if reader.left:
        raise ValueError("there are labels of more columns than there are")


def _primary_key(extra: Mapping[int, bytes], width: int) -> tuple[int, ...]:
    """Read the key's places; the lengths of prefixes do not matter, the values are whole."""
    simple, prefixed = Reader(extra.get(8, b"")), Reader(extra.get(9, b""))
    places: list[int] = []
    while simple.left:
        places.append(simple.packed())
    while prefixed.left:
        places.append(prefixed.packed())
        prefixed.packed()
    if any(place >= width for place in places):
        raise ValueError(f"the primary key {places} lies outside of {width} columns")
    return tuple(places)
