"""`cdc check`, `cdc init` and `cdc drop` for Postgres, and least privilege, on real servers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import conninfo

from cdc.connector import Finding
from cdc.errors import PreflightFailed, StateError
from cdc.local import LocalPostgres
from cdc.sources.postgres import check, discover, drop
from fix_capture import Capture, table_rows

Db = psycopg.Connection[Any]


def failing(capture: Capture) -> dict[str, Finding]:
    found = check(capture.context(), capture.config())
    return {finding.subject: finding for finding in found if finding.level != "ok"}


def run_repair(db: Db, repair: str) -> None:
    db.execute(repair.split(";  ", maxsplit=1)[0])


def test_a_database_in_order_has_only_good_findings(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY)")
    found = list(check(capture.context(), capture.config()))
    assert {finding.level for finding in found} == {"ok"}
    assert {"version", "wal_level", "replication", "max_wal_senders"} <= {f.subject for f in found}


def test_checking_changes_nothing(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY)")
    list(check(capture.context(), capture.config()))
    assert db.execute("SELECT count(*) FROM pg_publication").fetchone() == (0,)
    mine = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'cdc_test_shop'"
    assert db.execute(mine).fetchone() == (0,)


def test_a_server_whose_log_carries_no_rows_is_named_with_the_repair() -> None:
    with LocalPostgres(18, settings={"wal_level": "replica"}) as server:
        capture = Capture(server.create_database("shop"))
        finding = failing(capture)["wal_level"]
        assert finding.repair.startswith("ALTER SYSTEM SET wal_level = 'logical';")
        with pytest.raises(PreflightFailed, match="wal_level") as caught:
            capture.open()
        assert "ALTER SYSTEM" in caught.value.hint
        capture.kill()


def test_a_wrong_password_is_one_finding(capture: Capture) -> None:
    url = conninfo.make_conninfo(capture.options["url"], password="wrong")
    capture.options["url"] = url
    [finding] = check(capture.context(), capture.config())
    assert finding.level == "fail"
    assert "password authentication failed" in finding.message
    assert "wrong" not in finding.message


def test_a_table_without_identity_is_named_and_one_remedy_repairs_it(
    capture: Capture, db: Db
) -> None:
    db.execute('CREATE TABLE "Odd log" (line text)')
    finding = failing(capture)["public.Odd log"]
    assert finding.level == "fail"
    remedy = 'ALTER TABLE "public"."Odd log" REPLICA IDENTITY FULL;'
    assert remedy in finding.repair
    db.execute(remedy)
    assert failing(capture)["public.Odd log"].level == "warn"


def test_an_unlogged_table_and_a_wrong_key_are_named(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY); CREATE UNLOGGED TABLE cache (id int)")
    capture.options["key"] = {"public.item": ["nr"], "public.none": ["id"]}
    found = failing(capture)
    assert "unlogged" in found["public.cache"].message
    assert "no column nr" in found["key public.item"].message
    assert "no selected table" in found["key public.none"].message


def test_a_transaction_that_blocks_the_slot_is_named_by_pid(
    capture: Capture, db: Db, pg_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdc.postgres.preflight._LONG_S", 0)
    db.execute("CREATE TABLE item (id int PRIMARY KEY)")
    with psycopg.connect(pg_database) as other:
        other.execute("INSERT INTO item VALUES (1)")
        db.execute("BEGIN")
        db.execute("INSERT INTO item VALUES (2)")
        db.execute(f"PREPARE TRANSACTION 'held_{db.info.dbname}'")
        found = failing(capture)
        pid = other.info.backend_pid
        assert found[f"pid {pid}"].repair == f"SELECT pg_terminate_backend({pid});"
        assert "ROLLBACK PREPARED" in found[f"prepared transaction held_{db.info.dbname}"].repair


def test_discovery_describes_tables_as_the_stream_will(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY, price numeric(8,2) NOT NULL DEFAULT 1)")
    capture.until_snapshot_done()
    db.execute("INSERT INTO item VALUES (1)")
    capture.until_caught_up(db)
    assert list(discover(capture.config())) == [capture.events[0].schema]


def test_a_drop_names_first_and_then_removes_slot_and_publications(
    capture: Capture, db: Db
) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY)")
    capture.until_snapshot_done()
    with pytest.raises(StateError, match="is read by pid"):
        list(drop(capture.context(), capture.config(), dry_run=True))
    capture.kill()
    count = (
        "SELECT (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_replication_slots"
        " WHERE database = current_database())"
    )
    named = list(drop(capture.context(), capture.config(), dry_run=True))
    assert db.execute(count).fetchone() == (3,)
    assert len(list(drop(capture.context(), capture.config(), dry_run=False))) == len(named) == 3
    assert db.execute(count).fetchone() == (0,)


def test_what_was_given_to_us_is_not_dropped(capture: Capture, db: Db) -> None:
    db.execute("CREATE TABLE item (id int PRIMARY KEY); CREATE PUBLICATION theirs FOR TABLE item")
    capture.options["publication"] = "theirs"
    capture.options["slot"] = f"theirs_{db.info.dbname}"
    db.execute(
        "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (capture.options["slot"],)
    )
    assert list(drop(capture.context(), capture.config(), dry_run=False)) == []


@pytest.fixture
def reader(db: Db, pg_database: str) -> Iterator[str]:
    """The URL of a role that may log in and replicate, and nothing else."""
    name = f"reader_{db.info.dbname}"
    db.execute(f"CREATE ROLE {name} LOGIN REPLICATION PASSWORD 'secret'")
    yield conninfo.make_conninfo(pg_database, user=name, password="secret")
    db.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_missing_grants_are_named_and_their_repairs_suffice(
    capture: Capture, db: Db, reader: str
) -> None:
    db.execute("CREATE SCHEMA crm; CREATE TABLE crm.item (id int PRIMARY KEY)")
    db.execute("INSERT INTO crm.item VALUES (1)")
    capture.options["url"] = reader
    with pytest.raises(PreflightFailed, match="no right to publish") as caught:
        capture.open()
    capture.kill()
    assert "GRANT CREATE ON DATABASE" in caught.value.hint
    for finding in list(check(capture.context(), capture.config())):
        if finding.level == "fail" and finding.repair.startswith("GRANT"):
            run_repair(db, finding.repair)
    [foreign] = failing(capture).values()
    create = foreign.repair.removeprefix("as their owner: ").split(";  ")[0]
    db.execute(create)
    capture.options["publication"] = "cdc_test_shop"
    assert failing(capture) == {}
    capture.until_snapshot_done()
    db.execute("INSERT INTO crm.item VALUES (2)")
    capture.until_caught_up(db)
    assert capture.model.rows("crm.item") == table_rows(db, "SELECT * FROM crm.item")


def test_row_security_is_refused_and_never_hides_rows(
    capture: Capture, db: Db, reader: str
) -> None:
    user = conninfo.conninfo_to_dict(reader)["user"]
    db.execute("CREATE TABLE item (id int PRIMARY KEY); INSERT INTO item VALUES (1), (2)")
    db.execute("ALTER TABLE item ENABLE ROW LEVEL SECURITY")
    db.execute("CREATE POLICY half ON item FOR SELECT USING (id = 1)")
    db.execute(f"GRANT SELECT ON item TO {user}")
    db.execute("CREATE PUBLICATION theirs FOR TABLE item")
    capture.options.update(url=reader, publication="theirs")
    assert f'ALTER ROLE "{user}" BYPASSRLS;' in failing(capture)["public.item"].repair
    with pytest.raises(PreflightFailed, match="row-level security"):
        capture.until_snapshot_done()
    assert capture.events == []


def test_a_role_without_replication_is_told_the_statement(capture: Capture, db: Db) -> None:
    name = f"plain_{db.info.dbname}"
    db.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    capture.options["url"] = conninfo.make_conninfo(
        capture.options["url"], user=name, password="secret"
    )
    assert "REPLICATION" in failing(capture)["replication"].repair
    db.execute(f"DROP ROLE {name}")
