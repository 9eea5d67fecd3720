"""What happens at the source beside the writers: rare, large, or over whole tables.

Prepared transactions, committed and rolled back; TRUNCATE; columns added, renamed and dropped under
load; transactions left open for a while; COPY of 50,000 rows in one transaction.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg

from crash.workload import DOWN_S

Connection = psycopg.Connection[Any]
FIRST = 900_000_000
COPY_ROWS = 50_000


class Deeds(threading.Thread):
    """One deed after another until `end`, each at most `every_s` seconds after the last."""

    def __init__(self, url: str, seed: int, copies: int = 1, every_s: float = 1.5) -> None:
        super().__init__(name="deeds", daemon=True)
        self._url, self._every_s = url, every_s
        self._copies = copies
        self._random = random.Random(seed)  # noqa: S311 - must repeat
        self._over = threading.Event()
        self._next = FIRST
        self._columns: list[str] = []
        self.done: Counter[str] = Counter()
        self.changes = 0
        self.failure: Exception | None = None

    def end(self) -> None:
        self._over.set()

    def run(self) -> None:
        seen = time.monotonic()
        while not self._over.wait(self._random.uniform(0, self._every_s)):
            try:
                self._one()
                seen = time.monotonic()
            except psycopg.OperationalError as error:
                if time.monotonic() - seen > DOWN_S:
                    self.failure = error
                    return
            except Exception as error:  # noqa: BLE001 - raised again by the storm
                self.failure = error
                return
        self._finish_prepared()

    def _one(self) -> None:
        deeds: tuple[Callable[[Connection], None], ...] = (
            self._prepare,
            self._prepare,
            self._truncate,
            self._alter,
            self._linger,
        )
        deed = self._random.choice(deeds)
        if self.done["copy"] < self._copies and self.done.total() % 10 == 0:
            deed = self._copy
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute("set lock_timeout = '5s'")
            deed(connection)
        self.done[deed.__name__.strip("_")] += 1

    def _keys(self, count: int) -> tuple[int, int]:
        self._next += count
        return self._next - count, self._next - 1

    def _copy(self, connection: Connection) -> None:
        """COPY in one transaction: every row has the same commit."""
        first, last = self._keys(COPY_ROWS)
        with connection.cursor() as cursor, cursor.copy("copy bulk (id, note) from stdin") as copy:
            for number in range(first, last + 1):
                copy.write_row((number, f"copied {number}"))
        self.changes += COPY_ROWS

    def _prepare(self, connection: Connection) -> None:
        """Prepare a transaction, let others go on, then commit it or roll it back."""
        gid = f"storm-{secrets.token_hex(4)}"
        first, last = self._keys(self._random.choice((1, 30)))
        connection.execute("begin")
        connection.execute(
            "insert into plain (id, note) select i, 'prepared' from generate_series(%s, %s) i",
            (first, last),
        )
        connection.execute(
            "update bulk set note = 'prepared', version = nextval('versions') where id = %s",
            (self._random.randint(1, 5000),),
        )
        connection.execute(f"prepare transaction '{gid}'")
        self._over.wait(self._random.uniform(0, 1.5))
        ending = self._random.choice(("commit", "rollback"))
        connection.execute(f"{ending} prepared '{gid}'")
        if ending == "commit":
            self.changes += last - first + 2

    def _truncate(self, connection: Connection) -> None:
        connection.execute("truncate wiped")

    def _alter(self, connection: Connection) -> None:
        """Add, rename or drop a column under the writers' hands."""
        if len(self._columns) < 2 or self._random.random() < 0.3:
            name = f"extra_{self._next}"
            self._next += 1
            default = self._random.choice(("", " default 7"))
            connection.execute(f"alter table shifting add column {name} integer{default}")
            self._columns.append(name)
            return
        old = self._columns.pop(0)
        if self._random.random() < 0.5:
            connection.execute(f"alter table shifting rename column {old} to {old}_r")
            self._columns.append(f"{old}_r")
        else:
            connection.execute(f"alter table shifting drop column {old}")

    def _linger(self, connection: Connection) -> None:
        """Hold a transaction open over many others, and past a streamed block."""
        first, last = self._keys(self._random.choice((3, 500)))
        with connection.transaction():
            for low in range(first, last + 1, 250):
                connection.execute(
                    "insert into plain (id, note) select i, repeat('linger', 40)"
                    " from generate_series(%s, %s) i",
                    (low, min(low + 249, last)),
                )
                self._over.wait(self._random.uniform(0, 1.0))
        self.changes += last - first + 1

    def _finish_prepared(self) -> None:
        """End what a killed server left prepared: nobody may wait for it for ever."""
        deadline = time.monotonic() + DOWN_S
        while time.monotonic() < deadline:
            try:
                with psycopg.connect(self._url, autocommit=True) as connection:
                    mine = "select gid from pg_prepared_xacts where database = current_database()"
                    for (gid,) in connection.execute(mine).fetchall():
                        connection.execute(f"commit prepared '{gid}'")
            except psycopg.OperationalError:
                time.sleep(0.2)
            else:
                return
