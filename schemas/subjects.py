"""Subject names: under which name a topic's key and value schemas are registered.

The three strategies and their names are Confluent's ("Subject name strategy").
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

__all__ = ["Strategy", "subject"]


class Strategy(StrEnum):
    """How a subject is named: after the topic, the record, or both."""

    TOPIC = "topic"
    RECORD = "record"
    TOPIC_RECORD = "topic-record"


def subject(strategy: Strategy, topic: str, schema: dict[str, Any], *, key: bool = False) -> str:
    """Return the subject of a record's schema.

    `topic` gives `<topic>-key` and `<topic>-value`; `record` gives the schema's full name, and
    `topic-record` `<topic>-<full name>`. Raises `KeyError` when the schema has no name.
    """
    if strategy is Strategy.TOPIC:
        return f"{topic}-{'key' if key else 'value'}"
    namespace = schema.get("namespace", "")
    name: str = f"{namespace}.{schema['name']}" if namespace else schema["name"]
    return name if strategy is Strategy.RECORD else f"{topic}-{name}"
