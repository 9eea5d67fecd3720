"""The two databases of a MariaDB storm: their tables, and the triggers that write down the truth.

At the source a journal, in the transaction of the change and in a database that is not captured;
in the target an audit of every effect. The journal holds texts as `crash.topics` makes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing

from cdc.connections.mariadb import Login, connect, fetch
from crash.evidence import Effect, Entry, Floor, Stand
from crash.matching import LOW
from crash.target_checks import ACCOUNTS

TABLES: Mapping[str, tuple[str, str]] = {
    "accounts": ("bigint", "balance bigint not null"),
    "plain": ("bigint", "amount decimal(12,2), note varchar(200), seen timestamp(6) null"),
    "renamed": ("varchar(40) collate utf8mb4_nopad_bin", "label varchar(80)"),
    "reborn": ("bigint", "round integer"),
}
"""By table: the type of its key, and its columns beside the key and the version."""

VERSION = "nextval(journal.versions)"
FIRST = 3_000
LAST = -1

JOURNAL = """
create table journal.entries (
    id bigint auto_increment primary key, relation varchar(20) not null,
    `key` varchar(40) not null, version bigint, op char(1) not null, `row` longtext, pair bigint
)
"""
AUDIT = """
create table audit_effects (
    id bigint auto_increment primary key, relation varchar(20) not null,
    `key` varchar(40) not null, version bigint, op char(1) not null
)
"""
FLOOR = Floor(1, 1, frozenset())
"""It sees transaction 0, of the first rows, and no other: see `journal`."""


def make_source(url: str) -> None:
    """Make the tables, the journal and the first rows."""
    for table in TABLES:
        run(url, _table(table))
    run(
        url,
        "create database journal",
        "create sequence journal.versions",
        "create sequence journal.pairs",
        JOURNAL,
        *_journal_triggers(),
    )
    accounts = [(i, 1000) for i in range(1, ACCOUNTS + 1)]
    plain = [(i, i % 1000 / 7, f"first {i}") for i in range(1, FIRST + 1)]
    with closing(connect(Login(url, "storm"))) as connection, connection.cursor() as cursor:
        connection.begin()
        cursor.executemany(f"insert into accounts values (%s, %s, {VERSION})", accounts)
        cursor.executemany(
            f"insert into plain (id, amount, note, version) values (%s, %s, %s, {VERSION})", plain
        )
        connection.commit()


def make_target(url: str) -> None:
    """Make the same tables, with an audit."""
    run(url, AUDIT, *(_table(table) for table in TABLES))
    for table in TABLES:
        for op, row in (("insert", "new"), ("update", "new"), ("delete", "old")):
            run(
                url,
                f"create trigger {table}_{op} after {op} on {table} for each row"
                " insert into audit_effects (relation, `key`, version, op)"
                f" values ('{table}', {row}.id, {row}.version, '{op[0]}')",
            )


def _table(name: str) -> str:
    key, columns = TABLES[name]
    return f"create table {name} (id {key} primary key, {columns}, version bigint not null)"


def _journal_triggers() -> Iterator[str]:
    into = "insert into journal.entries (relation, `key`, version, op, `row`, pair)"
    for table in TABLES:
        image = _image(table)
        head = f"create trigger {table}_%s after %s on {table} for each row "
        gone = f"{into} values ('{table}', old.id, null, 'd', null, "
        made = f"{into} values ('{table}', new.id, new.version, '%s', {image}, "
        yield head % ("i", "insert") + made % "c" + "null)"
        yield head % ("d", "delete") + gone + "null)"
        yield (
            head % ("u", "update")
            + "begin if old.id = new.id then "
            + made % "u"
            + "null); else set @pair = nextval(journal.pairs); "
            + f"{gone} @pair); "
            + made % "c"
            + "@pair); end if; end"
        )


def _image(table: str) -> str:
    """Return the row as JSON of texts; a time as PostgreSQL prints it."""
    parts = []
    for declared in ("id", *TABLES[table][1].split(", "), "version"):
        name = declared.split()[0]
        text = f"cast(new.{name} as char)"
        if name == "seen":
            digits = "date_format(new.seen, '%%Y-%%m-%%d %%H:%%i:%%s.%%f')"
            text = f"concat(trim(trailing '.' from trim(trailing '0' from {digits})), '+00')"
        parts.append(f"'{name}', {text}")
    return f"json_object({', '.join(parts)})"


def run(url: str, *statements: str) -> int:
    """Run statements; the number of rows of the last one."""
    with closing(connect(Login(url, "storm"))) as connection, connection.cursor() as cursor:
        return [cursor.execute(statement) for statement in statements][-1]


def journal(source: str) -> list[Entry]:
    """Return the journal. A trigger does not know the transaction's global id.

    Which rows the snapshot may have brought is told all the same: those of the first transaction
    have the number 0, all later ones another that is 0 where it is compared (`matching.LOW`).
    """
    query = "select id, relation, `key`, version, op, `row`, pair from journal.entries order by id"
    entries = []
    with closing(connect(Login(source, "storm"))) as connection:
        for number, table, key, version, op, row, pair in fetch(connection, query):
            xid = 0 if number <= ACCOUNTS + FIRST else LOW
            image = json.loads(row) if row else None
            entries.append(Entry(number, table, key, version, op, xid, image, pair, kept=False))
    return entries


def target_facts(target: str) -> list[Effect]:
    """Return every effect in the order it happened."""
    query = "select relation, `key`, version, op from audit_effects order by id"
    with closing(connect(Login(target, "storm"))) as connection:
        return [Effect(*row) for row in fetch(connection, query)]


def rows_of(url: str, table: str) -> dict[str, Stand]:
    """Return a table's rows by key."""
    names = ", ".join(declared.split()[0] for declared in TABLES[table][1].split(", "))
    query = f"select cast(id as char), version, md5(concat_ws('|', version, {names})) from {table}"
    with closing(connect(Login(url, "storm"))) as connection:
        return {key: Stand(version, digest) for key, version, digest in fetch(connection, query)}
