"""PostgreSQL keeps the contract of a transactional target, on the real server."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from cdc.connector import Context
from cdc.errors import PreflightFailed, SchemaIncompatible
from schemas.change import ABSENT, Cell
from schemas.table import Column, TableId, TableSchema, Type
from sinks.postgres.barriers import BarrierTable
from sinks.target import Barrier, Cursor, Mapped
from sinks.targets.postgres import Config, PostgresTarget, check, create, drop
from sinks.testing import EMPTIED, ITEMS, PLACE, SECOND, TargetContract, barrier, span, upsert


class Database:
    """A database of its own, looked at with a plain connection."""

    def __init__(self, url: str, **options: object) -> None:
        self.url = url
        self.options = options
        self.opened: list[PostgresTarget] = []

    def connect(self) -> PostgresTarget:
        config = Config.model_validate({"url": self.url, "tables": ["shop.*"], **self.options})
        self.opened.append(create(Context("shop", "mirror"), config))
        return self.opened[-1]

    def rows(self, table: TableId) -> list[tuple[bytes | None, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            query = sql.SQL("SELECT t.* FROM {} t").format(sql.Identifier(table.schema, table.name))
            found = psycopg.RawCursor(connection).execute(query.as_string(connection)).fetchall()
            return sorted((_text(row) for row in found), key=repr)


def _text(row: tuple[object, ...]) -> tuple[bytes | None, ...]:
    return tuple(None if value is None else str(value).encode() for value in row)


@pytest.fixture
def system(pg_database: str) -> Iterator[Database]:
    database = Database(pg_database)
    yield database
    for target in database.opened:
        target.close()


@pytest.fixture(scope="class", params=[14, 15, 16, 17, 18])
def versioned(
    request: pytest.FixtureRequest, postgres_server: Callable[[int], Any]
) -> Iterator[str]:
    """A database of each version for all tests of a class; each leaves it empty."""
    server = postgres_server(request.param)
    name = f"sink_{secrets.token_hex(4)}"
    yield server.create_database(name)
    server.drop_database(name)


class TestPostgres(TargetContract):
    @pytest.fixture
    def system(self, versioned: str) -> Iterator[Database]:
        database = Database(versioned, workers=2)
        yield database
        for target in database.opened:
            target.close()
        execute(database, "DROP SCHEMA IF EXISTS shop, tailrace CASCADE")
        assert left(database) == []


@pytest.mark.parametrize("look", ["_arrive", "_lock"])
def test_a_worker_let_go_on_between_two_looks_at_a_truncation_goes_on(
    look: str, system: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes last empties the table at a moment of its own."""
    system.options["workers"] = 2
    first, last = opened(system), opened(system)
    for target in (first, last):
        target.prepare(ITEMS)
    first.apply(upsert((b"1", b"pen", None)), [span(None, 7), span(None, 3, SECOND)])
    assert list(first.meet(barrier(span(7, 9)))) == [1]
    with monkeypatch.context() as held:
        held.setattr(BarrierTable, "_lock", lambda *_: [0])
        assert list(last.meet(barrier(span(3, 4, SECOND)))) == [0]
    own = getattr(BarrierTable, look)
    asked: list[Sequence[int]] = []

    def overtaken(self: BarrierTable, connection: object, at: Barrier) -> Sequence[int]:
        if not asked:
            asked.append([1])
            asked[0] = last.meet(barrier(span(4, 4, SECOND)))
        waiting: Sequence[int] = own(self, connection, at)
        return waiting

    monkeypatch.setattr(BarrierTable, look, overtaken)
    assert list(first.meet(barrier(span(9, 9)))) == []
    assert [list(found) for found in asked] == [[]]
    assert system.rows(ITEMS.table) == []
    behind = {PLACE: Cursor(10, EMPTIED), SECOND: Cursor(5, EMPTIED)}
    assert first.cursors([PLACE, SECOND]) == behind


