"""The difference between two versions of a table, and which of them break readers (R13).

"Breaks" is BACKWARD: a consumer that reads with the new schema meets records written with the
old one. Avro's own resolution is not enough, since it looks at the bare types alone: a decimal
read with another scale, or milliseconds read as microseconds, resolve and are wrong.

Added, dropped and renamed columns never break: every column outside the key is optional. What a
source alone knows (nullability, defaults) is reported and never breaks (R11).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from schemas.avro import key_type, table_schema
from schemas.table import Column, TableSchema, Type

__all__ = ["Difference", "avro_differences", "breaking", "differences", "widens"]

AvroSchema = dict[str, Any]
Kind = Literal["added", "dropped", "renamed", "retyped", "key", "nullability", "default"]


class Difference(msgspec.Struct, frozen=True):
    """One thing that changed. `sentence` names both sides; `breaks` is about BACKWARD readers."""

    kind: Kind
    column: str
    sentence: str
    breaks: bool = False


_LENGTH = re.compile(r"\((\d+)\)")
_WIDER = {
    "int16": {"int32", "int64", "float32", "float64"},
    "int32": {"int64", "float64"},
    "float32": {"float64"},
    "uuid": {"string"},
    "json": {"string"},
    "enum": {"string"},
    "text": {"string"},
}
"""What every value of a type is also a value of, in the same or a promotable Avro type."""


def differences(old: TableSchema, new: TableSchema) -> list[Difference]:
    """Return what turns `old` into `new`: key first, then columns in their order."""
    found = list(_key(old, new))
    before = {column.name: column for column in old.columns}
    after = {column.name: column for column in new.columns}
    moved = _renamed(old, new)
    for source, target in moved.items():
        told = f"column {source} is gone and {target} came in its place: renamed?"
        found.append(Difference("renamed", target, told))
    for name, column in after.items():
        if name in before:
            found.extend(_column(before[name], column, key=name in new.key))
        elif name not in moved.values():
            told = f"column {name} {_spell(column.type)} was added"
            found.append(Difference("added", name, told))
    for name, column in before.items():
        if name not in after and name not in moved:
            told = f"column {name} {_spell(column.type)} was dropped"
            found.append(Difference("dropped", name, told))
    return found


def avro_differences(old: AvroSchema, new: AvroSchema) -> list[Difference]:
    """Return the differences of two Avro schemas: envelopes as tables, others field by field."""
    if _is_envelope(old) and _is_envelope(new):
        return differences(table_schema(old), table_schema(new))
    if _is_envelope(old) != _is_envelope(new):
        told = f"{old.get('name')} became {new.get('name')}, another kind of record"
        return [Difference("retyped", "", told, breaks=True)]
    return [*_lost_from_key(old, new), *_record(old, new, "")]


def breaking(old: AvroSchema, new: AvroSchema) -> list[Difference]:
    """Return the differences of two Avro schemas that break BACKWARD readers."""
    return [difference for difference in avro_differences(old, new) if difference.breaks]


def widens(old: Type, new: Type) -> bool:
    """Tell whether every value of `old` is one of `new`, also by the length both may state."""
    return not _loss(old, new) and not _shorter(old, new)


def _shorter(old: Type, new: Type) -> bool:
    """Tell whether a length or a number of digits shrank: varchar(20) after varchar(30)."""
    was, now = _length(old), _length(new)
    return _base(old) == _base(new) and now is not None and (was is None or now < was)


def _length(kind: Type) -> int | None:
    found = _LENGTH.search(kind.native)
    return None if found is None else int(found[1])


def _is_envelope(schema: AvroSchema) -> bool:
    return {"before", "after"} <= {field["name"] for field in schema.get("fields", ())}


def _key(old: TableSchema, new: TableSchema) -> Iterator[Difference]:
    if old.key != new.key:
        told = f"the key was ({', '.join(old.key)}) and is ({', '.join(new.key)})"
        yield Difference("key", "", told, breaks=True)


def _renamed(old: TableSchema, new: TableSchema) -> dict[str, str]:
    """Return old → new name where one column of the same type took another's place."""
    names_before = {column.name for column in old.columns}
    names_after = {column.name for column in new.columns}
    return {
        was.name: now.name
        for was, now in zip(old.columns, new.columns, strict=False)
        if was.type == now.type and was.name not in names_after and now.name not in names_before
    }


