"""What customers and staff do: one transaction at a time, drawn at random, all of it counted.

Actions touch several tables at once, change keys (a product gets a new stock-keeping unit, which
cascades), delete, and sometimes roll back, so that the pipeline has something to get wrong.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any

import psycopg

from cdc.demo.shop import customer, product

__all__ = ["Load"]

_NOTES = ("Happy birthday!", "Danke schön", "with love, Søren", None, None, None, "für Oma 🎂")
_ROLLED_BACK = 0.02
_Cursor = psycopg.Cursor[Any]


class Load:
    """A busy shop on one connection. `done` counts rows by insert, update, delete, key change."""

    def __init__(self, connection: psycopg.Connection[Any], random_: random.Random) -> None:
        self._connection = connection
        self._random = random_
        self._numbers = count(100_000)
        self._skus = [row[0] for row in connection.execute("select sku from products")]
        self._people = [row[0] for row in connection.execute("select id from customers")]
        self._orders: list[int] = []
        self._on_commit: list[Callable[[], object]] = []
        self._made: Counter[str] = Counter()
        self._weighted: dict[Callable[[_Cursor], None], int] = {
            self._place_order: 50,
            self._move_order: 25,
            self._cancel_order: 6,
            self._change_prices: 8,
            self._new_customer: 4,
            self._new_product: 3,
            self._rename_product: 2,
            self._restock: 2,
        }
        self.done: Counter[str] = Counter()
        self.last = ""
        connection.commit()

    @property
    def changes(self) -> int:
        """Rows changed and committed so far."""
        return self.done.total()

    def act(self) -> None:
        """Carry out one action in one transaction; a few are rolled back."""
        action = self._random.choices(list(self._weighted), list(self._weighted.values()))[0]
        self._made.clear()
        self._on_commit.clear()
        committed = False
        with self._connection.transaction() as transaction, self._connection.cursor() as cursor:
            action(cursor)
            if self._random.random() < _ROLLED_BACK:
                raise psycopg.Rollback(transaction)
            committed = True
        if committed:
            self.done += self._made
            self.last = f"{action.__name__.strip('_').replace('_', ' ')}"
            for remember in self._on_commit:
                remember()

    def _did(self, cursor: _Cursor, what: str) -> None:
        self._made[what] += max(cursor.rowcount, 0)

    def _place_order(self, cursor: _Cursor) -> None:
        skus = self._random.sample(self._skus, self._random.randint(1, 5))
        cursor.execute(
            "insert into orders (customer_id, gift_note) values (%s, %s) returning id",
            (self._random.choice(self._people), self._random.choice(_NOTES)),
        )
        row = cursor.fetchone()
        order = 0 if row is None else int(row[0])
        self._did(cursor, "insert")
        cursor.execute(
            "insert into order_items select %s, row_number() over (), sku, 1 + random() * 3, price"
            " from products where sku = any(%s)",
            (order, skus),
        )
        self._did(cursor, "insert")
        cursor.execute(
            "update orders set total = (select sum(quantity * unit_price) from order_items"
            " where order_id = id) where id = %s",
            (order,),
        )
        self._did(cursor, "update")
        cursor.execute(
            "update inventory i set reserved = reserved + quantity from order_items o"
            " where o.order_id = %s and o.sku = i.sku",
            (order,),
        )
        self._did(cursor, "update")
        self._on_commit.append(lambda: self._orders.append(order))

    def _move_order(self, cursor: _Cursor) -> None:
        if not self._orders:
            return
        order = self._random.choice(self._orders)
        cursor.execute(
            "update orders set status = case status when 'new' then 'paid' else 'shipped' end,"
            " shipped_on = case status when 'paid' then current_date else shipped_on end"
            " where id = %s",
            (order,),
        )
        self._did(cursor, "update")
        cursor.execute(
            "update customers set loyalty_points = loyalty_points + 1"
            " where id = (select customer_id from orders where id = %s)",
            (order,),
        )
        self._did(cursor, "update")

    def _cancel_order(self, cursor: _Cursor) -> None:
        if not self._orders:
            return
        order = self._random.choice(self._orders)
        cursor.execute("delete from order_items where order_id = %s", (order,))
        self._did(cursor, "delete")
        cursor.execute("delete from orders where id = %s", (order,))
        self._did(cursor, "delete")
        self._on_commit.append(lambda: self._orders.remove(order))

    def _change_prices(self, cursor: _Cursor) -> None:
        skus = self._random.sample(self._skus, 5)
        cursor.execute(
            "update products set price = round(price * 1.01, 2), updated_at = now()"
            " where sku = any(%s)",
            (skus,),
        )
        self._did(cursor, "update")

    def _new_customer(self, cursor: _Cursor) -> None:
        cursor.execute(
            "insert into customers (full_name, email, phone, address) values (%(full_name)s,"
            " %(email)s, %(phone)s, %(address)s) returning id",
            customer(self._random, next(self._numbers)),
        )
        row = cursor.fetchone()
        self._did(cursor, "insert")
        if row is not None:
            self._on_commit.append(lambda: self._people.append(row[0]))

    def _new_product(self, cursor: _Cursor) -> None:
        goods = product(self._random, next(self._numbers))
        cursor.execute(
            "insert into products (sku, name, price, tags, weight_kg, available) values"
            " (%(sku)s, %(name)s, %(price)s, %(tags)s, %(weight_kg)s, %(available)s)",
            goods,
        )
        self._did(cursor, "insert")
        cursor.execute("insert into inventory (sku, on_hand) values (%s, 100)", (goods["sku"],))
        self._did(cursor, "insert")
        self._on_commit.append(lambda: self._skus.append(goods["sku"]))

    def _rename_product(self, cursor: _Cursor) -> None:
        old = self._random.choice(self._skus)
        new = f"{old[:6]}-{next(self._numbers)}"
        cursor.execute("update products set sku = %s where sku = %s", (new, old))
        self._did(cursor, "key change")
        cursor.execute("select count(*) from order_items where sku = %s", (new,))
        row = cursor.fetchone()
        self._made["key change"] += 1  # inventory's key follows by cascade
        self._made["update"] += 0 if row is None else int(row[0])
        self._on_commit.append(lambda: self._skus.remove(old))
        self._on_commit.append(lambda: self._skus.append(new))

    def _restock(self, cursor: _Cursor) -> None:
        skus = self._random.sample(self._skus, 20)
        cursor.execute(
            "update inventory set on_hand = on_hand + 50, reserved = 0 where sku = any(%s)",
            (skus,),
        )
        self._did(cursor, "update")