@pytest.mark.parametrize("version", [14, 18])
def test_a_type_the_target_does_not_know_becomes_text_inside_a_transaction_too(
    version: int, postgres_server: Callable[[int], Any]
) -> None:
    server = postgres_server(version)
    name = f"sink_{secrets.token_hex(4)}"
    database = Database(server.create_database(name))
    odd = table_of(ID, Column("odd", Type("text", "postgres int); --")))
    target = opened(database)

    def steps() -> Iterator[list[Mapped]]:
        target.prepare(odd)
        yield [Mapped(odd, [(b"1", b"x")], [])]

    target.apply(steps(), [span(None, 1)])
    assert database.rows(odd.table) == [(b"1", b"x")]
    target.close()
    server.drop_database(name)


MONEY = Column("amount", Type("decimal", "postgres numeric(12,2)", 12, 2))
ID = Column("id", Type("int64", "postgres bigint"))


def table_of(*columns: Column, name: str = "things", key: tuple[str, ...] = ("id",)) -> TableSchema:
    return TableSchema(TableId("crm", name), columns, key)


def columns_of(system: Database, table: str) -> list[tuple[object, ...]]:
    query = """SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
               WHERE a.attrelid = %s::regclass AND a.attnum > 0 ORDER BY a.attnum"""
    with psycopg.connect(system.url) as connection:
        return connection.execute(query, (table,)).fetchall()


def left(system: Database) -> list[tuple[object, ...]]:
    """What anybody made in the database and that is still there."""
    query = """SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'"""
    with psycopg.connect(system.url) as connection:
        return connection.execute(query).fetchall()


def opened(system: Database) -> PostgresTarget:
    target = system.connect()
    target.open()
    return target


