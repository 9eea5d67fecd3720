"""What happens at the source while processes die: several writers, every awkward shape.

Each row carries a version drawn from one sequence, so that a change is recognised wherever it is
seen. A bank keeps a constant sum over transfers; texts too large for a page are updated and left
untouched; keys change; a key is deleted and inserted again; transactions roll back whole or to a
savepoint, interleave, and reach from one row to hundreds. What is rarer, larger, or concerns a
whole table is in `crash.deeds`.
"""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import psycopg

TABLES = ("plain", "toasted", "whole", "renamed", "shifting")
DOWN_S = 60.0
GONE = (psycopg.OperationalError, psycopg.Rollback)
"""What a transaction ends with when its server goes down: a rollback it did not hear, too."""

Cursor = psycopg.Cursor[Any]


class Writer(threading.Thread):
    """One connection, its own range of keys; `per_s` rows a second, about, until `end`."""

    def __init__(self, url: str, number: int, per_s: float, seed: int) -> None:
        super().__init__(name=f"writer-{number}", daemon=True)
        self._url = url
        self._number = number
        self.per_s = per_s
        self._due = 0.0
        self._random = random.Random(seed * 100 + number)  # noqa: S311 - must repeat
        self._over = threading.Event()
        self._next = number * 10_000_000
        self._alive: dict[str, list[Any]] = {t: [] for t in TABLES}
        self._seen = time.monotonic()
        self.changes = 0
        self.failure: Exception | None = None

    def end(self) -> None:
        self._over.set()

    def run(self) -> None:
        try:
            while not self._over.is_set():
                try:
                    self._write()
                except GONE as error:
                    self._wait_for_server(error)
        except Exception as error:  # noqa: BLE001 - raised again by the storm
            self.failure = error

    def _wait_for_server(self, error: Exception) -> None:
        """Whether the last transaction committed is the journal's to know; its keys are fresh."""
        now = time.monotonic()
        if now - self._seen > DOWN_S:
            raise error
        self._over.wait(0.1)

    def _write(self) -> None:
        """Write over one connection until done, or until the server goes down."""
        with psycopg.connect(self._url) as connection:
            while not self._over.is_set():
                self._seen = time.monotonic()
                kept = {table: list(keys) for table, keys in self._alive.items()}
                before = self.changes
                try:
                    self._transaction(connection)
                except psycopg.errors.DeadlockDetected:  # two transfers met: one more rollback
                    self._alive = kept
                self._rest(self.changes - before)

    def _rest(self, made: int) -> None:
        """Keep to the pace; what a server that was down cost is not made up for."""
        now = time.monotonic()
        self._due = max(self._due, now - 1) + made / self.per_s
        if self._due > now:
            self._over.wait(self._due - now)

    def _transaction(self, connection: psycopg.Connection[Any]) -> None:
        kept = {table: list(keys) for table, keys in self._alive.items()}
        made, committed = 0, False
        with connection.transaction() as transaction, connection.cursor() as cursor:
            for _ in range(self._random.choice((1, 1, 1, 2, 4, 12))):
                action = self._random.choice(
                    (
                        self._insert,
                        self._insert,
                        self._update,
                        self._update,
                        self._transfer,
                        self._remove,
                        self._rekey,
                        self._rebirth,
                        self._savepoint,
                        self._plain_tables,
                    )
                )
                made += action(cursor)
            if self._random.random() < 0.05:
                raise psycopg.Rollback(transaction)
            committed = True
        if committed:
            self.changes += made
        else:
            self._alive = kept

    def _fresh(self) -> int:
        self._next += 1
        return self._next

    def _insert(self, cursor: Cursor) -> int:
        count = self._random.choice((1, 1, 5, 40, 200))
        first = self._next + 1
        self._next += count
        table = self._random.choice(TABLES)
        count = min(count, 20) if table == "toasted" else count
        values = {
            "shifting": "i, 'shift ' || i",
            "plain": "i, i % 1000 / 7.0, 'note ' || i",
            "toasted": "i, repeat(md5(i::text), 200), i % 10",
            "whole": "i, 'name ' || i, array['a', null, i::text]",
            "renamed": "'key ' || i, 'label ' || i",
        }[table]
        columns = {
            "shifting": "id, note",
            "plain": "id, amount, note",
            "toasted": "id, big, small",
            "whole": "id, name, tags",
            "renamed": "id, label",
        }[table]
        cursor.execute(
            f"insert into {table} ({columns}) select {values}"
            f" from generate_series({first}, {first + count - 1}) i"
        )
        keys = range(first, first + count)
        self._alive[table] += [f"key {i}" for i in keys] if table == "renamed" else keys
        return count

    def _some(self, table: str, most: int) -> list[Any]:
        keys = self._alive[table]
        return self._random.sample(keys, min(len(keys), most))

    def _update(self, cursor: Cursor) -> int:
        table, change = self._random.choice(
            (
                ("plain", "note = left(note || '!', 60)"),
                ("shifting", "note = left(note || '~', 60)"),
                ("toasted", "small = small + 1"),
                ("toasted", "big = repeat(md5(random()::text), 150)"),
                ("whole", "name = upper(name)"),
                ("renamed", "label = left(label || '.', 60)"),
            )
        )
        cursor.execute(
            f"update {table} set {change}, version = nextval('versions') where id = any(%s)",
            (self._some(table, self._random.choice((1, 3, 60, 250))),),
        )
        return cursor.rowcount

    def _transfer(self, cursor: Cursor) -> int:
        giver, taker = sorted(self._random.sample(range(1, 51), 2))
        for account, amount in ((giver, -7), (taker, 7)):
            cursor.execute(
                "update accounts set balance = balance + %s, version = nextval('versions')"
                " where id = %s",
                (amount, account),
            )
        return 2

    def _remove(self, cursor: Cursor) -> int:
        table = self._random.choice(TABLES)
        gone = self._some(table, self._random.choice((1, 2, 20)))
        cursor.execute(f"delete from {table} where id = any(%s)", (gone,))
        self._alive[table] = [key for key in self._alive[table] if key not in set(gone)]
        return cursor.rowcount

    def _rekey(self, cursor: Cursor) -> int:
        table = self._random.choice(("renamed", "toasted"))
        for old in self._some(table, 1):
            number = self._fresh()
            new = f"key {number}" if table == "renamed" else number
            cursor.execute(
                f"update {table} set id = %s, version = nextval('versions') where id = %s",
                (new, old),
            )
            self._alive[table].remove(old)
            self._alive[table].append(new)
            return 2
        return 0

    def _rebirth(self, cursor: Cursor) -> int:
        """Delete a key and insert it again, in one transaction or over several."""
        key = self._number * 10_000_000 + self._random.randint(1, 20)
        cursor.execute("delete from reborn where id = %s", (key,))
        gone = cursor.rowcount
        if self._random.random() < 0.8:
            cursor.execute("insert into reborn (id, round) values (%s, 1)", (key,))
            return gone + 1
        return gone

    def _plain_tables(self, cursor: Cursor) -> int:
        """Add to the tables that are truncated, and refused in part, by others."""
        first = self._next + 1
        self._next += 8
        cursor.execute(
            "insert into wiped (id, note) select i, 'wipe ' || i from generate_series(%s, %s) i",
            (first, first + 7),
        )
        value = "poison" if self._random.random() < 0.1 else "good"
        cursor.execute("insert into refused (id, value) values (%s, %s)", (first, value))
        return 9

    def _savepoint(self, cursor: Cursor) -> int:
        """Change rows and take it back, inside a transaction that goes on."""
        kept = {table: list(keys) for table, keys in self._alive.items()}
        cursor.execute("savepoint s")
        self._insert(cursor)
        self._update(cursor)
        cursor.execute("rollback to savepoint s")
        self._alive = kept
        return 0
