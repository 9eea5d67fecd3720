"""Outbox routing: rows inserted into one table become messages of their own on other topics.

The transactional outbox pattern, with the column names Debezium's event router uses by default:
an application inserts (id, aggregatetype, aggregateid, type, payload) in its own transaction; the
payload becomes the value as it is, the aggregate's id the key, `id` and `type` headers. Updates
and deletes of the table are housekeeping and are not published.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from cdc.topics import escape_part
from schemas.change import Cell, Op, Rows
from schemas.forms import READERS
from schemas.table import TableSchema

__all__ = ["OutboxConfig", "OutboxRoute"]


class OutboxConfig(BaseModel):
    """The `publish.outbox:` block."""

    model_config = ConfigDict(extra="forbid")

    table: str = Field(description="The outbox, as `schema.table`")
    topic: str = Field(
        default="outbox.event.{route}", description="Topic template; `{route}` is the route column"
    )
    route: str = Field(default="aggregatetype", description="Column that chooses the topic")
    key: str = Field(default="aggregateid", description="Column that becomes the record key")
    payload: str = Field(default="payload", description="Column that becomes the value, as it is")
    headers: dict[str, str] = Field(
        default_factory=lambda: {"id": "id", "eventType": "type"},
        description="Headers by name, each from a column",
    )


class OutboxRoute:
    """Compiled for one version of the outbox table.

    Raises `ValueError` when a configured column is not in it.
    """

    def __init__(self, config: OutboxConfig, schema: TableSchema) -> None:
        names = [column.name for column in schema.columns]
        wanted = {config.route, config.key, config.payload, *config.headers.values()}
        if missing := sorted(wanted - set(names)):
            raise ValueError(f"{schema.table} has no column {', '.join(missing)}")
        self._template = config.topic
        self._route = names.index(config.route)
        self._key = names.index(config.key)
        self._payload = names.index(config.payload)
        self._is_hex = schema.columns[self._payload].type.logical == "bytes"
        self._headers = [(header, names.index(name)) for header, name in config.headers.items()]

    def messages(self, rows: Rows) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (topic, message) of each inserted row, as `produce` takes it."""
        read = READERS[rows.form]
        for item in rows.items:
            op, _, after, _ = read(item)
            if after is None or op not in {Op.CREATE, Op.READ}:
                continue
            route = after[self._route]
            topic = self._template.replace("{route}", escape_part(_text(route)))
            yield (
                topic,
                {
                    "key": _bytes(after[self._key]),
                    "value": self._value(after[self._payload]),
                    "headers": [(name, _bytes(after[place])) for name, place in self._headers],
                },
            )

    def _value(self, cell: Cell) -> bytes | None:
        value = _bytes(cell)
        return bytes.fromhex(value[2:].decode()) if self._is_hex and value is not None else value


def _bytes(cell: Cell) -> bytes | None:
    return cell if isinstance(cell, bytes) else None


def _text(cell: Cell) -> str:
    return cell.decode() if isinstance(cell, bytes) else "null"
