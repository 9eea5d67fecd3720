"""Source and target, row by row: what is equal, what differs, and where.

Both sides are streamed in key order through server-side cursors and merged like two sorted
files, so memory does not grow with the tables. Values are compared as texts: each engine prints
them, and where two print equal values differently, the text is brought to one form here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
import orjson

from cdc.demo.engines import Engine, Pair, Session
from cdc.demo.shop import TABLES

__all__ = ["Comparison", "Difference", "compare_shop"]

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


class _Compared(msgspec.Struct, frozen=True):
    """One table and what it must equal: the columns of both, as many and in the same order.

    `kinds` are those of `_KINDS`, or "text"; the first `key` columns are the key.
    """

    table: str
    target: str
    key: int
    wanted: tuple[str, ...]
    columns: tuple[str, ...]
    kinds: tuple[str, ...]


_KINDS: Mapping[str, str] = {
    "address": "json",
    "tags": "words",
    "weight_kg": "float",
    "created_at": "moment",
    "updated_at": "moment",
    "placed_at": "moment",
}
"""The columns of the shop whose texts differ from server to server."""

_CRM = _Compared(
    table="customers",
    target="crm.clients",
    key=1,
    wanted=("id", "full_name", "created_at"),
    columns=("client_id", "name", "signed_up"),
    kinds=("text", "text", "day"),
)
"""What the demo's `crm` sink is configured to make of the customers."""


def _json(text: str) -> str:
    return orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS).decode()


def _words(text: str) -> str:
    return ",".join(re.findall(r"\w+", text))


def _single(text: str) -> str:
    """Return the number of 32 bits a text means, whatever digits a server prints of it."""
    return repr(struct.unpack("f", struct.pack("f", float(text)))[0])


_ONE_FORM: Mapping[str, Callable[[str], str]] = {"json": _json, "words": _words, "float": _single}


def _whole_tables(source: Session, schema: str, mirror: str) -> Iterator[_Compared]:
    for table in TABLES:
        found = source.fetch(
            "select column_name from information_schema.columns"
            " where table_schema = %s and table_name = %s order by ordinal_position",
            (schema, table),
        )
        key = _KEYS[table]
        columns = (*key, *(name for (name,) in found if name not in key))
        kinds = tuple(_KINDS.get(name, "text") for name in columns)
        yield _Compared(table, f"{mirror}.{table}", len(key), columns, columns, kinds)


def _rows(
    session: Session, engine: Engine, table: str, columns: Sequence[str], compared: _Compared
) -> Iterator[_Row]:
    """Yield the rows of one side in the order of their keys, in one form of text."""
    forms = [engine.forms.get(kind, engine.forms["text"]) for kind in compared.kinds]
    texts = ", ".join(form.format(name) for form, name in zip(forms, columns, strict=True))
    order = ", ".join(engine.order.format(name) for name in columns[: compared.key])
    query = f"select {texts} from {table} order by {order}"  # noqa: S608 - our own names
    shaped = [(i, _ONE_FORM[kind]) for i, kind in enumerate(compared.kinds) if kind in _ONE_FORM]
    for found in session.stream(query):
        row = list(found)
        for place, one_form in shaped:
            row[place] = None if row[place] is None else one_form(row[place])
        yield tuple(row)


def _merge(
    comparison: Comparison, compared: _Compared, wanted: Iterator[_Row], got: Iterator[_Row]
) -> int:
    """Walk two sorted streams; return the number of rows that were found on both sides."""
    name, both = compared.target, 0
    left, right = next(wanted, None), next(got, None)
    while left is not None or right is not None:
        lkey = None if left is None else _order_key(left, compared.key)
        rkey = None if right is None else _order_key(right, compared.key)
        if left is not None and (rkey is None or (lkey is not None and lkey < rkey)):
            comparison.add(name, _label(left, compared), "missing in the target")
            left = next(wanted, None)
        elif right is not None and (lkey is None or (rkey is not None and rkey < lkey)):
            comparison.add(name, _label(right, compared), "only in the target")
            right = next(got, None)
        elif left is not None and right is not None:
            both += 1
            if left != right:
                comparison.add(name, _label(left, compared), _differing(compared, left, right))
            left, right = next(wanted, None), next(got, None)
    return both


def _order_key(row: _Row, width: int) -> tuple[bytes, ...]:
    return tuple((cell or "").encode() for cell in row[:width])


def _label(row: _Row, compared: _Compared) -> str:
    return ", ".join(
        f"{column}={cell}"
        for column, cell in zip(compared.columns, row[: compared.key], strict=False)
    )


def _differing(compared: _Compared, left: _Row, right: _Row) -> str:
    return "; ".join(
        f"{column}: source {a!r}, target {b!r}"
        for column, a, b in zip(compared.columns, left, right, strict=True)
        if a != b
    )


def _compare(comparison: Comparison, pair: Pair, urls: tuple[str, str], mirror: str) -> None:
    """Compare with one target, `mirror` is the schema of whole tables there, "" for the crm."""
    with pair.source.session(urls[0]) as source, pair.target.session(urls[1]) as target:
        for session in (source, target):
            session.execute("set transaction isolation level repeatable read")
        whole = _whole_tables(source, pair.source.schema, mirror)
        for compared in list(whole) if mirror else [_CRM]:
            wanted = _rows(source, pair.source, compared.table, compared.wanted, compared)
            got = _rows(target, pair.target, compared.target, compared.columns, compared)
            comparison.rows[compared.target] = _merge(comparison, compared, wanted, got)


def compare_shop(pair: Pair, source: str, mirror: str, crm: str) -> Comparison:
    """Compare the shop at `source` with both targets; arguments are connection URLs."""
    comparison = Comparison()
    _compare(comparison, pair, (source, mirror), pair.target.mirror)
    _compare(comparison, pair, (source, crm), "")
    return comparison
