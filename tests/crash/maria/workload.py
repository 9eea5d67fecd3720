"""A writer of a MariaDB storm: transactions with several changes, some of them taken back."""

from __future__ import annotations

import random
import threading
import time
from contextlib import closing
from typing import Any

import pymysql

from cdc.connections.mariadb import Login, connect
from cdc.errors import CdcError
from crash.maria.ground import VERSION

MET = (1205, 1213)
"""Lock wait and deadlock: one more rollback."""
DOWN_S = 60.0
SHARE = 10_000_000


class Writer(threading.Thread):
    """Writes until `end`, at an even pace and through outages; keys belong to one writer."""

    def __init__(self, url: str, number: int, per_s: float) -> None:
        super().__init__(name=f"writer-{number}", daemon=True)
        self._url, self._number, self._per_s = url, number, per_s
        self._random = random.Random(number)  # noqa: S311 - a storm must repeat
        self._over = threading.Event()
        self._next = number * SHARE
        self._alive: dict[str, list[Any]] = {"plain": [], "renamed": []}
        self._due = 0.0
        self.changes = 0
        self.failure: Exception | None = None

    def end(self) -> None:
        self._over.set()
        self.join()
        if self.failure is not None:
            raise self.failure

    def run(self) -> None:
        seen = time.monotonic()
        while not self._over.is_set():
            before = self.changes
            try:
                self._write()
            except (CdcError, pymysql.Error) as error:
                # Whether the last transaction committed is the journal's to know.
                seen = time.monotonic() if self.changes > before else seen
                if time.monotonic() - seen > DOWN_S:
                    self.failure = error
                    return
                self._over.wait(0.1)
            except Exception as error:  # noqa: BLE001 - raised again by `end`
                self.failure = error
                return

    def _write(self) -> None:
        with closing(connect(Login(self._url, "storm"))) as connection:
            while not self._over.is_set():
                kept = {table: list(keys) for table, keys in self._alive.items()}
                try:
                    made = self._transaction(connection)
                except pymysql.Error as error:
                    self._alive = kept
                    if error.args[:1] and error.args[0] not in MET:
                        raise
                    connection.rollback()
                    continue
                self.changes += made
                self._alive = self._alive if made else kept
                self._rest(made)

    def _rest(self, made: int) -> None:
        now = time.monotonic()
        self._due = max(self._due, now - 1) + made / self._per_s
        if self._due > now:
            self._over.wait(self._due - now)

    def _transaction(self, connection: Any) -> int:
        """Return how many rows were changed and committed, 0 when it was rolled back."""
        acts = (self._insert, self._update, self._transfer, self._remove, self._rekey)
        connection.begin()
        with connection.cursor() as cursor:
            chosen = self._random.choices((*acts, self._rebirth, self._take_back), k=4)
            made = sum(act(cursor) for act in chosen[: self._random.choice((1, 2, 4))])
        if self._random.random() < 0.05:
            connection.rollback()
            return 0
        connection.commit()
        return made

    def _insert(self, cursor: Any) -> int:
        keys = range(self._next + 1, self._next + 1 + self._random.choice((1, 5, 100)))
        self._next = keys[-1]
        cursor.executemany(
            "insert into plain (id, amount, note, seen, version) values"
            f" (%s, %s, %s, current_timestamp(6), {VERSION})",
            [(key, key % 997 / 7, f"note {key}") for key in keys],
        )
        some = [f"key {key}" for key in keys[:3]]
        cursor.executemany(
            f"insert into renamed (id, label, version) values (%s, 'new', {VERSION})",
            [(key,) for key in some],
        )
        self._alive["plain"] += keys
        self._alive["renamed"] += some
        return len(keys) + len(some)

    def _some(self, table: str, most: int) -> list[Any]:
        keys = self._alive[table]
        return self._random.sample(keys, min(len(keys), most))

    def _update(self, cursor: Any) -> int:
        keys = self._some("plain", self._random.choice((1, 20, 100)))
        return self._to_all(
            cursor, f"update plain set amount = amount + 1, version = {VERSION}", keys
        )

    def _remove(self, cursor: Any) -> int:
        table = self._random.choice(("plain", "renamed"))
        keys = self._some(table, self._random.choice((1, 5)))
        self._alive[table] = [key for key in self._alive[table] if key not in set(keys)]
        return self._to_all(cursor, f"delete from {table}", keys)

    def _to_all(self, cursor: Any, statement: str, keys: list[Any]) -> int:
        if not keys:
            return 0
        marks = ", ".join(["%s"] * len(keys))
        return int(cursor.execute(f"{statement} where id in ({marks})", keys))

    def _transfer(self, cursor: Any) -> int:
        giver, taker = sorted(self._random.sample(range(1, 51), 2))
        for account, amount in ((giver, -7), (taker, 7)):
            cursor.execute(
                f"update accounts set balance = balance + %s, version = {VERSION} where id = %s",
                (amount, account),
            )
        return 2

    def _rekey(self, cursor: Any) -> int:
        for old in self._some("renamed", 1):
            self._next += 1
            new = f"key {self._next}"
            cursor.execute(
                f"update renamed set id = %s, version = {VERSION} where id = %s", (new, old)
            )
            self._alive["renamed"].remove(old)
            self._alive["renamed"].append(new)
            return 2
        return 0

    def _rebirth(self, cursor: Any) -> int:
        """Delete a key and insert it again, in one transaction or over several."""
        key = self._number * SHARE + self._random.randint(1, 20)
        gone = int(cursor.execute("delete from reborn where id = %s", (key,)))
        if self._random.random() < 0.8:
            cursor.execute(
                f"insert into reborn (id, round, version) values (%s, 1, {VERSION})", (key,)
            )
            return gone + 1
        return gone

    def _take_back(self, cursor: Any) -> int:
        """Change rows and take it back, inside a transaction that goes on."""
        kept = {table: list(keys) for table, keys in self._alive.items()}
        cursor.execute("savepoint s")
        self._insert(cursor)
        self._update(cursor)
        cursor.execute("rollback to savepoint s")
        self._alive = kept
        return 0
