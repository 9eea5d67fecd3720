"""Every type through the whole product: snapshot, stream, Kafka, registry, sink, target.

Both databases have hostile defaults. The rows of a table that were there before the source came
are read by the snapshot, updated in the stream (so that large values are absent there), and
others are inserted in the stream; then source and target print the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from cdc.errors import CdcError
from cdc.sources.postgres import Config, create
from cdc.worker import SourceJob, run_source
from fix_pipeline import Pipeline, wait_until
from fix_sink import Sink
from nasty_values import EXTENSIONS, PREPARE, values_for

VERSION = 18
DEADLINE_S = 120.0
LARGEST = 200_000
"""Bytes of a value, below the broker's default limit of a message; larger ones: test_fidelity."""

LONGEST_KEY = 500
STREAMED = 1_000
HOSTILE = (
    "SET DateStyle = 'SQL, DMY'",
    "SET IntervalStyle = 'iso_8601'",
    "SET TimeZone = 'Asia/Kathmandu'",
    "SET bytea_output = 'escape'",
    "SET extra_float_digits = -15",
    "SET xmloption = 'document'",
    "SET quote_all_identifiers = on",
)
REFERENCE = (
    "SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC';"
    "SET bytea_output = 'hex'; SET extra_float_digits = 3; SET quote_all_identifiers = off;"
    "SET xmloption = 'content'"
)


class Quiet:
    """Control and reporter of a worker nobody speaks to; remembers what went wrong."""

    def __init__(self) -> None:
        self.errors: list[CdcError] = []

    def poll(self) -> list[Any]:
        return []

    def rewind(self) -> None:
        """Nothing was delivered."""

    def acknowledge(self) -> None:
        """Nothing was delivered."""

    def published(self, committed: object) -> None:
        """Nobody counts."""

    def beat(self, _status: object, error: CdcError | None) -> None:
        if error is not None:
            self.errors.append(error)


class Source:
    """`run_source` on a real database, in a thread of the test."""

    def __init__(self, pipeline: Pipeline, url: str, **options: Any) -> None:
        known = {"url": url, "tables": ["public.t[0-9]*"], "heartbeat": 1}
        config = Config.model_validate({**known, **options})
        self.quiet = Quiet()
        self._over = threading.Event()
        job = SourceJob(
            source=lambda: create(pipeline.context, config),
            publisher=pipeline.publisher,
            control=self.quiet,
            reporter=self.quiet,
            stop=self._over.is_set,
            back_off=lambda _attempt: 0.1,
        )
        self._thread = threading.Thread(target=self._run, args=(job,))
        self._thread.start()

    def _run(self, job: SourceJob) -> None:
        try:
            run_source(job)
        except CdcError as error:
            self.quiet.errors.append(error)

    def end(self) -> None:
        self._over.set()
        self._thread.join(30)
        assert not self._thread.is_alive(), "the source does not stop"


def connected(url: str) -> psycopg.Connection[Any]:
    connection = psycopg.connect(url, autocommit=True)
    connection.execute(REFERENCE)
    return connection


def prepare(url: str) -> None:
    with connected(url) as connection:
        for extension in EXTENSIONS:
            connection.execute(f"CREATE EXTENSION {extension} SCHEMA public")
        connection.execute(PREPARE)
        connection.execute("CREATE TABLE public.fidelity ()")
        for setting in HOSTILE:
            connection.execute(f'ALTER DATABASE "{connection.info.dbname}" {setting}')


Kinds = Sequence[tuple[str, Any]]


def fill(connection: psycopg.Connection[Any], kinds: Kinds, first: int) -> None:
    with connection.transaction():
        for place, (_, values) in enumerate(kinds):
            for number, value in enumerate((*values, None)):
                statement = f"INSERT INTO public.t{place} VALUES (%s, 0, %s)"
                connection.execute(statement, (first + number, value))


def printed(connection: psycopg.Connection[Any], place: int) -> list[bytes]:
    query = f"COPY (SELECT id, n, v FROM public.t{place} ORDER BY id) TO STDOUT"
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        return b"".join(bytes(part) for part in copy).split(b"\n")[:-1]


def rows_in(url: str, kinds: Kinds, condition: str) -> int:
    """Count the rows of all tables; those that are not there yet have none."""
    each = " UNION ALL ".join(
        f"SELECT count(*) c FROM public.t{place} WHERE {condition}" for place in range(len(kinds))
    )
    with connected(url) as connection:
        try:
            row = connection.execute(f"SELECT sum(c)::int FROM ({each}) AS every").fetchone()
        except psycopg.errors.UndefinedTable:
            return 0
    return int(row[0]) if row else 0


