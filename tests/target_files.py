"""A database file of a test's own, whichever target writes it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from cdc.connector import Context
from schemas.table import TableSchema
from sinks.target import Target

T = TypeVar("T", bound=Target)


class TargetFile(Generic[T]):
    """A database file; every target of it is closed after the test."""

    module: ModuleType
    context = Context("shop", "mirror")

    def __init__(self, path: Path, **options: object) -> None:
        self.path = path
        self.options = {"path": path, "tables": ["shop.*"], **options}
        self.config: Any = self.module.Config.model_validate(self.options)
        self.opened: list[T] = []

    def connect(self) -> T:
        self.opened.append(self.module.create(self.context, self.config))
        return self.opened[-1]

    def open(self, *schemas: TableSchema) -> T:
        target = self.connect()
        target.open()
        for schema in schemas:
            target.prepare(schema)
        return target

    def close(self) -> None:
        for target in self.opened:
            target.close()
