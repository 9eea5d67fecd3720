"""A MariaDB source driven as the worker drives it, with Kafka played by a few variables."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pymysql
import pytest

from cdc.connector import Context
from cdc.local import LocalMariaDB
from cdc.mariadb.position import Position
from cdc.source import Source
from cdc.sources.mariadb import Config, create
from fix_capture import Capture, Event
from mariadb_writers import Writers
from schemas.change import Op, Rows


class Database:
    """An empty database of a test's own, and a session in it."""

    def __init__(self, url: str, connection: pymysql.connections.Connection[Any]) -> None:
        self.url = url
        self.name = urlsplit(url).path.strip("/")
        self.connection = connection

    def execute(self, *statements: str) -> tuple[tuple[Any, ...], ...]:
        with self.connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return tuple(cursor.fetchall())


@contextmanager
def database_of(server: LocalMariaDB, url: str) -> Iterator[Database]:
    with closing(server.connect(urlsplit(url).path.strip("/"))) as connection:
        yield Database(url, connection)


class MariaCapture(Capture):
    """`Capture` on a MariaDB database; `tables` are its own unless a test says otherwise."""

    def __init__(self, database: Database, **options: Any) -> None:
        url = options.pop("url", database.url)
        known = {"tables": [f"{database.name}.*"], "heartbeat": 0.2}
        super().__init__(url, **{**known, **options})
        self.database = database
        self.runs: list[Rows] = []

    def commit(self) -> None:
        self.runs += [rows for batch in self._pending for rows in batch.rows]
        super().commit()

    def config(self) -> Any:
        return Config.model_validate(self.options)

    def open(self) -> Source:
        made = create(Context("test", self.name), self.config())
        return self.opened(made)

    def stored(self) -> Position:
        """The position that was committed."""
        return Position.decode(self.position or {})

    def until_read(self) -> None:
        """Read what was there at the first start, all of it."""
        self.until(lambda: self.position is not None, "a position")
        self.until(lambda: not any(key.startswith("chunk/") for key in self.progress), "snapshot")

    def until_read_under(self, writers: Writers) -> None:
        """Read what is there while it is changed, killed on the way, and to where the log ends."""
        with writers:
            for _ in range(10):
                self.step()
            self.kill()
            self.until_read()
        self.until_caught_up()

    def ends_behind_the_snapshot(self, rows: int, insert: str) -> None:
        """See that it reads the `rows` of `t`, and nothing that is written or asked for then."""

        def done() -> bool:
            return self.source is not None and self.source.status().state == "done"

        self.until(done, "the end")
        self.database.execute(insert)
        self.kill()
        source = self.open()
        self.step()
        assert done()
        assert len(self.events) == rows
        source.command("backfill", {"table": f"{self.database.name}.t"})
        assert "snapshot: only" in source.status().waiting

    def until_caught_up(self, _: Any = None) -> None:
        """Read to where the log ends now."""
        [(end,)] = self.database.execute("SELECT @@gtid_binlog_pos")
        self.until(lambda: (self.position or {}).get("gtid") == end, f"the log's end, {end}")

    def same(self, table: str, columns: str) -> bool:
        """Whether a consumer has the rows the table has, as texts."""
        query = f"SELECT {columns} FROM {table} ORDER BY 1"
        texts = [
            tuple(None if cell is None else str(cell).encode() for cell in row)
            for row in self.database.execute(query)
        ]
        return self.model.rows(f"{self.database.name}.{table}") == sorted(texts)

    def absent(self, table: str, op: Op) -> list[set[str]]:
        """The absent columns of the new row of each streamed event that is an `op`."""
        return [
            event.absent()
            for event in self.events_of(table)
            if event.op is op and not event.snapshot
        ]

    def rows_left(self, table: str) -> Counter[tuple[Any, ...]]:
        """What a table without a key has left of its events."""
        left: Counter[tuple[Any, ...]] = Counter()
        for event in self.events_of(table):
            if event.op is Op.TRUNCATE:
                left.clear()
            left.subtract([event.before] if event.before else [])
            left.update([event.after] if event.after else [])
        assert min(left.values(), default=0) >= 0
        return Counter({row: count for row, count in left.items() if count})

    def said(self) -> str:
        assert self.source is not None
        return self.source.status().waiting

    @contextmanager
    def elsewhere(self, server: LocalMariaDB) -> Iterator[Database]:
        """A session in a database that is not captured."""
        name = f"other_{secrets.token_hex(4)}"
        with database_of(server, server.create_database(name)) as database:
            yield database
        server.drop_database(name)

    def events_of(self, table: str) -> Sequence[Event]:
        return [event for event in self.events if event.table == f"{self.database.name}.{table}"]


@pytest.fixture
def shop(mariadb: LocalMariaDB, fresh: str) -> Iterator[Database]:
    """An empty database of MariaDB."""
    with database_of(mariadb, fresh) as database:
        yield database


@pytest.fixture
def maria(shop: Database) -> Iterator[MariaCapture]:
    """A source on that database."""
    with MariaCapture(shop) as made:
        yield made


@pytest.fixture(params=["NO_LOG"])
def row_metadata(mariadb: LocalMariaDB, request: pytest.FixtureRequest) -> Iterator[str]:
    """What the log says of columns during the test: by default nothing but their types."""
    mariadb.execute(f"SET GLOBAL binlog_row_metadata = '{request.param}'")
    yield request.param
    mariadb.execute("SET GLOBAL binlog_row_metadata = 'FULL'")


@pytest.fixture
def make_maria(shop: Database) -> Iterator[Callable[..., MariaCapture]]:
    """Make sources on that database with options of a test's own."""
    made: list[MariaCapture] = []

    def make(**options: Any) -> MariaCapture:
        made.append(MariaCapture(shop, **options))
        return made[-1]

    yield make
    for capture in made:
        capture.kill()
