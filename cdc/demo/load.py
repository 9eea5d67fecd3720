"""What customers and staff do: one transaction at a time, drawn at random, all of it counted.

Actions touch several tables at once, change keys (a product gets a new stock-keeping unit, which
cascades), delete, and sometimes roll back, so that the pipeline has something to get wrong. Their
SQL is common to the servers of `engines.py`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count

from cdc.demo.engines import Engine, Session
from cdc.demo.shop import customer, product

__all__ = ["Load"]

_NOTES = ("Happy birthday!", "Danke schön", "with love, Søren", None, None, None, "für Oma 🎂")
_ROLLED_BACK = 0.02


class Load:
    """A busy shop on one session. `done` counts rows by insert, update, delete, key change."""

    def __init__(self, engine: Engine, session: Session, random_: random.Random) -> None:
        self._engine = engine
        self._session = session
        self._random = random_
        self._numbers = count(100_000)
        self._skus = [row[0] for row in session.fetch("select sku from products order by sku")]
        self._people = [row[0] for row in session.fetch("select id from customers order by id")]
        self._orders: list[int] = []
        self._on_commit: list[Callable[[], object]] = []
        self._made: Counter[str] = Counter()
        self._weighted: dict[Callable[[], None], int] = {
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
        session.commit()

    @property
    def changes(self) -> int:
        """Rows changed and committed so far."""
        return self.done.total()

    def act(self) -> None:
        """Carry out one action in one transaction; a few are rolled back."""
        action = self._random.choices(list(self._weighted), list(self._weighted.values()))[0]
        self._made.clear()
        self._on_commit.clear()
        action()
        if self._random.random() < _ROLLED_BACK:
            self._session.rollback()
            return
        self._session.commit()
        self.done += self._made
        self.last = f"{action.__name__.strip('_').replace('_', ' ')}"
        for remember in self._on_commit:
            remember()

    def _do(self, what: str, statement: str, values: Sequence[object]) -> None:
        """Run a statement and count its rows as `what`."""
        self._made[what] += self._session.execute(statement, values)

    def _do_to(self, skus: Sequence[str], what: str, statement: str, *values: object) -> None:
        """Run a statement on the rows of some products."""
        marks = ", ".join(["%s"] * len(skus))
        self._do(what, f"{statement} where sku in ({marks})", (*values, *skus))

    def _place_order(self) -> None:
        skus = self._random.sample(self._skus, self._random.randint(1, 5))
        [(order,)] = self._session.fetch(
            "insert into orders (customer_id, gift_note) values (%s, %s) returning id",
            (self._random.choice(self._people), self._random.choice(_NOTES)),
        )
        self._made["insert"] += 1
        self._do_to(
            skus,
            "insert",
            "insert into order_items (order_id, line, sku, quantity, unit_price)"
            " select %s, row_number() over (order by sku), sku, 1 + mod(char_length(name) + %s, 4),"
            " price from products",
            order,
            self._random.randint(0, 3),
        )
        self._do(
            "update",
            "update orders set total = (select sum(quantity * unit_price) from order_items"
            " where order_id = id) where id = %s",
            (order,),
        )
        self._do(
            "update",
            "update inventory set reserved = reserved + (select quantity from order_items o"
            " where o.order_id = %s and o.sku = inventory.sku)"
            " where sku in (select sku from order_items where order_id = %s)",
            (order, order),
        )
        self._on_commit.append(lambda: self._orders.append(order))

    def _move_order(self) -> None:
        if not self._orders:
            return
        order = self._random.choice(self._orders)
        # The status last: MariaDB gives an assignment the values of those before it.
        self._do(
            "update",
            "update orders set"
            " shipped_on = case status when 'paid' then current_date else shipped_on end,"
            " status = case status when 'new' then 'paid' else 'shipped' end"
            " where id = %s and status <> 'shipped'",
            (order,),
        )
        self._do(
            "update",
            "update customers set loyalty_points = loyalty_points + 1"
            " where id = (select customer_id from orders where id = %s)",
            (order,),
        )

    def _cancel_order(self) -> None:
        if not self._orders:
            return
        order = self._random.choice(self._orders)
        self._do("delete", "delete from order_items where order_id = %s", (order,))
        self._do("delete", "delete from orders where id = %s", (order,))
        self._on_commit.append(lambda: self._orders.remove(order))

    def _change_prices(self) -> None:
        skus = self._random.sample(self._skus, 5)
        self._do_to(
            skus,
            "update",
            "update products set price = round(price * 1.01, 2), updated_at = current_timestamp(6)",
        )

    def _new_customer(self) -> None:
        new = customer(self._random, next(self._numbers))
        [(number,)] = self._session.fetch(
            "insert into customers (full_name, email, phone, address)"
            " values (%s, %s, %s, %s) returning id",
            [new[name] for name in ("full_name", "email", "phone", "address")],
        )
        self._made["insert"] += 1
        self._on_commit.append(lambda: self._people.append(number))

    def _new_product(self) -> None:
        goods = product(self._random, next(self._numbers), self._engine.words)
        self._do(
            "insert",
            "insert into products (sku, name, price, tags, weight_kg, available)"
            " values (%s, %s, %s, %s, %s, %s)",
            [goods[name] for name in ("sku", "name", "price", "tags", "weight_kg", "available")],
        )
        self._do("insert", "insert into inventory (sku, on_hand) values (%s, 100)", (goods["sku"],))
        self._on_commit.append(lambda: self._skus.append(goods["sku"]))

    def _rename_product(self) -> None:
        old = self._random.choice(self._skus)
        new = f"{old[:6]}-{next(self._numbers)}"
        self._do("key change", "update products set sku = %s where sku = %s", (new, old))
        # Where a foreign key cascaded, these two find nothing left to do.
        for table in ("inventory", "order_items"):
            follow = f"update {table} set sku = %s where sku = %s"  # noqa: S608 - our own names
            self._session.execute(follow, (new, old))
        [(items,)] = self._session.fetch("select count(*) from order_items where sku = %s", (new,))
        self._made["key change"] += 1
        self._made["update"] += items
        self._on_commit.append(lambda: self._skus.remove(old))
        self._on_commit.append(lambda: self._skus.append(new))

    def _restock(self) -> None:
        skus = self._random.sample(self._skus, 20)
        self._do_to(skus, "update", "update inventory set on_hand = on_hand + 50, reserved = 0")
