"""Logical messages become records of their own topic."""

from __future__ import annotations

import io
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader

from schemas.change import Change, Op, Origin, Rows
from schemas.messages import MESSAGES, message_record, message_schema
from schemas.plan import SourceName
from schemas.wire import schema_id

SOURCE = SourceName("0.1.0", "postgres", "shop", "shopdb")
ORIGIN = Origin(2, 900, 1_000_000, "77")


def run(*items: Change) -> Rows:
    return Rows(MESSAGES, "changes", ORIGIN, list(items), range(len(items)))


def test_a_message_is_read_back_with_prefix_content_and_place() -> None:
    items = [
        Change(Op.MESSAGE, message=("outbox é", bytes(range(256)))),
        Change(Op.MESSAGE, message=("", b"")),
    ]
    first, second = message_record(SOURCE, 5, run(*items), 1_234)
    assert first.key is None
    assert first.value is not None
    assert second.value is not None
    assert schema_id(first.value) == 5
    schema = parse_schema(message_schema("shop.message"))
    envelope: Any = schemaless_reader(io.BytesIO(first.value[5:]), schema, None)
    assert envelope["message"] == {"prefix": "outbox é", "content": bytes(range(256))}
    assert (envelope["op"], envelope["ts_ms"]) == ("m", 1_234)
    source = envelope["source"]
    assert (source["table"], source["txId"], source["commit"]) == ("message", "77", 900)
    again: Any = schemaless_reader(io.BytesIO(second.value[5:]), schema, None)
    assert (again["message"], again["source"]["ordinal"]) == ({"prefix": "", "content": b""}, 1)


def test_a_row_is_no_message() -> None:
    with pytest.raises(ValueError, match="no logical message"):
        message_record(SOURCE, 5, run(Change(Op.CREATE, None, (b"1",))), 0)
