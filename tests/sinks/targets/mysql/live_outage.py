"""A MySQL server that dies and comes back under the sink. Run by `make mysql`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from cdc.connections.mariadb import fetch
from cdc.errors import TargetUnavailable
from fix_mariadb import CONTEXT
from mysql_server import WRITER, RealMySQL
from sinks.target import Mapped, Step
from sinks.targets.mysql import Config, MariaDBTarget, create
from sinks.testing import ITEMS, PLACE, cursor, span, upsert

ONE, TWO = (b"1", b"pen", b"1.50"), (b"2", b"cup", b"2.00")


@pytest.fixture
def own() -> Iterator[RealMySQL]:
    """A server that a test may harm."""
    with RealMySQL() as made:
        made.create_database("shop")
        yield made


@pytest.fixture
def target(own: RealMySQL) -> Iterator[MariaDBTarget]:
    made = create(CONTEXT, Config.model_validate({"url": own.url_of("shop", WRITER), "tables": []}))
    yield made
    made.close()


def reopened(target: MariaDBTarget, server: RealMySQL) -> None:
    """Start the server again, and go on there as a worker does."""
    server.start()
    target.open()
    target.prepare(ITEMS)


def test_a_server_killed_inside_a_transaction_or_behind_one_has_all_of_it_or_nothing(
    own: RealMySQL, target: MariaDBTarget
) -> None:
    def dying() -> Iterator[Step]:
        yield [Mapped(ITEMS, [TWO], [(b"1",)])]
        own.kill()
        yield from upsert((b"3", b"lid", None))

    target.open()
    target.prepare(ITEMS)
    target.apply(upsert(ONE), [span(None, 5)])
    own.kill()
    with pytest.raises(TargetUnavailable):
        target.cursors([PLACE])
    reopened(target, own)
    assert target.cursors([PLACE]) == {PLACE: cursor(5)}
    with pytest.raises(TargetUnavailable):
        target.apply(dying(), [span(5, 9)])
    reopened(target, own)
    assert target.cursors([PLACE]) == {PLACE: cursor(5)}
    target.apply([[Mapped(ITEMS, [TWO], [(b"1",)])]], [span(5, 9)])
    with closing(own.connect("shop")) as connection:
        assert fetch(connection, "SELECT id FROM items") == [(2,)]
