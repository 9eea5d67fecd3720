"""XA transactions: rows leave at XA COMMIT and no sooner, whatever lies between it and PREPARE."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cdc.local import LocalMariaDB
from fix_mariadb_capture import Database, MariaCapture
from xa_stories import TABLE, XaStories, end, prepare, streams_what_was_prepared_before

Make = Callable[..., MariaCapture]


@pytest.fixture
def server(mariadb: LocalMariaDB) -> LocalMariaDB:
    return mariadb


@pytest.fixture
def begun(shop: Database, maria: MariaCapture) -> MariaCapture:
    """A source that has read what was there of a table, nothing."""
    shop.execute(TABLE)
    maria.until_read()
    maria.until_caught_up()
    return maria


class TestMariaDB(XaStories):
    pass


def test_a_snapshot_waits_for_what_was_prepared_before_the_source_began(
    shop: Database, maria: MariaCapture, mariadb: LocalMariaDB
) -> None:
    shop.execute(TABLE, "INSERT INTO t VALUES (1, 1)")
    prepare(mariadb, shop, "early", "UPDATE t SET n = 2", "INSERT INTO t VALUES (2, 2)")
    maria.until(lambda: maria.position is not None, "a position")
    maria.until(lambda: "X'6561726c79',X'',1" in maria.said(), "the reason")
    assert not maria.events
    end(maria, "XA COMMIT 'early'")
    maria.until_read()
    maria.until_caught_up()
    assert maria.same("t", "id, n")


def test_a_stream_alone_has_what_was_prepared_before_it_began(
    shop: Database, make_maria: Make, mariadb: LocalMariaDB
) -> None:
    streams_what_was_prepared_before(make_maria(snapshot="never"), mariadb, shop)
