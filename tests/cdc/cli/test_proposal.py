"""A mapping between two databases that know nothing of each other, guessed and then confirmed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc.cli.proposal import TableMatch, match_tables, proposal_text
from cdc.config import parse_pipeline
from fix_cli import Cdc
from schemas.table import Column, TableId, TableSchema, Type
from sinks.binding import MappedTable
from sinks.mapping import Selection

KINDS = {
    "int": Type("int32", "postgres integer"),
    "bigint": Type("int64", "postgres bigint"),
    "text": Type("string", "postgres text"),
    "code": Type("string", "postgres character varying(8)"),
    "date": Type("date", "postgres date"),
    "at": Type("timestamptz", "postgres timestamp with time zone"),
    "bytes": Type("bytes", "postgres bytea"),
    "money": Type("decimal", "postgres numeric(12,2)", 12, 2),
}


def table(name: str, columns: str, key: str = "") -> TableSchema:
    """Return a table of `name:kind` columns."""
    pairs = [pair.split(":") for pair in columns.split()]
    found = tuple(Column(column, KINDS[kind]) for column, kind in pairs)
    return TableSchema(TableId("public", name), found, tuple(key.split()))


CUSTOMERS = table("customers", "id:bigint full_name:text created_at:at email:text", "id")
ORDERS = table("orders", "id:bigint customer_id:bigint total:money placed:at", "id")
AUDIT = table("audit_log", "happened:at what:bytes")
CLIENTS = table("Clients", "client_id:bigint name:text signed_up:date Email:text", "client_id")
SALES = table(
    "tbl_order", "order_id:int customerId:bigint total_amount:money placed_at:at", "order_id"
)


def only(source: TableSchema, target: TableSchema) -> TableMatch:
    [match], _ = match_tables([source], [target])
    return match


def pairs(match: TableMatch) -> dict[str, str]:
    return {column.target: column.source for column in match.columns}


def test_tables_are_paired_by_their_names_and_columns_each_once() -> None:
    matches, alone = match_tables([ORDERS, AUDIT, CUSTOMERS], [CLIENTS, SALES])
    assert [(m.source.table.name, m.target.table.name) for m in matches] == [
        ("orders", "tbl_order"),
        ("customers", "Clients"),
    ]
    assert alone == [AUDIT]


def test_columns_are_paired_by_words_whatever_their_spelling() -> None:
    assert pairs(only(ORDERS, SALES)) == {
        "customerId": "customer_id",
        "total_amount": "total",
        "placed_at": "placed",
    } | {"order_id": "id"}
    found = pairs(only(CUSTOMERS, CLIENTS))
    assert found | {"signed_up": ""} == {
        "client_id": "id",
        "name": "full_name",
        "Email": "email",
        "signed_up": "",
    }


def test_confidence_is_whole_for_the_same_table_and_less_for_another_spelling() -> None:
    same = only(CUSTOMERS, CUSTOMERS)
    assert (same.confidence, {column.confidence for column in same.columns}) == (1.0, {1.0})
    assert only(CUSTOMERS, CLIENTS).confidence < 0.95


def test_a_column_of_another_type_is_cast_and_one_that_cannot_be_is_left_out() -> None:
    there = table("customers", "id:bigint full_name:bytes created_at:date email:text", "id")
    found = {column.target: column.cast for column in only(CUSTOMERS, there).columns}
    assert found == {"id": "", "created_at": "date", "email": ""}
    assert only(CUSTOMERS, there).unfilled == ["full_name"]


def test_a_narrower_column_is_cast_so_that_it_is_meant_so() -> None:
    one = table("codes", "id:bigint code:text wide:code", "id")
    there = table("codes", "id:int code:code wide:text", "id")
    found = {column.target: column.cast for column in only(one, there).columns}
    assert found == {"id": "int", "code": "text", "wide": ""}


def test_names_without_a_word_in_common_are_not_alike_whatever_their_letters() -> None:
    one = table("größe", "id:bigint länge:text", "id")
    other = table("цена", "id:bigint высота:text", "id")
    assert match_tables([one], [other]) == ([], [one])
    assert pairs(only(one, one)) == {"id": "id", "länge": "länge"}


def test_many_tables_are_matched_in_a_bearable_number_of_comparisons() -> None:
    words = [
        "red",
        "green",
        "blue",
        "black",
        "white",
        "small",
        "large",
        "cold",
        "warm",
        "old",
        "new",
        "fast",
        "slow",
    ]
    names = [f"{one}_{other}" for one in words for other in words if one != other]
    tables = [table(name, f"id:bigint {name}_name:text total:money", "id") for name in names]
    matches, alone = match_tables(tables, tables[::-1])
    assert {match.source.table: match.target.table for match in matches} == {
        one.table: one.table for one in tables
    }
    assert alone == []


def test_a_pair_whose_key_nothing_fills_is_not_proposed() -> None:
    there = table("customers", "code:bytes full_name:text email:text created_at:at", "code")
    matches, alone = match_tables([CUSTOMERS], [there])
    assert (matches, alone) == ([], [CUSTOMERS])


def confirmed(text: str) -> str:
    """Take the first comment mark of each line away, as the file says."""
    return re.sub(r"(?m)^# ", "", text)


def test_a_proposal_is_a_comment_until_it_is_confirmed_and_then_binds() -> None:
    odd = table("no", "id:bigint yes:text", "id")
    tables, targets = [CUSTOMERS, ORDERS, AUDIT, odd], [CLIENTS, SALES, odd]
    text = proposal_text("shop", "postgres", *match_tables(tables, targets))
    assert all(line.startswith("# ") for line in text.splitlines())
    head = "pipeline: shop\nkafka: {bootstrap: k, registry: 'http://r'}\n"
    made = parse_pipeline(
        head + confirmed(text), Path("x.yaml"), {"TARGET_URL": "postgresql://u@h/d"}
    )
    config: Any = made.sinks["copy"].config
    for source in (CUSTOMERS, ORDERS, odd):
        topic = f"shop.public.{source.table.name}"
        [mapping] = Selection(config.tables).mappings(topic)
        assert MappedTable.bind(source, topic, mapping).schema.key
    assert "public.audit_log: no counterpart found" in text


def test_init_proposes_a_mapping_into_a_database_that_is_there(
    cdc: Cdc, fresh_database: Callable[[], str], tmp_path: Path
) -> None:
    source, target = fresh_database(), fresh_database()
    for url, made in (
        (source, "CREATE TABLE customers (id bigint PRIMARY KEY, full_name text, created_at date)"),
        (target, "CREATE TABLE clients (client_id bigint PRIMARY KEY, name text, created date)"),
    ):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(made)
    file = tmp_path / "tailrace.yaml"
    assert cdc("init", source, target, "--name", "shop", "-o", str(file)).code == 0
    text = file.read_text()
    parse_pipeline(text, file, {"SHOP_URL": source})
    head, marked, proposal = text.partition("# sinks:")
    found = parse_pipeline(
        head + confirmed(marked + proposal), file, {"SHOP_URL": source, "TARGET_URL": target}
    )
    config: Any = found.sinks["copy"].config
    [(topic, [mapping])] = config.tables.items()
    assert (topic, mapping.to) == ("shop.public.customers", "public.clients")
    assert {name: field.source for name, field in mapping.fields.items()} == {
        "client_id": "id",
        "name": "full_name",
        "created": "created_at",
    }


@pytest.mark.parametrize("url", ["sqlite:///x.db", "http://h/"])
def test_a_target_that_cannot_be_looked_at_is_named(
    url: str, cdc: Cdc, pg_database: str, tmp_path: Path
) -> None:
    ended = cdc("init", pg_database, url, "-o", str(tmp_path / "x.yaml"))
    assert (ended.code, "cannot be looked at" in ended.err) == (2, True)
