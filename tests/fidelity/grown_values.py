"""A hundred more values of each type, made by the server: expressions over a number `g`, 0 to 99.

`nasty_values` names those that are known to break pipelines. These fill the range in between:
every magnitude, every control character, code points of all planes, every offset, every century.
"""

from __future__ import annotations

GROWN = 100

SMALL = frozenset({"boolean", "bit(3)", "public.mood", "regrole"})
"""Types that do not have ninety values, or not the same on every server."""

_SIGN = "CASE WHEN g % 2 = 0 THEN 1 ELSE -1 END"
_POINT = "1 + g * 11253 + CASE WHEN g * 11253 BETWEEN 55295 AND 60000 THEN 9000 ELSE 0 END"
_ASCII = "chr(g + 1)"
_WIDE = f"chr({_POINT})"
_TEXT = f"{_ASCII} || {_WIDE} || repeat({_ASCII}, g % 5)"
_DAY = "date '4714-11-24 BC' + g * 60000"
_TIME = "time '00:00' + g * interval '872.654321 s'"
_STAMP = "timestamp '4714-11-24 BC' + g * interval '1080000 days 1.000001 s'"
_STAMPTZ = f"({_STAMP}) AT TIME ZONE 'UTC'"
_SPAN = (
    "make_interval(years => g - 50, months => (g * 7) % 12 - 6, days => g * 37 - 2000,"
    " secs => g * 1234.567891 - 60000)"
)
_BYTES = "decode(repeat(lpad(to_hex(g * 2 + 1), 2, '0'), g + 1), 'hex')"
_MONEY = "g * 11111.11 - 555555"
_MOODS = "enum_range(NULL::public.mood)"
_BOUNDS = "(ARRAY['[)', '(]', '[]', '()'])[1 + g % 4]"
_PAIR = f"ROW(g, {_TEXT})::public.inner_pair"
_OUTER = f"ROW({_PAIR}, {_STAMPTZ}, ARRAY[g, NULL])::public.outer_pair"
_RIGHTS = (
    "SELECT string_agg(substr('arwdDxt', i + 1, 1), '' ORDER BY i) FROM generate_series(0, 6) i"
)
_NUMBER = "g || repeat('9', g) || '.' || repeat('0', g) || g"
_TINY = "repeat('0', g) || '1' || repeat('0', g % 7)"
_XIDS = "(g + 1) || ':' || (g * 2 + 20) || ':' || (g + 5)"
_NAMES = "((SELECT array_agg(oid ORDER BY {order}) FROM {table} WHERE {which}))[1 + g]::{kind}"
_PAIRS = "'{0}(' || g || ',' || -g * 0.1 || '),(' || g * 3e10 || ',4){1}'"


def _magnitude(most: str, power: int) -> str:
    """Both signs of a type's whole range, from its greatest to a few."""
    return f"trunc({_SIGN} * {most}::numeric / power((g + 1)::numeric, {power}))"


