"""Source and target, row by row: what is equal, what differs, and where.

Both sides are streamed in key order through server-side cursors and merged like two sorted
files, so memory does not grow with the tables. Values are compared as PostgreSQL text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from cdc.demo.shop import TABLES

__all__ = ["Comparison", "Difference", "compare_shop"]

_PAGE = 5_000
_NAMED = 20
_KEYS: dict[str, tuple[str, ...]] = {
    "customers": ("id",),
    "products": ("sku",),
    "inventory": ("sku",),
    "orders": ("id",),
    "order_items": ("order_id", "line"),
}
_Row = tuple[str | None, ...]


class Difference(msgspec.Struct, frozen=True):
    """One row that is not the same: the target's table, the key, and what is wrong."""

    table: str
    key: str
    problem: str


class Comparison(msgspec.Struct):
    """What was looked at; `differences` names the first twenty, `different` counts all."""

    rows: dict[str, int] = msgspec.field(default_factory=dict)
    differences: list[Difference] = msgspec.field(default_factory=list)
    different: int = 0

    @property
    def equal(self) -> bool:
        """Whether every row of every table is the same on both sides."""
        return self.different == 0

    def add(self, table: str, key: str, problem: str) -> None:
        """Count one difference and keep it while the list is short."""
        self.different += 1
        if len(self.differences) < _NAMED:
            self.differences.append(Difference(table, key, problem))


class _Pair(msgspec.Struct, frozen=True):
    """One table and what it must equal: column names, and the same number of expressions."""

    table: str
    target: tuple[str, str]
    key: int
    columns: tuple[str, ...]
    wanted: tuple[str, ...]
    order: tuple[str, ...]


_CRM = _Pair(
    table="customers",
    target=("crm", "clients"),
    key=1,
    columns=("client_id", "name", "signed_up"),
    wanted=("id", "full_name", "(created_at at time zone 'UTC')::date"),
    order=("id",),
)
"""What the demo's `crm` sink is configured to make of the customers."""


def _mirror_pairs(source: psycopg.Connection[Any]) -> Iterator[_Pair]:
    for table in TABLES:
        found = source.execute(
            "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0"
            " and not attisdropped order by attnum",
            (table,),
        )
        key = _KEYS[table]
        rest = tuple(row[0] for row in found if row[0] not in key)
        columns = (*key, *rest)
        yield _Pair(table, ("public", table), len(key), columns, columns, key)


def _rows(connection: psycopg.Connection[Any], query: sql.Composed, name: str) -> Iterator[_Row]:
    with connection.cursor(name) as cursor:
        cursor.itersize = _PAGE
        cursor.execute(query)
        yield from cursor


def _select(
    columns: Sequence[sql.Composable], table: sql.Composable, order: Sequence[sql.Composable]
) -> sql.Composed:
    ordered = [sql.SQL('{}::text collate "C"').format(column) for column in order]
    return sql.SQL("select {} from {} order by {}").format(
        sql.SQL(", ").join(sql.SQL("({})::text").format(column) for column in columns),
        table,
        sql.SQL(", ").join(ordered),
    )


def _expression(text: str) -> sql.Composable:
    return sql.Identifier(text) if text.isidentifier() else sql.SQL(text)


def _merge(comparison: Comparison, pair: _Pair, wanted: Iterator[_Row], got: Iterator[_Row]) -> int:
    """Walk two sorted streams; return the number of rows that were found on both sides."""
    name, both = ".".join(pair.target), 0
    left, right = next(wanted, None), next(got, None)
    while left is not None or right is not None:
        lkey = None if left is None else _order_key(left, pair.key)
        rkey = None if right is None else _order_key(right, pair.key)
        if left is not None and (rkey is None or (lkey is not None and lkey < rkey)):
            comparison.add(name, _label(left, pair), "missing in the target")
            left = next(wanted, None)
        elif right is not None and (lkey is None or (rkey is not None and rkey < lkey)):
            comparison.add(name, _label(right, pair), "only in the target")
            right = next(got, None)
        elif left is not None and right is not None:
            both += 1
            if left != right:
                comparison.add(name, _label(left, pair), _differing(pair, left, right))
            left, right = next(wanted, None), next(got, None)
    return both


def _order_key(row: _Row, width: int) -> tuple[bytes, ...]:
    return tuple((cell or "").encode() for cell in row[:width])


def _label(row: _Row, pair: _Pair) -> str:
    return ", ".join(
        f"{column}={cell}" for column, cell in zip(pair.columns, row[: pair.key], strict=False)
    )


def _differing(pair: _Pair, left: _Row, right: _Row) -> str:
    return "; ".join(
        f"{column}: source {a!r}, target {b!r}"
        for column, a, b in zip(pair.columns, left, right, strict=True)
        if a != b
    )


def _compare(
    comparison: Comparison, source: str, target: str, pairs: Sequence[_Pair] | None
) -> None:
    options = "-c timezone=UTC -c default_transaction_isolation=repeatable\\ read"
    with (
        psycopg.connect(source, options=options) as ours,
        psycopg.connect(target, options=options) as theirs,
    ):
        for pair in pairs if pairs is not None else list(_mirror_pairs(ours)):
            wanted = _select(
                [_expression(text) for text in pair.wanted],
                sql.Identifier(pair.table),
                [sql.Identifier(name) for name in pair.order],
            )
            got = _select(
                [sql.Identifier(name) for name in pair.columns],
                sql.Identifier(*pair.target),
                [sql.Identifier(name) for name in pair.columns[: pair.key]],
            )
            both = _merge(
                comparison, pair, _rows(ours, wanted, "wanted"), _rows(theirs, got, "got")
            )
            comparison.rows[".".join(pair.target)] = both


def compare_shop(source: str, mirror: str, crm: str) -> Comparison:
    """Compare the shop at `source` with both targets; arguments are connection URLs."""
    comparison = Comparison()
    _compare(comparison, source, mirror, None)
    _compare(comparison, source, crm, [_CRM])
    return comparison
