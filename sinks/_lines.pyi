from collections.abc import Callable
from typing import Any

from confluent_kafka import Message

from schemas.table import TableSchema
from sinks.decode import Event

KINDS: dict[str, int]

class LineReader:
    def __init__(
        self,
        schema: TableSchema,
        columns: tuple[tuple[bytes, str, bool, int, Callable[[Any], bytes]], ...],
        targets: tuple[int | bytes, ...],
        key: tuple[int, ...],
        plain: Callable[[Message, bytes], Event],
    ) -> None: ...
    def read(self, message: Message, value: bytes) -> Event: ...
