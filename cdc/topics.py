"""Names of data topics: `<source>.<schema>.<table>` by default, escaped so that they read back.

Kafka allows [A-Za-z0-9._-] and 249 characters. Inside a part every other character, and the dot
itself, becomes `_u<hex>_` as in Avro names; a longer name is cut and ends in a hash, and then
only the topic's schema knows the original.
"""

from __future__ import annotations

import hashlib
import re

from schemas.avro import unescape
from schemas.table import TableId

__all__ = ["MAX_TOPIC", "escape_part", "topic_name", "topic_parts"]

MAX_TOPIC = 249
_HASH = 16
_ILLEGAL = re.compile(r"[^A-Za-z0-9_-]|_(?=u[0-9a-f]*[^A-Za-z0-9])")


def escape_part(part: str) -> str:
    """Return `part` with nothing left in it that a topic name forbids or that separates parts."""
    return _ILLEGAL.sub(lambda found: f"_u{ord(found[0]):x}_", part)


def topic_name(source: str, table: TableId, template: str = "{source}.{schema}.{table}") -> str:
    """Return the topic of `table`; `template` may use source, schema and table.

    >>> topic_name("shopdb", TableId("public", "Order Items"))
    'shopdb.public.Order_u20_Items'
    """
    parts = {"source": source, "schema": table.schema, "table": table.name}
    name = template
    for field, value in parts.items():
        name = name.replace("{" + field + "}", escape_part(value))
    name = re.sub(r"\.{2,}", ".", name).strip(".")
    if len(name) <= MAX_TOPIC:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH]
    return f"{name[: MAX_TOPIC - _HASH - 1]}-{digest}"


def topic_parts(topic: str) -> list[str]:
    """Return the parts of a topic's name as they were before escaping."""
    return [unescape(part) for part in topic.split(".")]
