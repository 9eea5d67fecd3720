"""One value, five texts: source, snapshot, streamed insert, streamed update, target. All equal.

Every type of `nasty_values` has a table of its own on a real server of three versions. The role
that captures has hostile settings, and so has the one that applies; ours are pinned over them (R9).

    source ── COPY as a role without settings ──────────────────────────────▶ expected
       ├──── COPY, pinned ─────▶ plan ─▶ Avro ─▶ fastavro ─▶ COPY ─▶ target ─▶ = expected
       └──── pgoutput, pinned ─▶ plan ─▶ Avro ─▶ fastavro ──────────────────▶ = expected
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg import sql

from cdc.connections.postgres import Login, connect, connect_replication
from cdc.decode.pgoutput import Commit, Relation, decode
from cdc.decode.pgtypes import TYPE_ROWS, column_type, type_row
from cdc.postgres.stream import HEADER_BYTES, Stream
from envelopes import cells_of, envelope_reader, read
from fidelity.grown_values import SMALL, grown
from nasty_values import EXTENSIONS, PREPARE, values_for
from schemas.change import ABSENT, Origin, Rows
from schemas.forms import copy_line
from schemas.plan import Plan, SourceName
from schemas.table import Column, TableSchema

DEADLINE_S = 30
MOVED = 100_000
HOSTILE = {
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "iso_8601",
    "TimeZone": "Asia/Kathmandu",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "xmloption": "document",
    "quote_all_identifiers": "on",
    "standard_conforming_strings": "off",
    "client_encoding": "LATIN1",
    "lc_monetary": "C.UTF-8",
    "search_path": "nowhere",
}
REFERENCE = (
    "SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC';"
    "SET bytea_output = 'hex'; SET extra_float_digits = 3; SET lc_monetary = 'C';"
    "SET xmloption = 'content'; SET quote_all_identifiers = off; SET client_encoding = 'UTF8';"
    "SET search_path = '';"
)
"""The settings design R9 names, written out again: the module under test may not define them.

search_path is the role's own: operators of key types outside pg_catalog are found through it.
Here no role's shows what lies in public, so what prints a name prints it whole.
"""


class Sample(NamedTuple):
    """One table of one type: what was captured of it, row by row in order of id."""

    kind: str
    schema: TableSchema
    expected: list[bytes]
    snapshot: list[bytes]
    inserted: list[bytes]
    updated: list[bytes]
    target: list[bytes]


class Pair(NamedTuple):
    """A source and a target database on one server, and the hostile role's way to each."""

    version: int
    source: str
    target: str
    hostile_source: Login
    hostile_target: Login


def lines(connection: psycopg.Connection[Any], table: str) -> list[bytes]:
    query = f"COPY (SELECT id, v FROM public.{table} ORDER BY id) TO STDOUT"
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        return b"".join(bytes(part) for part in copy).split(b"\n")[:-1]


def reference(url: str) -> psycopg.Connection[Any]:
    connection = psycopg.connect(url, autocommit=True)
    connection.execute(REFERENCE)
    return connection


def prepare(url: str) -> None:
    with reference(url) as connection:
        for extension in EXTENSIONS:
            connection.execute(f"CREATE EXTENSION {extension} SCHEMA public")
        connection.execute(PREPARE)
        connection.execute("CREATE TABLE public.fidelity ()")


@pytest.fixture(scope="module", params=[14, 16, 18])
def pair(request: pytest.FixtureRequest, postgres_server: Callable[[int], Any]) -> Iterator[Pair]:
    server = postgres_server(request.param)
    names = ("fidelity_source", "fidelity_target")
    urls = [server.create_database(name) for name in names]
    with reference(server.url) as admin:
        admin.execute("CREATE ROLE hostile LOGIN SUPERUSER REPLICATION PASSWORD 'secret'")
        for name, value in HOSTILE.items():
            setting = sql.SQL("ALTER ROLE hostile SET {} = {}")
            values = [sql.Literal(part.strip()) for part in value.split(",")]
            admin.execute(setting.format(sql.Identifier(name), sql.SQL(", ").join(values)))
        for url in urls:
            prepare(url)
        logins = [Login(server.url_of(name, "hostile", "secret"), "fidelity") for name in names]
        yield Pair(request.param, *urls, *logins)
        for name in names:
            server.drop_database(name)
        admin.execute("DROP ROLE hostile")


def make_tables(url: str, kinds: list[tuple[str, tuple[str, ...]]]) -> None:
    """One table per type, empty, whole old rows in the log."""
    with reference(url) as connection:
        for place, (kind, _) in enumerate(kinds):
            connection.execute(f"CREATE TABLE public.f{place} (id int PRIMARY KEY, v {kind})")
            connection.execute(f"ALTER TABLE public.f{place} REPLICA IDENTITY FULL")
        connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        connection.execute("SELECT pg_create_logical_replication_slot('fidelity', 'pgoutput')")


def fill_tables(url: str, kinds: list[tuple[str, tuple[str, ...]]]) -> None:
    """All inserts in one transaction, an update of every row in the next."""
    with reference(url) as connection:
        with connection.transaction():
            for place, (kind, values) in enumerate(kinds):
                for number, value in enumerate((*values, None)):
                    statement = f"INSERT INTO public.f{place} VALUES (%s, %s)"
                    connection.execute(statement, (number, value))
                more = grown(place, kind, len(values) + 1)
                if more:
                    connection.execute(more)
        with connection.transaction():
            for place in range(len(kinds)):
                connection.execute(f"UPDATE public.f{place} SET id = id + {MOVED}")


