"""`cdc verify` on a pipeline that runs: Postgres → Kafka → Postgres, one for all tests here."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from fix_pipeline import wait_until

if TYPE_CHECKING:
    from fix_cli import Cdc

SOURCE = """
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, born date, seen timestamptz,
    score float8, ratio float4, balance numeric, price numeric(12,2), code char(4), on_off boolean,
    what uuid, photo bytea, attrs jsonb, tags text[], lasts interval, feels mood);
CREATE TABLE lines (shop text, number smallint, note text, PRIMARY KEY (shop, number));
CREATE TABLE people (id bigint PRIMARY KEY, name text, created timestamptz, feels mood, state text);
CREATE TABLE notes (note text, n int);
ALTER TABLE notes REPLICA IDENTITY FULL;
CREATE TABLE kept (id int PRIMARY KEY);
CREATE TABLE hot (id int PRIMARY KEY, n int);
CREATE TABLE parted (id int PRIMARY KEY, state text);
INSERT INTO customers SELECT n, 'customer ' || n, date '2026-01-01' + n, now(), 0, n / 7.0,
    n / 10.0, n, 'c' || n, n % 2 = 0, gen_random_uuid(), decode(md5(n::text), 'hex'),
    jsonb_build_object('n', n, 'of', 1.10), ARRAY['a', n::text], interval '30 hours', 'glad'
    FROM generate_series(1, 300) n;
UPDATE customers SET score = 'NaN', balance = 'NaN', born = '-infinity' WHERE id = 5;
UPDATE customers SET balance = 1.10, name = E'tab\\t \\\\ ü', photo = NULL WHERE id = 6;
INSERT INTO lines SELECT 'shop ' || n % 5, n, E'a\\tb' FROM generate_series(1, 100) n;
INSERT INTO people SELECT n, 'p' || n, '2026-01-31 23:30+00', 'glad', CASE WHEN n % 3 = 0 THEN
    'draft' ELSE 'open' END FROM generate_series(1, 90) n;
INSERT INTO notes VALUES ('same', 1), ('same', 1), (NULL, NULL), ('other', 2);
INSERT INTO kept VALUES (1);
INSERT INTO parted VALUES (1, 'open'), (2, 'draft'), (3, 'open');
INSERT INTO hot SELECT n, 0 FROM generate_series(1, 2000) n;
"""


class Shop:
    """A source and its mirror, both at work; `do` and `spoil` change one side behind the other."""

    def __init__(self, folder: Path, urls: tuple[str, str], kafka: dict[str, str]) -> None:
        self.source, self.target = urls
        self.name = f"v{secrets.token_hex(3)}"
        self.config = folder / "tailrace.yaml"
        self._log = folder / "run.log"
        self._process: subprocess.Popen[bytes] | None = None
        topic = f"{self.name}db.public"
        people = {
            "fields": {
                "id": "id",
                "full_name": "name",
                "day": {"from": "created", "as": "date"},
                "feels": "feels",
                "tenant": {"value": "acme"},
            },
            "where": "state != 'draft'",
        }
        tables = {
            f"{topic}.people": people,
            f"{topic}.kept": {"soft_delete": "gone_at"},
            f"{topic}.parted": [
                {"to": "copy.whole"},
                {"to": "copy.open", "where": "state == 'open'", "fields": {"id": "id"}},
            ],
            f"{topic}.*": {"to": "copy.{table}"},
        }
        source = {"type": "postgres", "url": self.source, "tables": ["public.*"], "heartbeat": 0.2}
        file = {
            "pipeline": self.name,
            "kafka": kafka,
            "metrics": {"port": 0},
            "sources": {f"{self.name}db": source},
            "sinks": {"copy": {"type": "postgres", "url": self.target, "tables": tables}},
        }
        self.config.write_text(json.dumps(file))

    def start(self) -> None:
        with self._log.open("ab") as log:
            arguments = [sys.executable, "-m", "cdc", "run", "-c", str(self.config)]
            self._process = subprocess.Popen(arguments, stdout=log, stderr=log)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def log(self) -> str:
        return self._log.read_text()[-4000:]

    def do(self, sql: str) -> None:
        with psycopg.connect(self.source) as connection:
            connection.execute(sql.encode())

    def spoil(self, sql: str) -> None:
        """Change the target behind the sink's back."""
        with psycopg.connect(self.target) as connection:
            connection.execute(sql.encode())

    def has(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.target) as connection:
            return connection.execute(sql.encode()).fetchall()

    def arrived(self) -> bool:
        wanted = ["copy.customers", "copy.lines", "public.people", "copy.notes", "copy.hot"]
        with psycopg.connect(self.target) as connection:
            for name in wanted:
                found = connection.execute("SELECT to_regclass(%s)", (name,)).fetchone()
                if found is None or found[0] is None:
                    return False
        return self.has("SELECT count(*) FROM copy.hot") == [(2000,)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, postgres: Any, kafka: Any, registry: Any) -> Any:
    names = [f"verify_{secrets.token_hex(4)}" for _ in range(2)]
    source, target = (postgres.create_database(name) for name in names)
    servers = {"bootstrap": kafka.bootstrap, "registry": registry.url}
    made = Shop(tmp_path_factory.mktemp("verify"), (source, target), servers)
    made.do(SOURCE)
    made.start()
    wait_until(made.arrived, f"the snapshot is in the target\n{made.log()}", 90)
    yield made
    made.stop()
    for name in names:
        postgres.drop_database(name)


