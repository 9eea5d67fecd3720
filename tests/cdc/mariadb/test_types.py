"""Every type with its limits: read in a snapshot and in the log it is the same, and it is right."""

from __future__ import annotations

from contextlib import closing

import pytest
from pymysql.cursors import SSCursor

from cdc.connections.mariadb import Login
from cdc.decode.charsets import CODECS, decoder
from cdc.decode.mysqltypes import KINDS
from cdc.mariadb import connection as reading
from cdc.mariadb.catalog import Catalog
from cdc.mariadb.results import lines
from cdc.mariadb.selecting import asked, reader
from cdc.mariadb.server import MariaDB
from fix_mariadb_capture import Database, MariaCapture
from schemas.executor import SWITCH, compiled
from schemas.forms import copy_line
from schemas.plan import Message, Plan, SourceName, append
from schemas.table import TableId

VALUES: dict[str, dict[str, str | bytes]] = {
    "tinyint": {"-128": b"-128", "127": b"127"},
    "tinyint unsigned zerofill": {"0": b"0", "255": b"255"},
    "tinyint(1)": {"1": b"1"},
    "smallint": {"-32768": b"-32768"},
    "smallint unsigned": {"65535": b"65535"},
    "mediumint": {"-8388608": b"-8388608"},
    "mediumint unsigned": {"16777215": b"16777215"},
    "int": {"-2147483648": b"-2147483648"},
    "int unsigned": {"4294967295": b"4294967295"},
    "bigint": {"-9223372036854775808": b"-9223372036854775808"},
    "bigint unsigned": {"18446744073709551615": b"18446744073709551615"},
    "float": {"1.1": b"1.1", "-3.402823466e38": b"-3.4028235e+38", "16777217": b"1.6777216e+07"},
    "double": {"0.1": b"0.1", "2.2250738585072014e-308": b"2.2250738585072014e-308"},
    "decimal(65,30)": {
        "-" + "9" * 35 + "." + "9" * 30: b"-" + b"9" * 35 + b"." + b"9" * 30,
        "0.000000000000000000000000000001": b"0." + b"0" * 29 + b"1",
    },
    "decimal(3,3)": {"-0.001": b"-0.001"},
    "decimal(10,0) zerofill": {"42": b"42"},
    "bit(1)": {"1": b"1"},
    "bit(10)": {"b'1000000001'": b"1000000001"},
    "bit(64)": {"18446744073709551615": b"1" * 64},
    "year": {"0": b"0", "2155": b"2155", "1901": b"1901"},
    "date": {
        "'0000-00-00'": b"0000-00-00",
        "'2024-00-00'": b"2024-00-00",
        "'2024-02-30'": b"2024-02-30",
        "'9999-12-31'": b"9999-12-31",
    },
    "time": {"'-838:59:59'": b"-838:59:59", "'838:59:59'": b"838:59:59", "'00:00:00'": b"00:00:00"},
    "time(2)": {"'-00:00:00.01'": b"-00:00:00.01", "'-01:02:03.50'": b"-01:02:03.5"},
    "time(4)": {"'-12:34:56.7801'": b"-12:34:56.7801"},
    "time(6)": {"'-838:59:58.999999'": b"-838:59:58.999999", "'24:00:00'": b"24:00:00"},
    "datetime": {
        "'0000-00-00 00:00:00'": b"0000-00-00 00:00:00",
        "'1000-01-01'": b"1000-01-01 00:00:00",
    },
    "datetime(3)": {"'2024-02-29 12:00:00.120'": b"2024-02-29 12:00:00.12"},
    "datetime(6)": {"'9999-12-31 23:59:59.999999'": b"9999-12-31 23:59:59.999999"},
    "timestamp": {
        "'0000-00-00 00:00:00'": b"0000-00-00 00:00:00+00",
        "'1970-01-01 00:00:01'": b"1970-01-01 00:00:01+00",
    },
    "timestamp(1)": {"'2038-01-19 03:14:07.9'": b"2038-01-19 03:14:07.9+00"},
    "timestamp(6)": {"'2024-03-31 02:30:00.000001'": b"2024-03-31 02:30:00.000001+00"},
    "char(10) charset latin1": {"'n\u00e4he \u20ac  '": "n\u00e4he \u20ac".encode(), "''": b""},
    "char(100) charset utf8mb4": {"'\U0001f600'": "\U0001f600".encode()},
    "varchar(20) charset utf8mb3": {"'trailing  '": b"trailing  "},
    "varchar(300)": {"REPEAT('\u00fc', 300)": "\u00fc".encode() * 300},
    "varchar(20) charset ucs2": {"'\u4f60 \u00df'": "\u4f60 \u00df".encode()},
    "varchar(20) charset koi8r": {"'\u0439'": "\u0439".encode()},
    "tinytext": {"'x'": b"x"},
    "text charset latin1": {"'\u20ac'": "\u20ac".encode()},
    "mediumtext": {"REPEAT('y', 70000)": b"y" * 70_000},
    "longtext": {"'tab\\tline\\nback\\\\slash'": b"tab\tline\nback\\slash"},
    "binary(4)": {"X'0100'": rb"\x01000000", "X'00000000'": rb"\x00000000"},
    "binary(255)": {"X'FF'": rb"\xff" + b"00" * 254},
    "varbinary(4)": {"X'0100'": rb"\x0100", "''": rb"\x"},
    "tinyblob": {"X'00'": rb"\x00"},
    "blob": {"X'5C'": rb"\x5c"},
    "mediumblob": {"X'01'": rb"\x01"},
    "longblob": {"REPEAT(X'FE', 70000)": rb"\x" + b"fe" * 70_000},
    "enum('a','it''s','\u00e9')": {"'it''s'": b"it's", "'\u00e9'": "\u00e9".encode(), "0": b""},
    "enum('\u00e9') charset latin1": {"1": "\u00e9".encode()},
    "set('x','y','z')": {"'x,z'": b"x,z", "''": b""},
    "json": {"'{\"a\": [1, 2.50]}'": b'{"a": [1, 2.50]}'},
    "uuid": {"'123e4567-e89b-12d3-a456-426655440000'": b"123e4567-e89b-12d3-a456-426655440000"},
    "inet4": {"'1.2.3.0'": b"1.2.3.0"},
    "inet6": {
        "'::'": b"::",
        "'::1'": b"::1",
        "'::ffff:1.2.3.4'": b"::ffff:1.2.3.4",
        "'::1.2.3.4'": b"::1.2.3.4",
        "'2001:db8::a:0:0:1'": b"2001:db8::a:0:0:1",
        "'1:0:0:2:0:0:0:3'": b"1:0:0:2::3",
    },
    "point": {"POINT(1, 2)": rb"\x000000000101000000000000000000f03f0000000000000040"},
    "geometry": {"ST_GeomFromText('POINT(0 0)', 4326)": rb"\xe61000000101000000" + b"00" * 16},
    **{
        name: {f"ST_GeomFromText('{text}')": b""}
        for name, text in {
            "linestring": "LINESTRING(0 0, 1 1)",
            "polygon": "POLYGON((0 0, 1 0, 1 1, 0 0))",
            "multipoint": "MULTIPOINT(0 0, 1 1)",
            "multilinestring": "MULTILINESTRING((0 0, 1 1))",
            "multipolygon": "MULTIPOLYGON(((0 0, 1 0, 1 1, 0 0)))",
            "geometrycollection": "GEOMETRYCOLLECTION(POINT(0 0))",
        }.items()
    },
}


