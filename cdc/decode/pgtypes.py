"""PostgreSQL type → logical type: every built-in by its fixed oid, everything else by its row.

The oid and typmod of a column come from the Relation in force at a row (R11). Built-in types have
the same oid in every server (`src/include/catalog/pg_type.dat`) and need nothing else. What users
and extensions create is described by its `pg_type` row of now: a domain is what its base type is,
an enum has its labels, and whatever has no native Avro form is PostgreSQL text.

`native` spells the type with its typmod as `format_type` does, enough to create an equal column.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from schemas.table import Part, Type

__all__ = [
    "BUILT_IN",
    "EXTENSIONS",
    "TYPE_ROWS",
    "TypeRow",
    "column_type",
    "parts_of",
    "type_row",
]

TYPE_ROWS = """
SELECT t.oid, format_type(t.oid, NULL), t.typname, t.typtype, t.typbasetype, t.typtypmod,
       ARRAY(SELECT e.enumlabel FROM pg_catalog.pg_enum e
             WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder)
FROM pg_catalog.pg_type t WHERE t.oid >= 16384 AND t.typtype <> 'p'
"""
"""What `type_row` takes, for every type that is not built in (oids from 16384 are users')."""


class TypeRow(msgspec.Struct, frozen=True):
    """One `pg_type` row: `name` as `format_type` spells it, `kind` is typtype.

    `base` and `typmod` are a domain's, `labels` an enum's; `parts` are a composite's, as far as
    they were asked for: name, type oid and typmod of each.
    """

    oid: int
    name: str
    bare: str
    kind: str
    base: int = 0
    typmod: int = -1
    labels: tuple[str, ...] = ()
    parts: tuple[tuple[str, int, int], ...] = ()


def type_row(row: tuple[int, str, str, str | bytes, int, int, list[str]]) -> TypeRow:
    """Return one row of `TYPE_ROWS` by name; typtype ("char") may come as bytes."""
    oid, name, bare, kind, base, typmod, labels = row
    letter = kind.decode() if isinstance(kind, bytes) else kind
    return TypeRow(oid, name, bare, letter, base, typmod, tuple(labels))


class BuiltIn(NamedTuple):
    """One built-in type: its SQL name, its logical type and the oid of its array, 0 for none."""

    name: str
    logical: str
    array: int


BUILT_IN: dict[int, BuiltIn] = {
    16: BuiltIn("boolean", "boolean", 1000),
    17: BuiltIn("bytea", "bytes", 1001),
    18: BuiltIn('"char"', "string", 1002),
    19: BuiltIn("name", "string", 1003),
    20: BuiltIn("bigint", "int64", 1016),
    21: BuiltIn("smallint", "int16", 1005),
    22: BuiltIn("int2vector", "text", 1006),
    23: BuiltIn("integer", "int32", 1007),
    24: BuiltIn("regproc", "text", 1008),
    25: BuiltIn("text", "string", 1009),
    26: BuiltIn("oid", "int64", 1028),
    27: BuiltIn("tid", "text", 1010),
    28: BuiltIn("xid", "text", 1011),
    29: BuiltIn("cid", "text", 1012),
    30: BuiltIn("oidvector", "text", 1013),
    114: BuiltIn("json", "json", 199),
    142: BuiltIn("xml", "text", 143),
    194: BuiltIn("pg_node_tree", "text", 0),
    600: BuiltIn("point", "text", 1017),
    601: BuiltIn("lseg", "text", 1018),
    602: BuiltIn("path", "text", 1019),
    603: BuiltIn("box", "text", 1020),
    604: BuiltIn("polygon", "text", 1027),
    628: BuiltIn("line", "text", 629),
    650: BuiltIn("cidr", "text", 651),
    700: BuiltIn("real", "float32", 1021),
    701: BuiltIn("double precision", "float64", 1022),
    718: BuiltIn("circle", "text", 719),
    774: BuiltIn("macaddr8", "text", 775),
    790: BuiltIn("money", "text", 791),
    829: BuiltIn("macaddr", "text", 1040),
    869: BuiltIn("inet", "text", 1041),
    1033: BuiltIn("aclitem", "text", 1034),
    1042: BuiltIn("character", "string", 1014),
    1043: BuiltIn("character varying", "string", 1015),
    1082: BuiltIn("date", "date", 1182),
    1083: BuiltIn("time without time zone", "time", 1183),
    1114: BuiltIn("timestamp without time zone", "timestamp", 1115),
    1184: BuiltIn("timestamp with time zone", "timestamptz", 1185),
    1186: BuiltIn("interval", "text", 1187),
    1266: BuiltIn("time with time zone", "text", 1270),
    1560: BuiltIn("bit", "text", 1561),
    1562: BuiltIn("bit varying", "text", 1563),
    1700: BuiltIn("numeric", "decimal", 1231),
    1790: BuiltIn("refcursor", "text", 2201),
    2202: BuiltIn("regprocedure", "text", 2207),
    2203: BuiltIn("regoper", "text", 2208),
    2204: BuiltIn("regoperator", "text", 2209),
    2205: BuiltIn("regclass", "text", 2210),
    2206: BuiltIn("regtype", "text", 2211),
    2950: BuiltIn("uuid", "uuid", 2951),
    2970: BuiltIn("txid_snapshot", "text", 2949),
    3220: BuiltIn("pg_lsn", "text", 3221),
    3361: BuiltIn("pg_ndistinct", "text", 0),
    3402: BuiltIn("pg_dependencies", "text", 0),
    3614: BuiltIn("tsvector", "text", 3643),
    3615: BuiltIn("tsquery", "text", 3645),
    3642: BuiltIn("gtsvector", "text", 3644),
    3734: BuiltIn("regconfig", "text", 3735),
    3769: BuiltIn("regdictionary", "text", 3770),
    3802: BuiltIn("jsonb", "json", 3807),
    3904: BuiltIn("int4range", "text", 3905),
    3906: BuiltIn("numrange", "text", 3907),
    3908: BuiltIn("tsrange", "text", 3909),
    3910: BuiltIn("tstzrange", "text", 3911),
    3912: BuiltIn("daterange", "text", 3913),
    3926: BuiltIn("int8range", "text", 3927),
    4072: BuiltIn("jsonpath", "text", 4073),
    4089: BuiltIn("regnamespace", "text", 4090),
    4096: BuiltIn("regrole", "text", 4097),
    4191: BuiltIn("regcollation", "text", 4192),
    4451: BuiltIn("int4multirange", "text", 6150),
    4532: BuiltIn("nummultirange", "text", 6151),
    4533: BuiltIn("tsmultirange", "text", 6152),
    4534: BuiltIn("tstzmultirange", "text", 6153),
    4535: BuiltIn("datemultirange", "text", 6155),
    4536: BuiltIn("int8multirange", "text", 6157),
    4600: BuiltIn("pg_brin_bloom_summary", "text", 0),
    4601: BuiltIn("pg_brin_minmax_multi_summary", "text", 0),
    5017: BuiltIn("pg_mcv_list", "text", 0),
    5038: BuiltIn("pg_snapshot", "text", 5039),
    5069: BuiltIn("xid8", "text", 271),
}
"""PostgreSQL 14 to 18. A test compares it with `pg_type` of real servers."""

_ARRAYS = {rule.array: oid for oid, rule in BUILT_IN.items() if rule.array}

EXTENSIONS: dict[str, str] = {
    "citext": "string",
    "cube": "text",
    "ean13": "text",
    "gbtreekey16": "text",
    "gbtreekey2": "text",
    "gbtreekey32": "text",
    "gbtreekey4": "text",
    "gbtreekey8": "text",
    "gbtreekey_var": "text",
    "geography": "text",
    "geometry": "text",
    "ghstore": "text",
    "gtrgm": "text",
    "halfvec": "text",
    "hstore": "text",
    "intbig_gkey": "text",
    "isbn": "text",
    "isbn13": "text",
    "ismn": "text",
    "ismn13": "text",
    "issn": "text",
    "issn13": "text",
    "lquery": "text",
    "ltree": "text",
    "ltree_gist": "text",
    "ltxtquery": "text",
    "query_int": "text",
    "seg": "text",
    "sparsevec": "text",
    "upc": "text",
    "vector": "text",
}
"""Base types of extensions by typname; one that is not here is text as well, never refused."""

_NUMERIC, _BPCHAR, _VARCHAR, _BIT, _VARBIT = 1700, 1042, 1043, 1560, 1562
_TIMES = {1083, 1114, 1184, 1266}
_INTERVAL = 1186
_NONE: Mapping[int, TypeRow] = MappingProxyType({})


def column_type(
    oid: int, typmod: int, types: Mapping[int, TypeRow] = _NONE, spelled: str = ""
) -> Type:
    """Return the type of a column.

    `types` holds the rows of types that are not built in. `spelled` is what the server itself
    calls such a column, with its typmod ("vector(3)"), when the caller knows. An oid nobody
    knows (its type was dropped since) is text without a native name.
    """
    if oid in BUILT_IN:
        return _built_in(oid, typmod)
    if oid in _ARRAYS:
        return Type("text", f"{_built_in(_ARRAYS[oid], typmod).native}[]")
    row = types.get(oid)
    if row is None:
        return Type("text", f"postgres {spelled}" if spelled else "")
    native = f"postgres {spelled or row.name}"
    if row.kind == "e":
        return Type("enum", native, labels=row.labels)
    if row.kind == "d":
        return msgspec.structs.replace(column_type(row.base, row.typmod, types), native=native)
    return Type(EXTENSIONS.get(row.bare, "text") if row.kind == "b" else "text", native)


def parts_of(oid: int, types: Mapping[int, TypeRow]) -> tuple[Part, ...]:
    """Return the parts of a composite, also of a domain over one; none for any other type."""
    row = types.get(oid)
    if row is None:
        return ()
    if row.kind == "d":
        return parts_of(row.base, types)
    return tuple(
        Part(name, column_type(kind, typmod, types), parts_of(kind, types))
        for name, kind, typmod in row.parts
    )


def _built_in(oid: int, typmod: int) -> Type:
    rule = BUILT_IN[oid]
    if oid == _NUMERIC:
        return _numeric(typmod)
    return Type(rule.logical, f"postgres {_spell(oid, rule.name, typmod)}")


def _numeric(typmod: int) -> Type:
    """Read precision and scale: `numeric_typmod_precision/scale`, an 11-bit signed scale."""
    if typmod < 4:
        return Type("text", "postgres numeric")
    precision = (typmod - 4) >> 16 & 0xFFFF
    scale = ((typmod - 4 & 0x7FF) ^ 1024) - 1024
    native = f"postgres numeric({precision},{scale})"
    if not 0 <= scale <= precision:  # legal since PostgreSQL 15, not in Avro
        return Type("text", native)
    return Type("decimal", native, precision, scale)


def _spell(oid: int, name: str, typmod: int) -> str:
    """Return what `format_type(oid, typmod)` returns."""
    if oid == _INTERVAL:
        return name + _interval(typmod)
    if typmod < 0:
        return {_BPCHAR: "bpchar", _BIT: '"bit"'}.get(oid, name)
    if oid in (_BPCHAR, _VARCHAR):
        return f"{name}({typmod - 4})"
    if oid in (_BIT, _VARBIT):
        return f"{name}({typmod})"
    if oid in _TIMES:
        head, space, rest = name.partition(" ")
        return f"{head}({typmod}){space}{rest}"
    return name


_FIELDS = {
    0x4: " year",
    0x2: " month",
    0x8: " day",
    0x400: " hour",
    0x800: " minute",
    0x1000: " second",
    0x6: " year to month",
    0x408: " day to hour",
    0xC08: " day to minute",
    0x1C08: " day to second",
    0xC00: " hour to minute",
    0x1C00: " hour to second",
    0x1800: " minute to second",
}
"""Interval typmod, upper half: bits of `src/include/utils/datetime.h`; all set means any."""


def _interval(typmod: int) -> str:
    if typmod < 0:
        return ""
    digits = typmod & 0xFFFF
    precision = f"({digits})" if digits != 0xFFFF else ""
    return _FIELDS.get(typmod >> 16 & 0x7FFF, "") + precision