Arrived = Callable[[Callable[[], bool], str], None]


@contextmanager
def running_between(
    pipeline: Pipeline, source_url: str, target_url: str, **options: Any
) -> Iterator[Arrived]:
    """Run source and sink; what is yielded waits for a condition while both are well."""
    source = Source(pipeline, source_url, **options)
    sink = Sink(pipeline, target_url).start()

    def arrived(condition: Callable[[], bool], what: str) -> None:
        def reached() -> bool:
            assert not source.quiet.errors, source.quiet.errors[-1]
            assert sink.failed is None, sink.failed
            return condition()

        wait_until(reached, f"{what} is in the target", DEADLINE_S)

    try:
        yield arrived
    finally:
        sink.stop()
        source.end()
    assert not any(batch.dead for batch in sink.told.batches)


def test_every_value_prints_the_same_in_source_and_target(
    pipeline: Pipeline, fresh_database: Callable[[], str]
) -> None:
    source_url, target_url = fresh_database(), fresh_database()
    kinds = [
        (kind, tuple(value for value in values if len(value) < LARGEST))
        for kind, values in values_for(VERSION)
    ]
    for url in (source_url, target_url):
        prepare(url)
    with connected(source_url) as connection:
        for place, (kind, _) in enumerate(kinds):
            columns = f"id int PRIMARY KEY, n int, v {kind}"
            connection.execute(f"CREATE TABLE public.t{place} ({columns})")
        fill(connection, kinds, 0)

    def counted(url: str) -> dict[str, int]:
        return {n: rows_in(url, kinds, f"n = {n}") for n in "01"}

    with running_between(pipeline, source_url, target_url) as arrived:
        arrived(lambda: counted(target_url) == counted(source_url), "the snapshot")
        with connected(source_url) as connection:
            fill(connection, kinds, STREAMED)
            for place in range(len(kinds)):
                connection.execute(f"UPDATE public.t{place} SET n = 1 WHERE id < {STREAMED}")
        arrived(lambda: counted(target_url) == counted(source_url), "the stream")
    with connected(source_url) as ours, connected(target_url) as theirs:
        different = [
            f"{kind}: {one[:80]!r} became {other[:80]!r}"
            for place, (kind, _) in enumerate(kinds)
            for one, other in zip(printed(ours, place), printed(theirs, place), strict=True)
            if one != other
        ]
    assert different == []


def keyed_tables(url: str) -> dict[str, str]:
    """Make a table keyed by each type that can be a key; return table → type."""
    made: dict[str, str] = {}
    with connected(url) as connection:
        for place, (kind, values) in enumerate(values_for(VERSION)):
            table = f"public.t{place}"
            try:
                connection.execute(f"CREATE TABLE {table} (v {kind} PRIMARY KEY, n int)")
                connection.execute(f"SELECT v FROM {table} ORDER BY v")
            except psycopg.errors.UndefinedObject:  # a type without an order
                continue
            except psycopg.errors.UndefinedFunction:  # an array of such a type
                connection.execute(f"DROP TABLE {table}")
                continue
            made[table] = kind
            insert = f"INSERT INTO {table} VALUES (%s, %s) ON CONFLICT DO NOTHING"
            for number, value in enumerate(value for value in values if len(value) < LONGEST_KEY):
                connection.execute(insert, (value, number % 3))
    return made


def keyed_rows(url: str, tables: Iterable[str]) -> dict[str, list[bytes]]:
    """Return every row as it prints, by table; a table that is not there yet has none."""
    found: dict[str, list[bytes]] = {}
    with connected(url) as connection, connection.cursor() as cursor:
        for table in tables:
            found[table] = []
            try:
                with cursor.copy(f"COPY (SELECT v, n FROM {table}) TO STDOUT") as copy:
                    found[table] = sorted(bytes(line) for line in copy)
            except psycopg.errors.UndefinedTable:
                continue
    return found


def test_every_type_that_can_be_a_key_is_one(
    pipeline: Pipeline, fresh_database: Callable[[], str]
) -> None:
    source_url, target_url = fresh_database(), fresh_database()
    for url in (source_url, target_url):
        prepare(url)
    tables = keyed_tables(source_url)

    def equal() -> bool:
        return keyed_rows(source_url, tables) == keyed_rows(target_url, tables)

    with running_between(pipeline, source_url, target_url, chunk_rows=4) as arrived:
        arrived(equal, "the snapshot")
        with connected(source_url) as connection:
            for table in tables:
                connection.execute(f"UPDATE {table} SET n = 9 WHERE n = 0")
                connection.execute(f"DELETE FROM {table} WHERE n = 1")
        arrived(equal, "the stream")
    assert len(tables) >= 60