def names() -> list[tuple[str, str]]:
    return [(f"c{place}", kind) for place, kind in enumerate(VALUES)]


def make(shop: Database) -> None:
    shop.execute("SET sql_mode = 'ALLOW_INVALID_DATES'", "SET time_zone = '+00:00'")
    columns = ", ".join(
        f"{name} {kind}{' NULL' if kind.startswith('timestamp') else ''}" for name, kind in names()
    )
    shop.execute(
        f"CREATE TABLE every (id int PRIMARY KEY, {columns}) CHARSET utf8mb4 ROW_FORMAT=DYNAMIC"
    )


def fill(shop: Database, first: int) -> None:
    shop.execute(f"INSERT INTO every (id) VALUES ({first})")
    for name, kind in names():
        for place, value in enumerate(VALUES[kind], first + 1):
            shop.execute(
                f"INSERT INTO every (id, {name}) VALUES ({place}, {value}) "
                f"ON DUPLICATE KEY UPDATE {name} = {value}"
            )


@pytest.mark.parametrize("row_metadata", ["FULL", "MINIMAL", "NO_LOG"], indirect=True)
@pytest.mark.usefixtures("row_metadata")
def test_every_type_is_the_same_in_a_snapshot_and_in_the_log(
    shop: Database, maria: MariaCapture
) -> None:
    make(shop)
    fill(shop, 0)
    maria.until_read()
    fill(shop, 100)
    maria.until_caught_up()
    rows = {int(key[0]): row for key, row in maria.model.tables[f"{shop.name}.every"].items()}
    snapshot = {event.row()["id"] for event in maria.events if event.snapshot}
    assert b"0" in snapshot
    assert b"100" not in snapshot
    for name, kind in names():
        wanted = [None, *VALUES[kind].values()]
        for place, value in enumerate(wanted):
            assert rows[place][name] == rows[100 + place][name], kind
            if value != b"":
                assert rows[place][name] == value, kind
            elif kind not in KINDS:
                assert rows[place][name] == b"", kind