class Verify:
    """`cdc verify` of one table of the shop, or of all."""

    def __init__(self, shop: Shop, cdc: Cdc) -> None:
        self._shop, self._cdc = shop, cdc
        self.code = 0
        self.tables: list[dict[str, Any]] = []

    def __call__(self, table: str = "", *options: str) -> Any:
        chosen = ["--table", f"public.{table}"] if table else []
        names = f"{self._shop.name}db", "copy"
        ended = self._cdc(
            "verify", *names, *chosen, *options, "-c", str(self._shop.config), "--json"
        )
        self.code = ended.code
        self.tables = json.loads(ended.out or "{}").get("tables", [])
        tables = {one["source"]: one for one in self.tables}
        return tables[f"public.{table}"] if table and tables else tables or ended.err


@pytest.fixture
def verify(shop: Shop, cdc: Cdc) -> Verify:
    return Verify(shop, cdc)


def test_equal_tables_are_equal_whatever_is_in_them(verify: Verify) -> None:
    tables = verify()
    states = {name: (one["state"], one["reason"]) for name, one in tables.items()}
    kept = states.pop("public.kept")
    assert states == {
        f"public.{name}": ("equal", "")
        for name in ("customers", "lines", "people", "notes", "hot", "parted")
    }
    assert verify.code == 0
    assert kept[0] == "refused"
    assert "soft_delete" in kept[1]
    assert tables["public.customers"]["rows"] == 300
    assert tables["public.people"]["rows"] == 60


FLIPPED = {
    "name": "name || ' '",
    "photo": "NULL",
    "balance": "balance * 1.0",
    "score": "'-0'::float8",
    "lasts": "'1 day 6 hours'",
    "attrs": """'{"n": 7, "of": 1.1}'""",
    "feels": "'sad'",
}


def test_flipped_values_of_every_kind_are_found_and_repaired(shop: Shop, verify: Verify) -> None:
    for number, (column, value) in enumerate(FLIPPED.items(), 11):
        shop.spoil(f"UPDATE copy.customers SET {column} = {value} WHERE id = {number}")
    found = verify("customers")
    assert (verify.code, found["state"], found["different"]) == (6, "differs", len(FLIPPED))
    assert (found["missing"], found["extra"], found["rows"]) == (0, 0, 300)
    shown = {one["key"]["id"]: list(one["columns"]) for one in found["differences"]}
    assert shown == {str(number): [column] for number, column in enumerate(FLIPPED, 11)}
    repaired = verify("customers", "--repair")
    assert (verify.code, repaired["repaired"]) == (0, len(FLIPPED))
    assert verify("customers")["state"] == "equal"


