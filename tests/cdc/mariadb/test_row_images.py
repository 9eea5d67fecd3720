"""Logs whose row images have some columns only: what is absent, and what is read again (R6)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cdc.errors import PreflightFailed, SourceUnavailable
from cdc.mariadb.connection import Connection
from cdc.mariadb.position import Place
from cdc.mariadb.server import MariaDB
from fix_mariadb_capture import Database, MariaCapture
from schemas.change import Op

Make = Callable[..., MariaCapture]

TABLE = (
    "CREATE TABLE t (id int, k varchar(9) COLLATE utf8mb4_bin, n int DEFAULT 5, big blob, "
    "note varchar(9) NOT NULL DEFAULT 'abc', at timestamp(6) DEFAULT current_timestamp(6), "
    "twice int AS (n * 2) STORED, PRIMARY KEY (k, id))"
)


def same(maria: MariaCapture, shop: Database) -> bool:
    """Whether a consumer has the table's rows, over the columns that print alike."""
    rows = maria.model.tables.get(f"{shop.name}.t", {}).values()
    have = sorted(
        tuple(str(row[c] and row[c].decode()) for c in ("k", "n", "note")) for row in rows
    )
    found = shop.execute("SELECT k, n, note FROM t")
    return have == sorted(tuple(map(str, row)) for row in found)


@pytest.mark.parametrize(
    ("image", "lacks"),
    [
        (
            "MINIMAL",
            [{"big", "note", "at"}, {"n", "big", "at"}, {"n", "note", "at"}],
        ),
        ("NOBLOB", [{"big"}, {"big"}, set()]),
        ("FULL_NODUP", [set(), set(), set()]),
    ],
)
def test_what_an_update_leaves_alone_is_absent_and_a_create_is_whole(
    shop: Database, maria: MariaCapture, image: str, lacks: list[set[str]]
) -> None:
    shop.execute(TABLE, "INSERT INTO t (id, k, big) VALUES (1, 'a', 'x'), (2, 'b', 'y')")
    maria.until_read()
    shop.execute(
        f"SET SESSION binlog_row_image = '{image}'",
        "INSERT INTO t (id, k) VALUES (3, 'c')",
        "UPDATE t SET n = 7 WHERE id = 1",
        "UPDATE t SET note = 'z' WHERE id = 1",
        "UPDATE t SET big = 'large' WHERE id = 1",
        "UPDATE t SET id = 20 WHERE id = 2",
        "REPLACE INTO t (id, k, n) VALUES (3, 'c', 9)",
        "DELETE FROM t WHERE id = 3",
        "INSERT INTO t (id, k, n) VALUES (4, 'd', NULL)",
    )
    maria.until_caught_up()
    assert same(maria, shop)
    assert maria.absent("t", Op.UPDATE)[:3] == lacks
    assert maria.absent("t", Op.UPDATE)[3] == set()  # the key was changed: a delete and a create
    moved = [event for event in maria.events_of("t") if event.op is Op.UPDATE][3]
    assert moved.row()["big"] == b"\\x79"
    assert all(names == set() for names in maria.absent("t", Op.CREATE)[1:])


def test_a_create_whose_row_is_gone_stays_as_it_came_and_its_delete_follows(
    shop: Database, maria: MariaCapture
) -> None:
    shop.execute(TABLE)
    maria.until_read()
    shop.execute(
        "SET SESSION binlog_row_image = 'MINIMAL'",
        "INSERT INTO t (id, k) VALUES (1, 'a')",
        "DELETE FROM t WHERE id = 1",
    )
    maria.until_caught_up()
    [made, gone] = maria.events_of("t")
    assert (made.op, gone.op) == (Op.CREATE, Op.DELETE)
    assert maria.absent("t", Op.CREATE) == [{"n", "big", "note"}]
    assert gone.before is not None
    assert gone.before[:2] == (b"1", b"a")
    assert same(maria, shop)


def test_a_create_is_read_again_only_once_the_tables_show_it(
    shop: Database, maria: MariaCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log delivers a commit before other sessions see it: there would be no row yet."""
    shop.execute(TABLE)
    maria.until_read()
    ends: list[Place] = []
    log_end = MariaDB.log_end

    def late(self: MariaDB, connection: Connection) -> Place:
        ends.append(log_end(self, connection))
        return ends[-1] if len(ends) > 2 else Place(ends[-1].file, 4)

    monkeypatch.setattr(MariaDB, "log_end", late)
    shop.execute(
        "SET SESSION binlog_row_image = 'MINIMAL'", "INSERT INTO t (id, k) VALUES (1, 'a')"
    )
    maria.until_caught_up()
    assert len(ends) == 3
    assert maria.absent("t", Op.CREATE) == [set()]


def test_a_table_that_was_changed_meanwhile_is_looked_at_again(
    shop: Database, maria: MariaCapture
) -> None:
    shop.execute("CREATE TABLE t (id int PRIMARY KEY, n int DEFAULT 5, gone int DEFAULT 6)")
    maria.until_read()
    shop.execute("SET SESSION binlog_row_image = 'MINIMAL'", "INSERT INTO t (id) VALUES (1)")
    maria.until_caught_up()
    shop.execute("INSERT INTO t (id) VALUES (2)", "ALTER TABLE t DROP gone")
    with pytest.raises(SourceUnavailable, match="was changed just now"):
        maria.until_caught_up()
    maria.kill()
    maria.until_caught_up()
    assert maria.absent("t", Op.CREATE) == [set(), {"gone"}]


def test_a_create_that_cannot_be_looked_up_stops_it(shop: Database, make_maria: Make) -> None:
    shop.execute("CREATE TABLE t (a enum('x', 'y') PRIMARY KEY, b int NOT NULL DEFAULT 5)")
    first = make_maria(server_id=4801)
    second = make_maria(server_id=4802, key={f"{shop.name}.t": ["b"]})
    first.until_read()
    second.until_read()
    shop.execute("SET SESSION binlog_row_image = 'MINIMAL'", "INSERT INTO t (a) VALUES ('y')")
    for maria, told in ((first, "cannot be looked up"), (second, "without its key")):
        with pytest.raises(PreflightFailed, match=told) as found:
            maria.until_caught_up()
        assert "binlog_row_image = 'FULL'" in found.value.hint


def test_updates_and_deletes_of_a_table_without_a_key_are_whole(
    shop: Database, maria: MariaCapture
) -> None:
    shop.execute("CREATE TABLE t (a int, b int)", "INSERT INTO t VALUES (1, 1), (2, 2)")
    maria.until_read()
    shop.execute(
        "SET SESSION binlog_row_image = 'MINIMAL'",
        "UPDATE t SET b = 9 WHERE a = 1",
        "DELETE FROM t WHERE a = 2",
    )
    maria.until_caught_up()
    assert maria.rows_left("t") == {(b"1", b"9"): 1}
