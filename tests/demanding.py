"""A target table of PostgreSQL that asks something of its rows, and what was put aside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from cdc.connector import Context
from schemas.table import Column, TableId, TableSchema, Type
from sinks.target import Mapped, Step
from sinks.targets.postgres import Config, PostgresTarget, create
from sinks.testing import span

TABLE = TableSchema(
    TableId("public", "t"),
    (Column("id", Type("int64")), Column("note", Type("string")), Column("n", Type("int32"))),
    ("id",),
)
SHORT = "CREATE TABLE t (id bigint PRIMARY KEY, note text CHECK (length(note) <= 5), n int)"
Rows = dict[int, str | None]
NULL = r"\N"


class Place:
    """A target table, and what was put aside of what was written to it."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True)
        config = Config.model_validate({"url": url, "tables": ["shop.*"]})
        self.target: PostgresTarget = create(Context("shop", "mirror"), config)
        self.aside: dict[int, str] = {}
        self.offset = 0

    def make(self, *statements: str) -> None:
        for statement in statements:
            self.connection.execute(statement.encode())
        self.target.open()
        self.target.prepare(TABLE)

    def write(self, steps: Sequence[Step]) -> None:
        def aside(rows: Mapping[Any, str]) -> None:
            self.aside |= {int(key[0]): why for (_, key), why in rows.items()}

        end = self.offset + 1
        self.target.apply_others(steps, [span(self.offset or None, end)], aside)
        self.offset = end

    def change(self, rows: Rows) -> None:
        self.write([[Mapped(TABLE, [], [], lines=lines(rows))]])

    def create(self, rows: Rows) -> None:
        self.write([[Mapped(TABLE, [], [], lines=lines(rows), created=len(rows))]])

    @property
    def rows(self) -> Rows:
        return dict(self.connection.execute("SELECT id, note FROM t ORDER BY id").fetchall())

    def close(self) -> None:
        self.target.close()
        self.connection.close()


def lines(rows: Rows) -> list[bytes]:
    return [b"%d\t%s\t%d" % (n, (note or NULL).encode(), n) for n, note in rows.items()]
