"""Composites: their text from log and snapshot, the names of their parts, and paths into them."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import ConfigError
from fix_capture import Capture, Event
from mapped import TOPIC, reader, through
from schemas.avro import envelope_schema, table_schema
from schemas.change import Change, Op
from schemas.table import Part, Type
from sinks.composite import split
from sinks.decode import POISON

TYPES = """
CREATE TYPE place AS (lat numeric(9,6), "is Home" boolean);
CREATE TYPE address AS (city text, tags text[], spot place, since date);
CREATE DOMAIN home AS address;
CREATE TABLE t (id int PRIMARY KEY, at address, other home, many address[]);
INSERT INTO t VALUES (1, ROW('a,"b" (c) \\d' || E'\\n', '{x,"y z"}', ROW(52.5, true), 'infinity')),
    (2, ROW('', NULL, NULL, NULL)), (3, NULL);
"""
PATHS = {
    "city": "(at).city",
    "tags": "(at).tags",
    "spot": "(at).spot",
    "spot.lat": "((at).spot).lat",
    "spot.is Home": '((at).spot)."is Home"',
    "since": "(at).since",
}


def mapping() -> dict[str, Any]:
    fields: dict[str, Any] = {path: {"path": f"at.{path}"} for path in PATHS}
    return {"fields": {"id": "id", **fields, "home": {"path": "other.spot.lat"}}}


def expected(db: psycopg.Connection[Any]) -> dict[bytes, list[bytes | None]]:
    """What the server itself says lies at each path, as text."""
    asked = ", ".join(f"{sql}::text" for sql in PATHS.values())
    rows = db.execute(f"SELECT id, {asked}, ((other).spot).lat::text FROM t".encode()).fetchall()
    return {
        str(row[0]).encode(): [None if cell is None else cell.encode() for cell in row[1:]]
        for row in rows
    }


def found(events: list[Event]) -> dict[bytes, list[Any]]:
    """What the mapping makes of each row."""
    out = {}
    for event in events:
        [made] = through(event.schema, Change(Op.CREATE, None, event.after), mapping())
        assert made.error is None
        key, *cells = made.row or []
        out[bytes(key)] = [{b"t": b"true", b"f": b"false"}.get(cell, cell) for cell in cells]
    return out


def test_paths_into_composites_give_what_the_server_gives(
    capture: Capture, db: psycopg.Connection[Any]
) -> None:
    db.execute(TYPES)
    capture.until_snapshot_done()
    db.execute("INSERT INTO t (id, at, other) SELECT id + 10, at, at FROM t")
    capture.until_caught_up(db)
    wanted = expected(db)
    assert found(capture.of("public.t")) == wanted
    assert wanted[b"11"][3:] == [b"52.500000", b"true", b"infinity", b"52.500000"]
    schema = capture.of("public.t")[0].schema
    assert table_schema(envelope_schema(schema, TOPIC)) == schema
    spot = schema.column("at").parts[2]
    assert spot.parts[0] == Part("lat", Type("decimal", "postgres numeric(9,6)", 9, 6))
    assert schema.column("at").type == Type("text", "postgres address")
    assert schema.column("other").parts == schema.column("at").parts
    assert schema.column("many").parts == ()
    flat = {"flatten": {"at": ["city", "spot.lat"]}, "drop": ["m*", "other"]}
    names = [column.name for column in reader(schema, flat).schema.columns]
    assert names == ["id", "at_city", "at_spot_lat"]
    kinds = {c.name: c.type for c in reader(schema, mapping()).schema.columns}
    assert kinds["since"] == Type("date", "postgres date")
    assert kinds["spot.lat"].logical == "decimal"
    refuses_wrong_paths(capture.of("public.t")[0])


RENAMED = "ALTER TYPE place RENAME ATTRIBUTE lat TO north"
REPLACED = 'ALTER TYPE place DROP ATTRIBUTE "is Home", ADD ATTRIBUTE above int'


@pytest.mark.parametrize(
    ("statement", "wanted", "away"),
    [
        (RENAMED, ["north", "is Home"], False),
        (REPLACED, ["lat", "above"], False),
        (REPLACED, ["lat", "above"], True),
    ],
    ids=["another name", "another part in its place", "while nobody watched"],
)
def test_parts_of_an_altered_type_are_those_of_the_rows_behind_it(
    capture: Capture, db: psycopg.Connection[Any], statement: str, wanted: list[str], *, away: bool
) -> None:
    db.execute(TYPES)
    capture.until_snapshot_done()
    db.execute("INSERT INTO t (id, at) VALUES (11, ROW('x', NULL, ROW(1, true), NULL))")
    capture.until_caught_up(db)
    if away:
        capture.kill()
    db.execute(statement)
    db.execute("INSERT INTO t (id) VALUES (12)")
    capture.until_caught_up(db)
    capture.until(lambda: again(capture, 11), "the table is read again")
    newest = {event.row()["id"]: event for event in capture.of("public.t")}
    for event in newest.values():
        spot = event.schema.column("at").parts[2]
        assert [part.name for part in spot.parts] == wanted
    assert sorted(capture.model.rows("public.t")) == stored(db)


def again(capture: Capture, key: int) -> bool:
    """Tell whether the row was read by a snapshot behind the stream's own."""
    read = [event.snapshot for event in capture.of("public.t") if event.row()["id"] == b"%d" % key]
    return read[-1]


def stored(db: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    rows = db.execute("SELECT id::text, at::text, other::text, many::text FROM t").fetchall()
    return sorted(tuple(None if c is None else c.encode() for c in row) for row in rows)


def refuses_wrong_paths(event: Event) -> None:
    for path, says in (("at.gone", "at has no part 'gone'"), ("at.city.x", "at.city has no part")):
        with pytest.raises(ConfigError, match=says):
            reader(event.schema, {"fields": {"id": "id", "x": {"path": path}}})
    after = (b"1", b"(a,b)", None, None)
    [torn] = through(event.schema, Change(Op.CREATE, None, after), mapping())
    assert torn.kind == POISON
    assert "a composite of 2 parts, where 4 have names" in str(torn.error)


def quoted(part: bytes | None) -> bytes:
    """As `record_out` writes a part (src/backend/utils/adt/rowtypes.c)."""
    if part is None:
        return b""
    if part and not set(part) & set(b'"\\(), \t\n\r\v\f'):
        return part
    return b'"' + part.replace(b"\\", b"\\\\").replace(b'"', b'""') + b'"'


@given(st.lists(st.none() | st.binary(), min_size=1))
def test_a_composite_is_split_as_it_was_written(parts: list[bytes | None]) -> None:
    assert split(b"(" + b",".join(map(quoted, parts)) + b")") == parts


@pytest.mark.parametrize("text", [b"", b"(", b")", b"(a", b"(a)b", b'("a)', b'(a"b)', b"[a]"])
def test_what_is_no_composite_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="not a composite"):
        split(text)