def test_rows_that_swapped_their_values_are_found_and_shown_to_a_person(
    shop: Shop, verify: Verify, cdc: Cdc
) -> None:
    shop.spoil(
        "UPDATE copy.customers c SET name = other.name FROM copy.customers other "
        "WHERE c.id IN (20, 21) AND other.id = 41 - c.id"
    )
    names = f"{shop.name}db", "copy"
    ended = cdc("verify", *names, "--table", "*.customers", "-c", str(shop.config), "--repair")
    assert ended.code == 0
    assert "public.customers → copy.customers" in ended.out
    assert "different  id=20  name: source 'customer 20', target 'customer 21'" in ended.out
    assert verify("customers")["state"] == "equal"


def test_missing_and_surplus_rows_are_found_and_repaired(shop: Shop, verify: Verify) -> None:
    shop.spoil("DELETE FROM copy.lines WHERE number IN (1, 2)")
    shop.spoil("INSERT INTO copy.lines VALUES ('shop ü''s', 7, 'nobody''s')")
    found = verify("lines")
    assert (verify.code, found["missing"], found["extra"], found["different"]) == (6, 2, 1, 0)
    assert {shown["kind"] for shown in found["differences"]} == {"missing", "extra"}
    assert shop.has("SELECT count(*) FROM copy.lines") == [(99,)]
    repaired = verify("lines", "--repair")
    assert (verify.code, repaired["state"], repaired["repaired"]) == (0, "repaired", 3)
    assert shop.has("SELECT count(*) FROM copy.lines") == [(100,)]
    assert verify("lines")["state"] == "equal"


def test_each_table_of_a_topic_is_compared_and_repaired_by_its_own_mapping(
    shop: Shop, verify: Verify
) -> None:
    shop.spoil("DELETE FROM copy.open WHERE id = 3; INSERT INTO copy.open VALUES (2)")
    verify("parted")
    found = {one["target"]: (one["state"], one["missing"], one["extra"]) for one in verify.tables}
    assert found == {"copy.whole": ("equal", 0, 0), "copy.open": ("differs", 1, 1)}
    verify("parted", "--repair")
    assert [one["state"] for one in verify.tables] == ["equal", "repaired"]
    assert shop.has("SELECT id FROM copy.open ORDER BY id") == [(1,), (3,)]


def test_a_row_made_while_it_is_deleted_as_surplus_stays(shop: Shop, verify: Verify) -> None:
    """The sink applies the row, or the repair sees it: in no order of the two is it lost."""
    shop.spoil("INSERT INTO copy.hot SELECT n, 0 FROM generate_series(5001, 5060) n")
    stop = threading.Event()

    def insert() -> None:
        for number in range(5001, 5061):
            shop.do(f"INSERT INTO hot VALUES ({number}, 1)")
            if stop.is_set():
                return

    writer = threading.Thread(target=insert)
    writer.start()
    try:
        verify("hot", "--repair")
    finally:
        stop.set()
        writer.join()
    verify("hot", "--repair")
    assert verify("hot")["state"] == "equal"
    shop.do("DELETE FROM hot WHERE id > 5000")


def test_copies_of_a_row_without_a_key_are_counted(shop: Shop, verify: Verify) -> None:
    shop.spoil("INSERT INTO copy.notes VALUES ('other', 2)")
    found = verify("notes")
    assert (verify.code, found["different"]) == (6, 1)
    [shown] = found["differences"]
    assert shown["columns"] == {"copies": ["1", "2"]}
    refused = verify("notes", "--repair")
    assert "has no key" in refused["reason"]
    shop.spoil(
        "DELETE FROM copy.notes WHERE ctid IN (SELECT min(ctid) FROM copy.notes "
        "WHERE note = 'other')"
    )
    assert verify("notes")["state"] == "equal"


