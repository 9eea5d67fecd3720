"""What a live Debezium wrote, kept byte for byte, so that it can be read without one.

`make interchange` writes the recordings anew with INTERCHANGE_RECORD=1: keys, values and headers
of every topic of a form, the Avro schemas their ids mean, and the rows the source ended with.
"""

from __future__ import annotations

import gzip
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import Message

FOLDER = Path(__file__).with_name("recorded")


class Written(NamedTuple):
    """One record."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class Recording(NamedTuple):
    """One form: `topics` and `rows` are by table, `schemas` by id."""

    provenance: dict[str, str]
    topics: dict[str, list[Written]]
    rows: dict[str, list[str]]
    schemas: dict[int, Any]

    def get(self, schema_id: int) -> dict[str, Any]:
        """Return a schema, as a registry does."""
        return dict(self.schemas[schema_id])

    def history(self, _topic: str, _schema_id: int) -> list[tuple[int, dict[str, Any]]]:
        """Return no versions: a recording has one of each."""
        return []

    def close(self) -> None:
        """Be a registry to the end."""


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else b64encode(raw).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)


def written(message: Message) -> Written:
    """What is kept of a message."""
    headers: Any = message.headers() or []
    return Written(message.key(), message.value(), headers)


def ids(topics: Mapping[str, list[Written]]) -> set[int]:
    """The schema ids in front of keys and values."""
    parts = [part for records in topics.values() for one in records for part in one[:2]]
    return {int.from_bytes(part[1:5], "big") for part in parts if part and part[0] == 0}


def keep(form: str, recording: Recording) -> None:
    """Write the recording of a form."""
    told = {
        **recording._asdict(),
        "topics": {
            table: [
                (_text(one.key), _text(one.value), [(n, _text(v)) for n, v in one.headers])
                for one in records
            ]
            for table, records in recording.topics.items()
        },
    }
    FOLDER.mkdir(exist_ok=True)
    packed = gzip.compress(json.dumps(told, indent=0).encode(), mtime=0)
    (FOLDER / f"{form}.json.gz").write_bytes(packed)


def load(form: str) -> Recording:
    """Read the recording of a form."""
    told = json.loads(gzip.decompress((FOLDER / f"{form}.json.gz").read_bytes()))
    topics = {
        table: [
            Written(_bytes(key), _bytes(value), [(n, _bytes(v) or b"") for n, v in headers])
            for key, value, headers in records
        ]
        for table, records in told["topics"].items()
    }
    schemas = {int(number): schema for number, schema in told["schemas"].items()}
    return Recording(told["provenance"], topics, told["rows"], schemas)