EXPRESSIONS: dict[str, str] = {
    "smallint": _magnitude("32767", 1),
    "integer": _magnitude("2147483647", 3),
    "bigint": _magnitude("9223372036854775807", 8),
    "oid": "trunc(4294967295::numeric / power((g + 1)::numeric, 4))",
    "real": f"{_SIGN} * exp((g - 50)::float8) * 1.2345678",
    "double precision": f"{_SIGN} * power(10::float8, (g - 50) * 6) * 1.2345678901234567",
    "numeric": f"CASE WHEN g % 2 = 0 THEN {_NUMBER} ELSE '-0.' || {_TINY} END",
    "numeric(10,2)": "g * 1111111.11 - 55555555.5",
    "numeric(38,0)": "repeat(((g % 9) + 1)::text, (g % 38) + 1)",
    "numeric(1000,500)": "g || '.' || repeat('7', g)",
    "numeric(20,20)": "'0.' || lpad(g::text, 20, '0')",
    "numeric(3,-5)": "g * 1000000 - 45000000",
    "numeric(3,5)": "g * 0.0001 - 0.005",
    "money": "g * 123456789.01 - 5000000000",
    "text": _TEXT,
    "character varying(5)": f"left({_TEXT} || '  ', 5)",
    "character(5)": f"left({_TEXT} || '  ', 5)",
    "name": _TEXT,
    '"char"': "chr(g + 20)",
    '"char"[]': "ARRAY[chr(g + 20)::\"char\", NULL, '\\200']",
    "bytea": _BYTES,
    "date": _DAY,
    "time": _TIME,
    "time(0)": "time '00:00' + g * interval '871 s'",
    "time with time zone": f"({_TIME})::text || to_char({_SIGN} * (g % 16), 'SG00') || ':'"
    " || lpad((g % 60)::text, 2, '0')",
    "timestamp": _STAMP,
    "timestamp(3)": "timestamp '1900-01-01' + g * interval '555 days 1.2345 s'",
    "timestamptz": _STAMPTZ,
    "interval": _SPAN,
    "interval day to second(3)": _SPAN,
    "uuid": "md5(g::text)",
    "json": f"json_build_object('k' || g, g * 1.50, 'c', {_TEXT}, 'n', NULL)",
    "jsonb": f"jsonb_build_object('k' || g, g * 1.50, 'c', {_TEXT}, 'n', NULL)",
    "jsonpath": "'$.k' || g || '[*] ? (@.x > ' || g || ')'",
    "bit varying": "repeat('10', g) || '1'",
    "inet": "CASE WHEN g % 2 = 0 THEN '10.' || g || '.0.1/' || (g % 33)"
    " ELSE to_hex(g) || '::' || to_hex(g * 600) || '/' || (g % 129) END",
    "cidr": "CASE WHEN g % 2 = 0 THEN '10.' || g || '.0.0/' || (16 + g % 17)"
    " ELSE '2001:' || to_hex(g) || '::/' || (32 + g % 97) END",
    "macaddr": "'08:00:2b:00:00:' || lpad(to_hex(g), 2, '0')",
    "macaddr8": "'08:00:2b:00:00:00:00:' || lpad(to_hex(g), 2, '0')",
    "integer[]": "ARRAY[[g, NULL], [-g * 1000, 7]]",
    "text[]": f"ARRAY[{_ASCII}, NULL, {_WIDE}, '', 'NULL', {_ASCII} || '\"']",
    "character(3)[]": f"ARRAY[{_ASCII}, NULL, {_WIDE} || ' ']",
    "numeric(10,2)[]": f"ARRAY[{_MONEY}, NULL, 'NaN']",
    "timestamptz[]": f"ARRAY[{_STAMPTZ}, NULL]",
    "bytea[]": f"ARRAY[{_BYTES}, NULL]",
    "boolean[]": "(SELECT array_agg((g >> i) & 1 = 1) FROM generate_series(0, 6) i)",
    "double precision[]": "ARRAY[power(10::float8, (g - 50) * 6), NULL, -g / 3::float8]",
    "interval[]": f"ARRAY[{_SPAN}, NULL]",
    "jsonb[]": f"ARRAY[jsonb_build_array(g, {_TEXT}), NULL]",
    "int4range": f"int4range(g * 10 - 450, g * 20 + 2, {_BOUNDS})",
    "int8range": f"int8range(g * 10 - 450, g * 9223372036854775 + 2, {_BOUNDS})",
    "numrange": f"numrange(g * 1.10 - 55, g * 20.00 + 2, {_BOUNDS})",
    "tsrange": f"tsrange({_STAMP}, {_STAMP} + interval '1 day', {_BOUNDS})",
    "tstzrange": f"tstzrange({_STAMPTZ}, {_STAMPTZ} + interval '1 day', {_BOUNDS})",
    "daterange": f"daterange({_DAY}, {_DAY} + 40, {_BOUNDS})",
    "int4multirange": "int4multirange(int4range(g, g + 5), int4range(g + 10, g + 20))",
    "tstzmultirange": f"tstzmultirange(tstzrange({_STAMPTZ}, NULL))",
    "int4range[]": "ARRAY[int4range(g, g + 5), NULL, 'empty']",
    "public.spans": f"public.spans(g * 0.1, g * 0.3 + 1, {_BOUNDS})",
    "public.mood[]": f"ARRAY[({_MOODS})[1 + g % 6], NULL, ({_MOODS})[1 + g / 6 % 6],"
    f" ({_MOODS})[1 + g / 36]]",
    "public.price": _MONEY,
    "public.discount": _MONEY,
    "public.tags": f"ARRAY[{_ASCII}, NULL, {_WIDE}]",
    "public.inner_pair": _PAIR,
    "public.outer_pair": _OUTER,
    "public.outer_pair[]": f"ARRAY[{_OUTER}, NULL]",
    "public.citext": _TEXT,
    "public.hstore": f"public.hstore(ARRAY['k' || {_ASCII}, 'b'], ARRAY[{_WIDE}, NULL])",
    "public.ltree": "'a' || g || '.b_' || md5(g::text)",
    "public.lquery": "'*.a' || g || '{1,' || (g + 1) || '}.!b'",
    "public.ltxtquery": "'a' || g || ' & b*@'",
    "public.cube": _PAIRS.format("", ""),
    "public.seg": "g || ' .. ' || (g * 2 + 0.5)",
    "public.isbn": "'0' || lpad((g * 1000003 % 100000000)::text, 8, '0') || '?'",
    "xml": "'<a n=\"' || g || '\">' || chr(1024 + g) || '&lt;</a>'",
    "tsvector": "'''w' || g || ''':' || (g + 1) || 'A ''it''''s'':2 ' || chr(1040 + g % 32)",
    "tsquery": "'w' || g || ':*AB & !b <' || (g + 1) || '> c'",
    "point": "point(g * 0.1, -g * 1e10)",
    "line": "'{' || (g + 1) || ',' || -g || ',0.5}'",
    "lseg": _PAIRS.format("[", "]"),
    "box": "box(point(g, -g / 3::float8), point(1e-10, g * 1e10))",
    "path": _PAIRS.format("[", "]"),
    "polygon": _PAIRS.format("(", ")"),
    "circle": "circle(point(g, -g / 3::float8), g * 1e-5)",
    "box[]": "ARRAY[box(point(g, g), point(-g, 0)), box(point(1, 1), point(g, 0))]",
    "pg_lsn": "to_hex(g * 100000) || '/' || to_hex(g * 10007)",
    "xid": "(g * 43000000::bigint)::text",
    "xid8": "(g * 184467440737095516::numeric)::text",
    "cid": "(g * 43000000::bigint)::text",
    "tid": "'(' || g * 43000000::bigint || ',' || g * 600 || ')'",
    "pg_snapshot": _XIDS,
    "txid_snapshot": _XIDS,
    "regclass": _NAMES.format(
        kind="regclass",
        order="relname",
        table="pg_class",
        which="relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v')",
    ),
    "regtype": _NAMES.format(
        kind="regtype",
        order="typname",
        table="pg_type",
        which="typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r')",
    ),
    "regproc": _NAMES.format(
        kind="regproc",
        order="proname",
        table="pg_proc",
        which="oid < 10000 AND proname LIKE 'pg\\_stat\\_get%'",
    ),
    "refcursor": _TEXT,
    "aclitem": f"'postgres=' || ({_RIGHTS} WHERE ((g + 1) >> i) & 1 = 1) || '/postgres'",
    "int2vector": "g || ' ' || -g || ' 3'",
    "oidvector": "g || ' ' || g * 43000000::bigint",
}
"""Type → what its text is made of."""


def grown(place: int, kind: str, first: int) -> str:
    """Return the statement that fills table `f<place>` from id `first` on; "" for a small type."""
    if kind in SMALL:
        return ""
    made = f"SELECT {first} + g, CAST(({EXPRESSIONS[kind]})::text AS {kind})"
    return f"INSERT INTO public.f{place} {made} FROM generate_series(0, {GROWN - 1}) g"