def test_of_two_equal_rows_one_goes_in_a_table_without_a_key(
    pipeline: Pipeline, fresh_database: Callable[[], str]
) -> None:
    source_url, target_url = fresh_database(), fresh_database()
    kinds = [(kind, values[0]) for kind, values in values_for(VERSION)]
    for url in (source_url, target_url):
        prepare(url)
    with connected(source_url) as connection:
        for place, (kind, value) in enumerate(kinds):
            connection.execute(f"CREATE TABLE public.t{place} (n int, v {kind})")
            connection.execute(f"ALTER TABLE public.t{place} REPLICA IDENTITY FULL")
            insert = f"INSERT INTO public.t{place} VALUES (0, %s)"
            for cell in (value, value, value, None, None):
                connection.execute(insert, (cell,))

    def counted(url: str) -> dict[str, int]:
        return {n: rows_in(url, kinds, f"n = {n}") for n in "012"}

    with running_between(pipeline, source_url, target_url) as arrived:
        arrived(lambda: counted(target_url) == counted(source_url), "the snapshot")
        with connected(source_url) as connection, connection.transaction():
            for place in range(len(kinds)):
                first = f"(SELECT min(ctid) FROM public.t{place} WHERE n = 0 AND v IS NOT NULL)"
                nothing = f"(SELECT min(ctid) FROM public.t{place} WHERE n = 0 AND v IS NULL)"
                for one, number in ((first, 1), (nothing, 2)):
                    update = f"UPDATE public.t{place} SET n = {number} WHERE ctid = {one}"
                    connection.execute(update)
                for one in (first, nothing):
                    connection.execute(f"DELETE FROM public.t{place} WHERE ctid = {one}")
        arrived(lambda: counted(target_url) == counted(source_url), "the stream")


NAMES = (
    'quote"quote',
    "a.b.c",
    "two  words ",
    "UPPER",
    "upper",
    "select",
    "ünïcödé 😀",
    "x" * 63,
    "1st",
    "_u41_",
    "'; DROP TABLE x; --",
    '"; DROP TABLE "x"; --',
    "100%s",
    "{brace}",
    "back\\slash",
)


def hostile_names(url: str) -> None:
    """A schema, a table and an enum label by each name, and every name as a column."""
    columns = sql.SQL(", ").join(
        sql.SQL("{} text DEFAULT {}").format(sql.Identifier(name), sql.Literal(name))
        for name in NAMES[1:]
    )
    with connected(url) as connection:
        labels = sql.SQL(", ").join(map(sql.Literal, NAMES))
        connection.execute(sql.SQL("CREATE TYPE public.label AS ENUM ({})").format(labels))
        for name in NAMES:
            schema, table = sql.Identifier(name), sql.Identifier(name, name)
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
            key = sql.SQL("{} public.label PRIMARY KEY").format(sql.Identifier(NAMES[0]))
            create = sql.SQL("CREATE TABLE {} ({}, {})").format(table, key, columns)
            connection.execute(create)
            connection.execute(sql.SQL("INSERT INTO {} VALUES ({})").format(table, NAMES[0]))


def insert_labels(url: str) -> None:
    with connected(url) as connection:
        for name in NAMES:
            insert = sql.SQL("INSERT INTO {} VALUES ({})")
            for label in NAMES[1:]:
                connection.execute(insert.format(sql.Identifier(name, name), label))


def named_rows(url: str) -> dict[str, list[Any]]:
    """Return all rows of each table by its name; a table that is not there yet has none."""
    found: dict[str, list[Any]] = {}
    with connected(url) as connection:
        for name in NAMES:
            query = sql.SQL("SELECT * FROM {} ORDER BY 1").format(sql.Identifier(name, name))
            try:
                found[name] = connection.execute(query).fetchall()
            except psycopg.errors.UndefinedTable:  # a missing schema is one as well
                found[name] = []
    return found


def test_every_name_is_only_a_name(pipeline: Pipeline, fresh_database: Callable[[], str]) -> None:
    source_url, target_url = fresh_database(), fresh_database()
    hostile_names(source_url)
    with connected(target_url) as connection:
        labels = sql.SQL(", ").join(map(sql.Literal, NAMES))
        connection.execute(sql.SQL("CREATE TYPE public.label AS ENUM ({})").format(labels))
    with running_between(pipeline, source_url, target_url, tables=["*"]) as arrived:
        equal = lambda: named_rows(source_url) == named_rows(target_url)  # noqa: E731
        arrived(equal, "the snapshot")
        insert_labels(source_url)
        arrived(equal, "the stream")
