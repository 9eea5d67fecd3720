"""The type of a column as a migration spells it → the type the sources make of it."""

from __future__ import annotations

import re

from cdc.decode.mysqltypes import MysqlColumn, logical
from cdc.decode.pgtypes import BUILT_IN
from schemas.table import Type

__all__ = ["mysql_type", "postgres_type"]

_SPELLED = re.compile(r"([a-z_][a-z0-9_ ]*?)\s*(?:\(([^)]*)\))?((?: [a-z ]+)?)((?:\[\])*)")
_POSTGRES = {
    "bool": "boolean",
    "int2": "smallint",
    "smallserial": "smallint",
    "int": "integer",
    "int4": "integer",
    "serial": "integer",
    "int8": "bigint",
    "bigserial": "bigint",
    "float": "double precision",
    "float4": "real",
    "float8": "double precision",
    "decimal": "numeric",
    "varchar": "character varying",
    "char": "character",
    "varbit": "bit varying",
    "time": "time without time zone",
    "timetz": "time with time zone",
    "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone",
}
_LOGICAL = {rule.name: rule.logical for rule in BUILT_IN.values()}
_MYSQL = {"integer": "int", "numeric": "decimal", "bool": "tinyint", "boolean": "tinyint"}


def postgres_type(spelled: str) -> Type:
    """Return the type of a PostgreSQL column; what is not built in is its text."""
    words = " ".join(spelled.lower().split())
    found = _SPELLED.fullmatch(words)
    if found is None:
        return Type("text", f"postgres {words}")
    base = _POSTGRES.get(found[1] + found[3], found[1] + found[3])
    arguments = "" if found[2] is None else f"({found[2].replace(' ', '')})"
    if base == "character" and not arguments:
        arguments = "(1)"
    head, space, rest = base.partition(" ")
    timed = head in ("time", "timestamp")
    native = f"{head}{arguments}{space}{rest}" if timed else f"{base}{arguments}"
    if found[4]:
        return Type("text", f"postgres {native}[]")
    if base == "numeric":
        return _numeric(found[2])
    return Type(_LOGICAL.get(base, "text"), f"postgres {native}")


def _numeric(arguments: str | None) -> Type:
    if arguments is None:
        return Type("text", "postgres numeric")
    precision, _, scale = arguments.partition(",")
    digits = (int(precision), int(scale or 0))
    return Type("decimal", f"postgres numeric({digits[0]},{digits[1]})", *digits)


def mysql_type(spelled: str) -> Type:
    """Return the type of a MariaDB column. Raises `ValueError` for one that is not captured."""
    words = " ".join(spelled.lower().split())
    name, _, rest = words.partition("(")
    kind = _MYSQL.get(name.split()[0], name.split()[0])
    inside = rest.partition(")")[0]
    numbers = [int(part) for part in inside.split(",") if part.strip().isdigit()]
    labels = tuple(re.findall(r"'((?:[^']|'')*)'", spelled)) if kind in ("enum", "set") else ()
    precision, scale = (*numbers, 10, 0)[:2] if len(numbers) != 1 else (numbers[0], 0)
    text = words.replace(", ", ",").replace(name.split()[0], kind, 1)
    unsigned = "unsigned" in words
    return logical(
        MysqlColumn(
            "it", kind, text, unsigned=unsigned, precision=precision, scale=scale, labels=labels
        ),
        "mariadb",
    )
