"""Bytes of keys and values that a Kafka Connect converter wrote → plain values and their schema.

    00 id …                          Avro behind the registry's frame
    {"schema": …, "payload": …}      JsonConverter
    {…}                              JsonConverter with schemas.enable=false

A schema is met once: after that a JSON record is told by its first bytes, which are the schema as
it was written before, and only the payload behind them is parsed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import orjson
from fastavro import parse_schema, schemaless_reader

from schemas.avro import raw_schema
from schemas.errors import DataError
from schemas.wire import FRAME_BYTES, schema_id
from sinks.debezium_schema import kind_of_avro, kind_of_json
from sinks.debezium_types import Kind

__all__ = ["Records", "Schemas", "Shape", "is_debezium"]

_PAYLOAD = b',"payload":'
_ENVELOPE = frozenset({"op", "source", "after"})
_NO_ROWS = "io.debezium."
"""Schemas of tables are named by their topic; those of heartbeats and the like begin so."""


Schemas = Callable[[int], Mapping[str, Any]]
"""Schema id → Avro schema. Raises `errors.DataError` when there is none."""


def is_debezium(schema: Mapping[str, Any]) -> bool:
    """Tell whether an Avro schema was made by a Kafka Connect converter; ours never is."""
    return "connect.name" in schema


class Shape:
    """One schema of the keys or values of a topic; two are the same when they are one object.

    `kind` is None for records that come without a schema. `enveloped` says that rows come with
    what happened to them, and not alone.
    """

    def __init__(self, kind: Kind | None, *, enveloped: bool = False) -> None:
        self.kind = kind
        self.enveloped = enveloped


class Records:
    """Reads the keys, or the values, of one topic."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._avro: dict[bytes, tuple[Shape, Callable[[BytesIO], Any]]] = {}
        self._shapes: dict[bytes, Shape] = {}
        self._heads: dict[bytes, Shape] = {}
        self._last: tuple[bytes, Shape] | None = None
        self._bare = Shape(None), Shape(None, enveloped=True)

    def parse(self, raw: bytes) -> tuple[Shape, Any]:
        """Return the shape of a record and its value.

        Raises `errors.DataError`, `errors.RegistryUnavailable`, and what torn bytes raise.
        """
        if not raw.startswith(b"\x00"):
            return self._json(raw)
        found = self._avro.get(raw[:FRAME_BYTES])
        if found is None:
            found = self._avro[raw[:FRAME_BYTES]] = self._avro_reader(raw)
        shape, read = found
        return shape, read(BytesIO(raw[FRAME_BYTES:]))

    def _avro_reader(self, raw: bytes) -> tuple[Shape, Callable[[BytesIO], Any]]:
        identity = schema_id(raw)
        if not identity:
            raise DataError(
                "the schema id is 8 bytes long",
                hint="Set `apicurio.registry.as-confluent=true` and "
                "`apicurio.registry.use-id=contentId` for Debezium's converters.",
            )
        schema = self._schemas(identity)
        if not is_debezium(schema):
            raise DataError(
                "the schema does not say what its numbers stand for",
                hint="Set `connect.meta.data=true` for the converter, which is its default.",
            )
        writer = parse_schema(raw_schema(schema))
        return _shape(kind_of_avro(schema)), lambda data: schemaless_reader(data, writer, None)

    def _json(self, raw: bytes) -> tuple[Shape, Any]:
        if self._last is not None and raw.startswith(self._last[0]):
            return self._last[1], orjson.loads(memoryview(raw)[len(self._last[0]) : -1])
        head = raw[: raw.find(_PAYLOAD) + len(_PAYLOAD)]
        shape = self._heads.get(head)
        if shape is not None:
            self._last = (head, shape)
            return shape, orjson.loads(memoryview(raw)[len(head) : -1])
        return self._new_json(raw, head)

    def _new_json(self, raw: bytes, head: bytes) -> tuple[Shape, Any]:
        """Parse a record whole, and remember its schema where it stands in front of the payload."""
        value = orjson.loads(raw)
        if not isinstance(value, dict) or value.keys() != {"schema", "payload"}:
            return self._without(value), value
        schema = value["schema"]
        if schema is None:
            return self._without(value["payload"]), value["payload"]
        text = orjson.dumps(schema)
        if text not in self._shapes:
            self._shapes[text] = _shape(kind_of_json(schema))
        shape = self._shapes[text]
        if _is_head(head, schema):
            self._heads[head] = shape
            self._last = (head, shape)
        return shape, value["payload"]

    def _without(self, value: Any) -> Shape:
        """Return the shape of a value that came without a schema."""
        return self._bare[isinstance(value, dict) and value.keys() >= _ENVELOPE]


def _shape(kind: Kind) -> Shape:
    """Raises `errors.DataError` for records that are no rows."""
    if kind.type == "struct" and kind.name.startswith(_NO_ROWS):
        raise DataError(
            f"the topic holds records of {kind.name}, not of a table",
            hint="Leave it out with `!topic`.",
        )
    return Shape(kind, enveloped=kind.fields.keys() >= _ENVELOPE)


def _is_head(head: bytes, schema: Any) -> bool:
    """Tell whether `head` is all that stands before the payload."""
    try:
        return bool(orjson.loads(head + b"null}") == {"schema": schema, "payload": None})
    except ValueError:
        return False
