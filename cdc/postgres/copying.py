"""COPY TO STDOUT, line by line, over libpq: several times faster than the driver's own reader."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result
from psycopg.pq.abc import PGconn, PGresult

__all__ = ["copy_lines", "hang_up"]

_TICK_MS = 1000


def copy_lines(
    pgconn: PGconn, query: bytes, tick: Callable[[], None]
) -> Generator[bytes, None, None]:
    """Yield the lines of a COPY without their newline; closing early cancels the query.

    `tick` is called about every second of waiting. Raises `psycopg.Error`.
    """
    pgconn.send_query(query)
    result = _result(pgconn, tick)
    if result is None or result.status != pq.ExecStatus.COPY_OUT:
        _drain(pgconn, tick)
        raise _error(result)
    done = False
    try:
        yield from _rows(pgconn, tick)
        done = True
    finally:
        if not done and pgconn.status == pq.ConnStatus.OK:
            pgconn.get_cancel().cancel()
            _skip(pgconn, tick)
        failed = _drain(pgconn, tick)
    if failed is not None:
        raise _error(failed)


def hang_up(pgconn: PGconn) -> None:
    """End the talk with the server: a thread that waits for it hears that it left."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(pgconn.socket)) as line:
        line.shutdown(socket.SHUT_RDWR)


def _rows(pgconn: PGconn, tick: Callable[[], None]) -> Iterator[bytes]:
    get = pgconn.get_copy_data
    while True:
        # psycopg and libpq: a row's length, 0 when none is there yet, -1 at the end.
        length, view = get(1)
        if length > 0:
            yield bytes(view[:-1])
        elif length == 0:
            _wait(pgconn, tick)
        else:
            return


def _skip(pgconn: PGconn, tick: Callable[[], None]) -> None:
    for _ in _rows(pgconn, tick):
        continue


def _wait(pgconn: PGconn, tick: Callable[[], None]) -> None:
    """Wait for the server, then take what came. Raises `psycopg.OperationalError` when it left."""
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLIN)
    while not poll.poll(_TICK_MS):
        tick()
    pgconn.consume_input()


def _result(pgconn: PGconn, tick: Callable[[], None]) -> PGresult | None:
    pgconn.flush()
    while pgconn.is_busy():
        _wait(pgconn, tick)
    return pgconn.get_result()


def _drain(pgconn: PGconn, tick: Callable[[], None]) -> PGresult | None:
    """Take the remaining results; return the one that failed."""
    failed: PGresult | None = None
    while (result := _result(pgconn, tick)) is not None:
        if result.status == pq.ExecStatus.FATAL_ERROR:
            failed = result
        if result.status in (pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH):
            break
    return failed


def _error(result: PGresult | None) -> psycopg.Error:
    if result is None:
        return psycopg.OperationalError("the server closed the connection")
    return error_from_result(result)