def test_rows_behind_a_mapping_are_compared_as_it_makes_them(shop: Shop, verify: Verify) -> None:
    shop.spoil("UPDATE public.people SET day = '2026-02-01' WHERE id = 1")
    shop.spoil("UPDATE public.people SET tenant = 'other' WHERE id = 2")
    shop.spoil("INSERT INTO public.people (id, full_name, tenant) VALUES (3, 'a draft', 'acme')")
    shop.spoil("DELETE FROM public.people WHERE id = 4")
    found = verify("people")
    assert (verify.code, found["missing"], found["extra"], found["different"]) == (6, 1, 1, 2)
    shown = {one["key"]["id"]: one["columns"] for one in found["differences"]}
    assert shown["1"] == {"day": ["2026-01-31", "2026-02-01"]}
    assert verify("people", "--repair")["state"] == "repaired"
    assert verify("people")["state"] == "equal"


def test_a_lost_row_is_told_from_late_ones_under_load(shop: Shop, verify: Verify) -> None:
    stop = threading.Event()

    def write() -> None:
        with psycopg.connect(shop.source, autocommit=True) as connection:
            while not stop.wait(0.005):
                connection.execute("UPDATE hot SET n = n + 1 WHERE random() < 0.01 AND id < 1000")
                connection.execute("UPDATE hot SET n = n + 1 WHERE id = 1")
                connection.execute("DELETE FROM hot WHERE id > 1990")
                connection.execute("INSERT INTO hot SELECT generate_series(1991, 2000), 0")

    shop.spoil("UPDATE copy.hot SET n = -1 WHERE id = 1500")
    writer = threading.Thread(target=write)
    writer.start()
    try:
        found = verify("hot", "--repair")
    finally:
        stop.set()
        writer.join()
    assert (found["missing"], found["extra"], found["different"]) == (0, 0, 1)
    assert found["late"] + found["moving"] > 0
    assert (found["state"], found["repaired"]) == ("repaired", 1)


def test_rows_of_a_sink_that_stands_still_are_neither_late_nor_lost(
    shop: Shop, verify: Verify, cdc: Cdc
) -> None:
    cdc("pause", "sink/copy", "-c", str(shop.config))

    def paused() -> bool:
        told = cdc("status", "--json", "-c", str(shop.config)).json()["workers"]
        return bool(told["sink/copy"]["state"] == "paused")

    wait_until(paused, "the sink is paused")
    try:
        shop.do("UPDATE hot SET n = n + 1 WHERE id <= 10")
        found = verify("hot", "--wait", "2")
        assert (verify.code, found["state"]) == (4, "unknown")
        assert "has not" in found["reason"]
    finally:
        cdc("resume", "sink/copy", "-c", str(shop.config))
    found = verify("hot")
    assert (verify.code, found["state"]) == (0, "equal")


def test_what_cannot_be_verified_is_refused_by_name(
    shop: Shop, verify: Verify, cdc: Cdc, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = verify("kept")
    assert (verify.code, found["state"]) == (2, "refused")
    assert "no table" in verify("nothing")
    assert verify.code == 2
    monkeypatch.delattr("sinks.targets.postgres.readable")
    ended = cdc("verify", f"{shop.name}db", "copy", "-c", str(shop.config))
    assert ended.code == 2
    assert "sink/copy cannot be verified" in ended.err


def test_a_table_that_is_not_there_differs(shop: Shop, verify: Verify, cdc: Cdc) -> None:
    shop.spoil("ALTER TABLE copy.hot RENAME TO gone")
    found = verify("hot")
    shop.spoil("ALTER TABLE copy.gone RENAME TO hot")
    assert (verify.code, found["state"], found["reason"]) == (
        6, "differs", "there is no table copy.hot",
    )  # fmt: skip
