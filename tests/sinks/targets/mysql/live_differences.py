"""What the MySQL target does otherwise than MariaDB's, on a real server. Run by `make mysql`."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from cdc.errors import DataError, PreflightFailed, SchemaIncompatible
from cdc.verify.readable import Piece, Wanted
from fix_mariadb import CONTEXT, Place
from schemas.change import ABSENT
from schemas.table import Column, TableId, TableSchema, Type
from sinks.target import Mapped, RowsRefused, Step
from sinks.testing import ITEMS, span, upsert

ID = Column("id", Type("int64"))
DOC = TableSchema(TableId("public", "things"), (ID, Column("v", Type("json"))), ("id",))
ONE, TWO = (b"1", b"pen", b"1.50"), (b"2", b"cup", None)


def test_the_server_is_a_real_mysql_that_keeps_transactions_by_id(maria_place: Place) -> None:
    [(version, mode, strict)] = maria_place.query(
        "SELECT VERSION(), @@gtid_mode, @@enforce_gtid_consistency"
    )
    assert "MariaDB" not in version
    assert (mode, strict) == ("ON", "ON")


def test_a_json_column_is_filled_only_where_the_mapping_says_so(maria_place: Place) -> None:
    maria_place.query("CREATE TABLE things (id bigint PRIMARY KEY, v json)")
    target = maria_place.open()
    with pytest.raises(SchemaIncompatible, match="would not keep a json") as caught:
        target.prepare(DOC)
    assert "as:" in caught.value.hint
    asked = msgspec.structs.replace(DOC, cast=("v",))
    target.prepare(asked)
    rows = [(b"1", b'{"b": 1.10, "a": "\xc3\xa4\\n"}'), (b"2", None), (b"3", b'"x"')]
    target.apply(upsert(*rows, schema=asked), [span(None, 1)])
    target.apply([[Mapped(asked, [], [], lines=[b'4\t{"a": "\\\\\\\\n\'"}'])]], [span(1, 2)])
    found = maria_place.query("SELECT id, v->>'$.a', v->'$.b' FROM things ORDER BY id")
    assert found == [(1, "ä\n", "1.1"), (2, None, None), (3, None, None), (4, "\\n'", None)]
    with pytest.raises(DataError, match="Invalid JSON text"):
        target.apply(upsert((b"5", b"{"), schema=asked), [span(2, 3)])


def test_a_uuid_is_kept_in_small_letters_and_alone_or_in_a_key(maria_place: Place) -> None:
    what, name = Column("what", Type("uuid")), Column("name", Type("string"))
    schema = TableSchema(TableId("public", "things"), (what, name), ("what", "name"))
    target = maria_place.open(schema)
    key = (b"0E37DF36-F698-11E6-8DD4-CB9CED3DF976", b"a")
    small = (key[0].lower(), key[1])
    target.apply(upsert(key, small, schema=schema), [span(None, 1)])
    assert maria_place.rows(schema.table) == [small]
    target.apply([[Mapped(schema, [], [key])]], [span(1, 2)])
    assert maria_place.rows(schema.table) == []


def test_texts_of_the_usual_collation_are_no_key(maria_place: Place) -> None:
    maria_place.query("CREATE TABLE things (name varchar(20) PRIMARY KEY, v int)")
    schema = TableSchema(TableId("public", "things"), (Column("name", Type("string")),), ("name",))
    target = maria_place.open()
    with pytest.raises(PreflightFailed, match="utf8mb4_0900_ai_ci") as caught:
        target.prepare(schema)
    maria_place.query(caught.value.hint.rstrip(";"))
    target.prepare(schema)
    rows = [(b"Ann",), ("ánn".encode(),), (b"ann",), (b"ann ",)]
    target.apply(upsert(*rows, schema=schema), [span(None, 1)])
    assert maria_place.query("SELECT count(*) FROM things") == [(4,)]


def test_an_index_over_an_expression_never_makes_a_row_overwrite_another(
    maria_place: Place,
) -> None:
    maria_place.query(
        "CREATE DATABASE shop",
        "CREATE TABLE shop.items (id bigint PRIMARY KEY, name varchar(20), price decimal(12,2), "
        "UNIQUE KEY folded ((lower(name))))",
    )
    target = maria_place.open(ITEMS)
    target.apply(upsert(ONE), [span(None, 1)])
    with pytest.raises(DataError, match="Duplicate entry 'pen'"):
        target.apply(upsert((b"3", b"PEN", None)), [span(1, 2)])
    assert maria_place.rows(ITEMS.table) == [ONE]


def test_a_check_refuses_a_row(maria_place: Place) -> None:
    maria_place.query(
        "CREATE DATABASE shop",
        "CREATE TABLE shop.items (id bigint PRIMARY KEY, name text, price decimal(12,2), "
        "CONSTRAINT dear CHECK (price > 1))",
    )
    target = maria_place.open(ITEMS)
    refused = target.rehearse([[*upsert(ONE), *upsert((b"2", b"cup", b"0.50"))]])
    assert sorted(refused) == [1]
    assert "dear" in str(refused[1])


def test_more_refused_rows_than_the_server_keeps_warnings_are_named_in_the_next_try(
    maria_place: Place,
) -> None:
    maria_place.query(
        "CREATE DATABASE shop",
        "CREATE TABLE shop.items (id bigint PRIMARY KEY, name varchar(3), price decimal(12,2))",
    )
    target = maria_place.open(ITEMS)
    left = [b"%d\t%s\t\\N" % (n, b"long" if n % 2 else b"fit") for n in range(3000)]
    tries = 0
    while True:
        try:
            target.apply([[Mapped(ITEMS, [], [], lines=left)]], [span(None, 1)])
        except RowsRefused as error:
            named = {key[0] for _, key in error.rows}
            assert all(int(number or 0) % 2 for number in named)
            left = [line for line in left if line.partition(b"\t")[0] not in named]
            tries += 1
        else:
            break
    assert tries == 2
    assert maria_place.query("SELECT count(*) FROM shop.items") == [(1500,)]


def test_a_version_of_a_table_may_come_inside_a_transaction(maria_place: Place) -> None:
    """Staging is made there, which `enforce_gtid_consistency` allows of temporary tables."""
    shorter = TableSchema(ITEMS.table, ITEMS.columns[:2], ITEMS.key)
    target = maria_place.open(ITEMS)

    def steps() -> Iterator[Step]:
        yield from upsert(ONE)
        target.prepare(shorter)
        yield from upsert((b"1", ABSENT), (b"2", b"cup"), schema=shorter)

    target.apply(steps(), [span(None, 1)])
    assert maria_place.rows(ITEMS.table) == [ONE, TWO]


def test_a_connection_may_be_silent_outside_of_transactions_alone(maria_place: Place) -> None:
    [usual] = maria_place.query("SELECT @@GLOBAL.wait_timeout")
    target = maria_place.open(ITEMS)
    inside: list[tuple[int]] = []

    def limit() -> tuple[int]:
        connection = target._live()
        with connection.cursor() as cursor:
            cursor.execute("SELECT @@SESSION.wait_timeout")
            found: tuple[int] = cursor.fetchone()
        return found

    def steps() -> Iterator[Step]:
        yield from upsert(ONE)
        inside.append(limit())

    target.apply(steps(), [span(None, 1)])
    assert (inside, limit()) == ([(20,)], usual)
    with pytest.raises(DataError):
        target.apply(upsert((b"x", None, None)), [span(1, 2)])
    assert limit() == usual
    target.rehearse([upsert(ONE)])
    assert limit() == usual


def test_a_decimal_wider_than_the_server_has_is_a_text(maria_place: Place) -> None:
    wide = Column("v", Type("decimal", "", 40, 31))
    schema = TableSchema(TableId("public", "things"), (ID, wide), ("id",))
    target = maria_place.open(schema)
    text = b"123456789." + b"1" * 31
    target.apply(upsert((b"1", text), schema=schema), [span(None, 1)])
    assert maria_place.rows(schema.table) == [(b"1", text)]


def test_a_table_is_read_for_verification_as_rows_and_as_lines(maria_place: Place) -> None:
    kinds = {
        "id": Type("int64"), "ok": Type("boolean"), "at": Type("timestamptz"),
        "what": Type("uuid"), "doc": Type("json"), "photo": Type("bytes"),
        "price": Type("decimal", "", 9, 2), "score": Type("float64"),
    }  # fmt: skip
    columns = tuple(Column(name, kind) for name, kind in kinds.items())
    schema = TableSchema(TableId("public", "things"), columns, ("id",))
    row = (
        b"1", b"t", b"2026-01-31 08:00:00.5+00", b"0e37df36-f698-11e6-8dd4-cb9ced3df976",
        b'{"a": 1.10}', b"\\x00ff", b"1.50", b"0.1",
    )  # fmt: skip
    target = maria_place.open(schema)
    empty = (b"2", *(None,) * (len(row) - 1))
    target.apply(upsert(row, empty, schema=schema), [span(None, 1)])
    names, logical = tuple(kinds), tuple(kinds.values())
    for last in (len(row), len(row) - 1):
        wanted = Wanted(schema.table, names[:last], 1, logical[:last])
        readable = maria_place.module.readable(CONTEXT, maria_place.config, wanted)
        readable.open()
        assert readable.engine == "mysql"
        whole = Piece()
        assert len(list(readable.rows(whole))) == len(readable.lines(whole)) == 2
        assert readable.lines(Piece((b"1",), (b"2",)))[0].startswith(b"2\t\\N")
        [found] = readable.find([(b"1",)])
        readable.close()
    assert found == (*row[:1], b"1", b"2026-01-31 08:00:00.5", *row[3:7])