def _column(old: Column, new: Column, *, key: bool) -> Iterator[Difference]:
    name = old.name
    if old.type != new.type:
        told = f"column {name} was {_spell(old.type)} and is {_spell(new.type)}"
        if old.type.native == new.type.native and old.type.labels != new.type.labels:
            told = f"the labels of column {name} were {_list(old.type)} and are {_list(new.type)}"
        why = _loss(old.type, new.type)
        if key and not why and key_type(old.type) != key_type(new.type):
            why = "another key schema would send old keys to other partitions"
        yield Difference("retyped", name, told + (f": {why}" if why else ""), bool(why))
    if old.nullable != new.nullable:
        told = f"column {name} {'became nullable' if new.nullable else 'is no longer nullable'}"
        yield Difference("nullability", name, told)
    if old.default != new.default:
        told = f"the default of {name} was {old.default or 'none'} and is {new.default or 'none'}"
        yield Difference("default", name, told)


def _spell(kind: Type) -> str:
    return kind.native.partition(" ")[2] or kind.logical


def _list(kind: Type) -> str:
    return ", ".join(map(repr, kind.labels)) or "none"


def _loss(old: Type, new: Type) -> str:
    """Return why values of `old` cannot be read as `new`, empty when they can."""
    if new.logical in _WIDER.get(old.logical, ()):
        return ""
    if old.logical != new.logical:
        return f"{old.logical} cannot be read as {new.logical}"
    if old.logical == "decimal":
        if old.scale != new.scale:
            return f"scale {old.scale} read as {new.scale} is another number"
        return "old values may have more digits" if new.precision < old.precision else ""
    if old.logical == "text" and _base(old) != _base(new):
        return f"the text of {_base(old)} is not that of {_base(new)}"
    return ""


def _base(kind: Type) -> str:
    """Return the type's name without typmod: "postgres bit(3)" → "bit"."""
    dialect, _, name = kind.native.partition(" ")
    head, opened, tail = (name or dialect).partition("(")
    return head + tail.partition(")")[2] if opened else head


def _record(old: AvroSchema, new: AvroSchema, path: str) -> Iterator[Difference]:
    """Compare records that are not tables (keys, messages, foreign ones): field by field."""
    before = {field["name"]: field for field in old.get("fields", ())}
    for field in new.get("fields", ()):
        place = f"{path}{field['name']}"
        was = before.get(field["name"])
        if was is None:
            told = f"field {place} was added" + ("" if "default" in field else " without a default")
            yield Difference("added", place, told, breaks="default" not in field)
        elif (ours := _plain(was["type"])) != (theirs := _plain(field["type"])):
            yield from _field(ours, theirs, place)


def _lost_from_key(old: AvroSchema, new: AvroSchema) -> Iterator[Difference]:
    """A key may not even lose or move a field: its bytes decide partition and compaction."""
    if old.get("name") != new.get("name") or new.get("name") != "Key":
        return
    before = [field["name"] for field in old["fields"]]
    after = [field["name"] for field in new["fields"]]
    for name in before:
        if name not in after:
            told = f"field {name} was dropped from the key"
            yield Difference("key", name, told, breaks=True)
    if before != after and sorted(before) == sorted(after):
        told = f"the key's order was ({', '.join(before)}) and is ({', '.join(after)})"
        yield Difference("key", "", told, breaks=True)


def _field(old: Any, new: Any, place: str) -> Iterator[Difference]:
    if isinstance(old, dict) and isinstance(new, dict) and old.get("type") == "record":
        yield from _record(old, new, f"{place}.")
        return
    widened = isinstance(new, list) and (old in new or _subset(old, new))
    told = f"field {place} was {_show(old)} and is {_show(new)}"
    yield Difference("retyped", place, told, breaks=not widened)


def _subset(old: Any, new: list[Any]) -> bool:
    return isinstance(old, list) and all(branch in new for branch in old)


def _show(kind: Any) -> str:
    return kind if isinstance(kind, str) else msgspec.json.encode(kind).decode()


def _plain(kind: Any) -> Any:
    """Return a type without properties Avro ignores, and {"type": "x"} as "x"."""
    if isinstance(kind, list):
        return [_plain(branch) for branch in kind]
    if not isinstance(kind, dict):
        return kind
    kept = {k: _plain(v) for k, v in kind.items() if "." not in k and k not in ("doc", "aliases")}
    return kept["type"] if kept.keys() == {"type"} else kept
