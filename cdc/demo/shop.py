"""The shop: its tables and its first rows. Names and goods are made up here, from word lists."""

from __future__ import annotations

import random
from importlib.resources import files
from typing import Any

import orjson

from cdc.demo.engines import Engine, Session

__all__ = ["TABLES", "create_shop", "customer", "product"]

TABLES = ("customers", "products", "inventory", "orders", "order_items")
"""Parents first."""

_CUSTOMERS = 400
_PRODUCTS = 150
_FIRST = [
    "Ada",
    "Amir",
    "Ana",
    "Ben",
    "Chiara",
    "Chloé",
    "Daan",
    "Elif",
    "Emma",
    "Finn",
    "Grace",
    "Hana",
    "Ines",
    "Ivo",
    "Jan",
    "Jonas",
    "Kofi",
    "Lars",
    "Lea",
    "Lina",
    "Luca",
    "Maja",
    "Marek",
    "Mei",
    "Milan",
    "Nadia",
    "Nils",
    "Noor",
    "Olga",
    "Omar",
    "Paula",
    "Pavel",
    "Rosa",
    "Sami",
    "Sofia",
    "Søren",
    "Theo",
    "Uma",
    "Vera",
    "Yuki",
    "Zoë",
]
_LAST = [
    "Almeida",
    "Andersen",
    "Bauer",
    "Bianchi",
    "Costa",
    "Demir",
    "Dubois",
    "Eriksen",
    "Fischer",
    "García",
    "Haddad",
    "Horvat",
    "Ivanova",
    "Jansen",
    "Kaya",
    "Kowalski",
    "Lindqvist",
    "Mäkinen",
    "Marino",
    "Meyer",
    "Moreau",
    "Nagy",
    "Novák",
    "Okafor",
    "O'Brien",
    "Petrov",
    "Quist",
    "Rossi",
    "Sato",
    "Schäfer",
    "Silva",
    "Tanaka",
    "Umarov",
    "Visser",
    "Wójcik",
    "Yilmaz",
    "Zhang",
]
_STREETS = [
    "Harbour",
    "Mill",
    "Station",
    "Garden",
    "Market",
    "Church",
    "Bridge",
    "Orchard",
    "School",
    "Castle",
]
_CITIES = (
    ("Lisboa", "PT"),
    ("Kraków", "PL"),
    ("Utrecht", "NL"),
    ("Malmö", "SE"),
    ("Lyon", "FR"),
    ("Graz", "AT"),
    ("Brno", "CZ"),
    ("Porto", "PT"),
    ("Gdańsk", "PL"),
    ("Bremen", "DE"),
)
_MATERIALS = [
    "Oak",
    "Steel",
    "Linen",
    "Ceramic",
    "Copper",
    "Bamboo",
    "Wool",
    "Glass",
    "Cork",
    "Leather",
]
_GOODS = [
    "Kettle",
    "Lamp",
    "Chair",
    "Blanket",
    "Bowl",
    "Tray",
    "Knife",
    "Basket",
    "Clock",
    "Notebook",
    "Stool",
    "Mug",
]
_TAGS = ["kitchen", "living", "gift", "new", "sale", "outdoor", "office", "handmade"]


def customer(random_: random.Random, number: int) -> dict[str, Any]:
    """Return a customer; `number` keeps the e-mail address unique."""
    first, last = random_.choice(_FIRST), random_.choice(_LAST)
    city, country = random_.choice(_CITIES)
    return {
        "full_name": f"{first} {last}",
        "email": f"{first}.{last}.{number}@example.com".lower().replace("'", ""),
        "phone": f"+{random_.randint(30, 49)} {random_.randint(100_000, 9_999_999)}"
        if random_.random() < 0.8
        else None,
        "address": orjson.dumps(
            {
                "street": f"{random_.choice(_STREETS)} Street {random_.randint(1, 180)}",
                "city": city,
                "country": country,
            }
        ).decode(),
    }


def product(random_: random.Random, number: int, words: str) -> dict[str, Any]:
    """Return a product; `number` keeps its stock-keeping unit unique, `words` is the engine's."""
    material, good = random_.choice(_MATERIALS), random_.choice(_GOODS)
    return {
        "sku": f"{good[:3].upper()}-{material[:2].upper()}-{number:05d}",
        "name": f"{material} {good}",
        "price": f"{random_.randint(300, 25_000) / 100:.2f}",
        "tags": words.format(",".join(random_.sample(_TAGS, random_.randint(0, 3)))),
        "weight_kg": round(random_.uniform(0.05, 12), 3),
        "available": f"[2026-0{random_.randint(1, 9)}-01,)" if random_.random() < 0.5 else None,
    }


def create_shop(engine: Engine, session: Session, random_: random.Random) -> None:
    """Create the tables and the first rows."""
    script = files("cdc.demo").joinpath(engine.script).read_text(encoding="utf-8")
    people = [customer(random_, number) for number in range(_CUSTOMERS)]
    goods = [product(random_, number, engine.words) for number in range(_PRODUCTS)]
    for statement in script.split(";\n"):
        if statement.strip():
            session.execute(statement)
    session.execute_many(
        "insert into customers (full_name, email, phone, address)"
        " values (%(full_name)s, %(email)s, %(phone)s, %(address)s)",
        people,
    )
    session.execute_many(
        "insert into products (sku, name, price, tags, weight_kg, available)"
        " values (%(sku)s, %(name)s, %(price)s, %(tags)s, %(weight_kg)s, %(available)s)",
        goods,
    )
    session.execute("insert into inventory (sku, on_hand) select sku, 500 from products")
    session.commit()