def execute(system: Database, *statements: str) -> None:
    with psycopg.connect(system.url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def test_a_missing_table_is_made_with_the_types_of_the_source(system: Database) -> None:
    execute(system, "CREATE TYPE public.mood AS ENUM ('sad', 'happy')")
    schema = table_of(
        ID,
        MONEY,
        Column("code", Type("string", "postgres character(3)")),
        Column("at", Type("timestamptz", "postgres timestamp(3) with time zone")),
        Column("mood", Type("enum", "postgres mood")),
        Column("shape", Type("text", "postgres unknown_extension_type")),
        Column("big", Type("int64", "mariadb bigint unsigned")),
        Column("evil", Type("text", "postgres int); DROP TABLE x; --")),
        Column("list", Type("text", "postgres integer[]")),
    )
    opened(system).prepare(schema)
    assert columns_of(system, "crm.things") == [
        ("id", "bigint"),
        ("amount", "numeric(12,2)"),
        ("code", "character(3)"),
        ("at", "timestamp(3) with time zone"),
        ("mood", "mood"),
        ("shape", "text"),
        ("big", "bigint"),
        ("evil", "text"),
        ("list", "integer[]"),
    ]


def test_a_new_column_is_added_and_old_rows_keep_null(system: Database) -> None:
    target = opened(system)
    target.prepare(table_of(ID))
    target.apply([[Mapped(table_of(ID), [(b"1",)], [])]], [span(None, 1)])
    wider = table_of(ID, MONEY)
    target.prepare(wider)
    target.apply([[Mapped(wider, [(b"2", b"1.00")], [])]], [span(1, 2)])
    assert system.rows(wider.table) == [(b"1", None), (b"2", b"1.00")]


def test_a_frozen_target_says_which_statement_is_missing(pg_database: str) -> None:
    frozen = Database(pg_database, schema_changes="frozen")
    target = opened(frozen)
    with pytest.raises(SchemaIncompatible) as caught:
        target.prepare(table_of(ID))
    assert 'CREATE TABLE IF NOT EXISTS "crm"."things"' in caught.value.hint
    execute(frozen, caught.value.hint)
    target.prepare(table_of(ID))
    with pytest.raises(SchemaIncompatible) as caught:
        target.prepare(table_of(ID, MONEY))
    assert 'ADD COLUMN IF NOT EXISTS "amount" numeric(12,2)' in caught.value.hint
    target.close()


def test_a_key_without_a_unique_index_is_refused_with_the_statement(system: Database) -> None:
    execute(system, "CREATE SCHEMA crm", "CREATE TABLE crm.things (id bigint)")
    with pytest.raises(PreflightFailed) as caught:
        opened(system).prepare(table_of(ID))
    execute(system, caught.value.hint)
    opened(system).prepare(table_of(ID))


def test_a_column_that_can_take_no_value_stops_the_sink_instead_of_every_row(
    system: Database,
) -> None:
    with psycopg.connect(system.url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA shop")
        connection.execute("CREATE TABLE shop.orders (id bigint PRIMARY KEY, total date)")
    schema = TableSchema(
        TableId("shop", "orders"),
        (Column("id", Type("int64")), Column("total", Type("int64", "postgres bigint"))),
        ("id",),
    )
    target = system.connect()
    target.open()
    with pytest.raises(
        SchemaIncompatible, match=r"total is date .* bigint at the source"
    ) as caught:
        target.prepare(schema)
    assert "as:" in caught.value.hint


def test_sinks_that_start_at_once_on_an_empty_database_all_open(system: Database) -> None:
    targets = [system.connect() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for opening in [pool.submit(target.open) for target in targets]:
            opening.result()
        for preparing in [pool.submit(target.prepare, table_of(ID)) for target in targets]:
            preparing.result()


STAGED = ["step", "kind", "c0", "s", "t", "txt"]
"""What the staging table and the statements over it call theirs."""


def test_a_table_without_a_key_may_have_names_of_the_staging_table(system: Database) -> None:
    columns = [Column(name, Type("string", "postgres text")) for name in STAGED]
    schema = TableSchema(TableId("crm", "loose"), tuple(columns), ())
    target = opened(system)
    target.prepare(schema)
    cells = [name.encode() for name in STAGED]
    target.apply([[Mapped(schema, [cells, cells], [])]], [span(None, 1)])
    target.apply([[Mapped(schema, [], [cells])]], [span(1, 2)])
    assert system.rows(schema.table) == [tuple(cells)]


def test_any_identifier_can_be_a_name(system: Database) -> None:
    names = ['a"b', "100%s", "Ümlaut ü", "select", "x'; --", "a.b", "{}", *STAGED]
    columns = [Column(name, Type("string", "postgres text")) for name in names]
    schema = TableSchema(TableId('we"ird %s', "ta'ble {}"), tuple(columns), (names[0], names[1]))
    target = opened(system)
    target.prepare(schema)
    cells = [name.encode() for name in names]
    target.apply([[Mapped(schema, [cells], [])]], [span(None, 1)])
    partial = [*cells[:2], ABSENT, b"new", ABSENT, None, b"6", *cells[7:]]
    target.apply([[Mapped(schema, [partial], [])]], [span(1, 2)])
    wanted = (*cells[:3], b"new", cells[4], None, b"6", *cells[7:])
    assert system.rows(schema.table) == [wanted]
    target.apply([[Mapped(schema, [], [tuple(cells[:2])])]], [span(2, 3)])
    assert system.rows(schema.table) == []


def test_generated_and_identity_columns_of_the_target_are_respected(system: Database) -> None:
    execute(
        system,
        "CREATE SCHEMA crm",
        "CREATE TABLE crm.things (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
        "amount numeric(12,2), twice numeric GENERATED ALWAYS AS (amount * 2) STORED)",
    )
    schema = table_of(ID, MONEY, Column("twice", Type("text", "postgres numeric")))
    target = opened(system)
    target.prepare(schema)
    for number, amount in enumerate([b"1.00", b"3.00"]):
        rows: list[Sequence[Cell]] = [(b"5", amount, b"99")]
        target.apply([[Mapped(schema, rows, [])]], [span(number or None, number + 1)])
    assert system.rows(schema.table) == [(b"5", b"3.00", b"6.00")]


def test_a_missing_right_names_the_grant(system: Database) -> None:
    execute(
        system,
        "CREATE SCHEMA crm",
        "CREATE TABLE crm.things (id bigint PRIMARY KEY)",
        "DO $$ BEGIN CREATE ROLE sinkrole LOGIN PASSWORD 'secret'; "
        "EXCEPTION WHEN duplicate_object THEN NULL; END $$",
        "GRANT SELECT ON crm.things TO sinkrole",
        "DO $$ BEGIN EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', "
        "current_database()); END $$",
        "CREATE SCHEMA tailrace AUTHORIZATION sinkrole",
    )
    url = as_role(system.url, "sinkrole", "secret")
    config = {"url": url, "tables": {"shop.x": {"to": "crm.things"}}}
    context, checked = Context("shop", "mirror"), Config.model_validate(config)

    def repairs() -> list[str]:
        return [found.repair for found in check(context, checked) if found.level == "fail"]

    temporary, usage = repairs()
    assert temporary.startswith("GRANT TEMPORARY ON DATABASE")
    assert usage == 'GRANT USAGE, CREATE ON SCHEMA "crm" TO "sinkrole";'
    execute(system, temporary, usage)
    [write] = repairs()
    assert write == 'GRANT INSERT, UPDATE, DELETE ON "crm"."things" TO "sinkrole";'
    target = opened(Database(url))
    target.prepare(table_of(ID))
    with pytest.raises(PreflightFailed):
        target.apply([[Mapped(table_of(ID), [(b"1",)], [])]], [span(None, 1)])
    execute(system, write)
    target.apply([[Mapped(table_of(ID), [(b"1",)], [])]], [span(None, 1)])
    target.close()
    assert repairs() == []
    execute(system, "DROP OWNED BY sinkrole")


def as_role(url: str, user: str, password: str) -> str:
    return make_conninfo(url, user=user, password=password)


def test_an_unreachable_target_is_a_finding_and_no_traceback() -> None:
    url = "postgresql://nobody:x@127.0.0.1:1/none"
    config = Config.model_validate({"url": url, "tables": ["shop.*"]})
    [found] = list(check(Context("shop", "mirror"), config))
    assert found.level == "fail"
    assert "not reachable" in found.message


def test_dropping_a_sink_forgets_its_cursors_alone(system: Database) -> None:
    target = opened(system)
    target.apply([], [span(None, 5)])
    config = Config.model_validate({"url": system.url, "tables": ["shop.*"]})
    context = Context("shop", "mirror")
    assert len(list(drop(context, config, dry_run=True))) == 1
    assert target.cursors([PLACE])[PLACE] is not None
    assert len(list(drop(context, config, dry_run=False))) == 1
    assert target.cursors([PLACE]) == {PLACE: None}


def test_steps_of_many_tables_follow_their_foreign_keys(system: Database) -> None:
    execute(
        system,
        "CREATE SCHEMA crm",
        "CREATE TABLE crm.zebra (id bigint PRIMARY KEY)",
        "CREATE TABLE crm.ant (id bigint PRIMARY KEY REFERENCES crm.zebra)",
    )
    ant, zebra = table_of(ID, name="ant"), table_of(ID, name="zebra")
    target = opened(system)
    target.prepare(ant)
    target.prepare(zebra)
    target.apply([[Mapped(ant, [(b"1",)], []), Mapped(zebra, [(b"1",)], [])]], [span(None, 1)])
    target.apply([[Mapped(zebra, [], [(b"1",)]), Mapped(ant, [], [(b"1",)])]], [span(1, 2)])
    assert system.rows(ant.table) == []