def test_both_executors_write_the_same_records(shop: Database, maria: MariaCapture) -> None:
    assert compiled("schemas._plan") is not None
    make(shop)
    maria.until_read()
    fill(shop, 0)
    shop.execute("UPDATE every SET c0 = 1", "UPDATE every SET id = id + 50", "DELETE FROM every")
    maria.until_caught_up()
    schema = maria.events[0].schema
    name = SourceName("1", "mariadb", "shop", shop.name)
    plan = Plan(schema, schema, name, (1, 2))
    for rows in maria.runs:
        ours: list[Message] = []
        theirs: list[Message] = []
        assert plan.write(rows, 0, ours) == append(plan.records(rows, 0), theirs)
        assert ours == theirs


def test_both_executors_read_the_same_rows(shop: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    make(shop)
    fill(shop, 0)
    login = Login(shop.url, "test")
    with closing(reading.connect(login)) as connection:
        facts = Catalog(connection, login, MariaDB()).find(TableId(shop.name, "every"))
        assert facts is not None
        columns = [found.column for found in facts.columns]
        query = f"SELECT {asked(columns)} FROM every ORDER BY id"
        texts = reader(columns)
        wanted = [copy_line(texts(row))[:-1] for row in reading.rows(connection, query)]
        for executor in ("plain", "compiled"):
            monkeypatch.setenv(SWITCH, executor)
            cursor = SSCursor(connection)
            cursor.execute(query)
            assert [line for run in lines(cursor, columns) for line in run] == wanted


def test_every_type_of_the_table_of_rules_is_tried() -> None:
    tried = {kind.partition("(")[0].partition(" ")[0] for kind in VALUES}
    assert tried == set(KINDS) - {"vector", "geomcollection"}  # MySQL's alone


def test_single_byte_character_sets_are_read_as_the_server_reads_them(shop: Database) -> None:
    for charset in sorted({*CODECS, "latin1"} - {"ucs2", "utf16", "utf16le", "utf32"}):
        query = (
            f"SELECT seq, HEX(CONVERT(CHAR(seq USING {charset}) USING utf8mb4)) FROM seq_0_to_255"
        )
        decode = decoder(charset)
        assert decode is not None
        for byte, found in shop.execute(query):
            if found not in ("3F", "EFBFBD", "", None) or byte == 0x3F:
                assert decode(bytes([byte])).hex().upper() == found, (charset, hex(byte))