def streamed(login: Login, commits: int) -> list[bytes]:
    """Return the slot's messages up to the given number of commits that hold rows."""
    pgconn = connect_replication(login)
    stream = Stream(pgconn, login)
    stream.start("fidelity", ["everything"], 0)
    found: list[bytes] = []
    seen, deadline = 0, time.monotonic() + DEADLINE_S
    while seen < commits and time.monotonic() < deadline:
        for data in stream.pull(10_000, 1 << 30):
            if data[:1] == b"w":
                found.append(data[HEADER_BYTES:])
                seen += data[HEADER_BYTES : HEADER_BYTES + 1] == b"C"
        stream.wait(0.1)
    pgconn.finish()
    assert seen == commits
    return found


def captured_stream(messages: list[bytes]) -> tuple[dict[str, Relation], dict[str, list[bytes]]]:
    """Return each table's relation and its row messages with the relation id cut out."""
    relations: dict[int, Relation] = {}
    rows: dict[str, list[bytes]] = {}
    for message in messages:
        if message[:1] in (b"I", b"U"):
            relation = relations[int.from_bytes(message[1:5], "big")]
            rows.setdefault(relation.table.name, []).append(message[:1] + message[5:])
            continue
        decoded = decode(message)
        if isinstance(decoded, Relation):
            relations[decoded.oid] = decoded
        assert not isinstance(decoded, Commit) or relations
    return {relation.table.name: relation for relation in relations.values()}, rows


def schema_of(connection: psycopg.Connection[Any], relation: Relation) -> TableSchema:
    types = {row[0]: type_row(row) for row in connection.execute(TYPE_ROWS)}
    columns = [Column(c.name, column_type(c.oid, c.typmod, types)) for c in relation.columns]
    return TableSchema(relation.table, tuple(columns), ("id",))


def through_avro(schema: TableSchema, form: Any, items: list[bytes]) -> list[bytes]:
    """Return the rows as COPY lines after plan, Avro and fastavro."""
    plan = Plan(schema, schema, SourceName("0", "postgres", "fidelity"), (1, 2))
    rows = Rows(schema, form, Origin(1, 1, 0), items, range(len(items)))
    reader = envelope_reader(schema)
    out = []
    for record in plan.records(rows, 0):
        if record.value is None:
            continue
        cells = cells_of(schema, read(reader, record.value), "after")
        if cells is not None:
            out.append(copy_line([cell for cell in cells if cell is not ABSENT])[:-1])
    return out


def applied(pair: Pair, schema: TableSchema, rows: list[bytes]) -> list[bytes]:
    """Write COPY lines into a table made from the schema alone, and read them as expected was."""
    name = schema.table.name
    native = schema.column("v").type.native.removeprefix("postgres ")
    with connect(pair.hostile_target) as connection:
        create = f"CREATE TABLE public.{name} (id int PRIMARY KEY, v {native})"
        connection.execute(create.encode())
        with (
            connection.cursor() as cursor,
            cursor.copy(f"COPY public.{name} FROM STDIN".encode()) as copy,
        ):
            for row in rows:
                copy.write(row + b"\n")
    with reference(pair.target) as connection:
        return lines(connection, name)


@pytest.fixture(scope="module")
def samples(pair: Pair) -> list[Sample]:
    kinds = values_for(pair.version)
    make_tables(pair.source, kinds)
    fill_tables(pair.source, kinds)
    relations, rows = captured_stream(streamed(pair.hostile_source, 2))
    found = []
    with reference(pair.source) as plain, connect(pair.hostile_source) as pinned:
        for place, (kind, _) in enumerate(kinds):
            name = f"f{place}"
            schema = schema_of(pinned, relations[name])
            snapshot = lines(pinned, name)
            inserts = [row for row in rows[name] if row[:1] == b"I"]
            updates = [row for row in rows[name] if row[:1] == b"U"]
            found.append(
                Sample(
                    kind,
                    schema,
                    lines(plain, name),
                    through_avro(schema, "copy", snapshot),
                    through_avro(schema, "pgoutput", inserts),
                    through_avro(schema, "pgoutput", updates),
                    applied(pair, schema, through_avro(schema, "copy", snapshot)),
                )
            )
    return found


def renumbered(line: bytes) -> bytes:
    """Return an inserted row as its update made it: every id grew."""
    identity, _, value = line.partition(b"\t")
    return b"%d\t%s" % (int(identity) + MOVED, value)


def differing(samples: list[Sample], leg: str) -> list[str]:
    found = []
    for sample in samples:
        ours: list[bytes] = getattr(sample, leg)
        if leg == "inserted":
            ours = [renumbered(line) for line in ours]
        for expected, line in zip(sample.expected, ours, strict=True):
            if expected != line:
                found.append(f"{sample.kind}: {expected[:80]!r} became {line[:80]!r}")
    return found


@pytest.mark.parametrize("leg", ["snapshot", "inserted", "updated", "target"])
def test_every_value_keeps_its_text_on_every_leg(samples: list[Sample], leg: str) -> None:
    assert differing(samples, leg) == []


def test_at_least_ninety_values_of_every_type_that_has_them_are_tried(
    samples: list[Sample],
) -> None:
    tried = {
        sample.kind: len({line.partition(b"\t")[2] for line in sample.expected})
        for sample in samples
        if sample.kind not in SMALL
    }
    assert len(tried) >= 90
    assert {kind: count for kind, count in tried.items() if count < 90} == {}
