"""Sessions that change a table of MariaDB or MySQL while a test reads it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, Protocol, Self

import pymysql
from pymysql.connections import Connection

MET = (1205, 1213, 1614)
"""Lock wait and deadlock, also as XA says it: nothing was done."""


class Server(Protocol):
    """Where they connect to."""

    def connect(self, database: str) -> Connection[Any]: ...


class Writers:
    """They write from where the context begins to its end; what fails in one fails the test.

    Each begins with `before`; `change` gives its next statement, and `done` counts those of all.
    """

    def __init__(
        self,
        server: Server,
        database: str,
        change: Callable[[random.Random], str],
        count: int = 3,
        before: Sequence[str] = (),
    ) -> None:
        self.done = 0
        self._server, self._database = server, database
        self._change, self._before = change, before
        self._over = threading.Event()
        self._failed: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(count)]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        failed = self.stopped()
        assert not failed, failed

    def start(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def stopped(self) -> list[BaseException]:
        """Stop them, and return what they failed with."""
        self._over.set()
        for thread in self._threads:
            thread.join(60)
        return self._failed

    def _run(self, seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311 - repeatable, no secret
        try:
            while not self._over.is_set():
                self._write(dice, seed)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self._failed.append(error)

    def _connect(self) -> Connection[Any]:
        return self._server.connect(self._database)

    def _write(self, dice: random.Random, _: int) -> None:
        """Write until the end, or for a while."""
        with closing(self._connect()) as connection, connection.cursor() as cursor:
            for statement in self._before:
                cursor.execute(statement)
            while not self._over.is_set():
                self._execute(cursor, self._change(dice))

    def _execute(self, cursor: Any, statement: str) -> None:
        try:
            cursor.execute(statement)
        except pymysql.Error as error:
            if error.args[0] not in MET:
                raise
        else:
            self.done += 1
