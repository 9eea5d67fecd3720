"""Values that break pipelines, by PostgreSQL type: what is typed in, not what comes out.

A type with a version needs at least that server. NULL is added to every type by the tests.
"""

from __future__ import annotations

EXTENSIONS = ("citext", "cube", "hstore", "isn", "ltree", "seg")

PREPARE = r"""
CREATE TYPE public.mood AS ENUM ('sad', 'it''s "ok"', 'a,b {}', 'ünï 😀', '\N', ' ');
CREATE TYPE public.inner_pair AS (n int, t text);
CREATE TYPE public.outer_pair AS (p public.inner_pair, at timestamptz, list int[]);
CREATE DOMAIN public.price AS numeric(10,2);
CREATE DOMAIN public.discount AS public.price;
CREATE DOMAIN public.tags AS text[];
CREATE TYPE public.spans AS RANGE (subtype = float8, subtype_diff = float8mi);
"""

_LONG = "x" * 1_000_000
_EMOJI = "👩‍👩‍👧‍👦 é e\u0301 \U0001f600 \U0010ffff \u200f"
_CONTROL = "a\tb\nc\rd\be\ff\vg\x01\x7f"

VALUES: dict[str, tuple[str, ...]] = {
    "boolean": ("t", "f"),
    "smallint": ("-32768", "32767", "0"),
    "integer": ("-2147483648", "2147483647", "0"),
    "bigint": ("-9223372036854775808", "9223372036854775807", "0"),
    "oid": ("0", "4294967295"),
    "real": (
        *("NaN", "Infinity", "-Infinity", "-0", "0", "1e-45", "-3.4028235e38", "0.1", "1e6"),
        *("999999.5", "16777217", "1.17549435e-38"),
    ),
    "double precision": (
        *("NaN", "Infinity", "-Infinity", "-0", "0", "5e-324", "1.7976931348623157e308", "0.1"),
        *("1e15", "1e16", "123456789012345680", "1e23", "-1e-7", "9007199254740993"),
    ),
    "numeric": (
        *("NaN", "Infinity", "-Infinity", "0", "0.0000", "-0.00", "1e-1000", "1e1000", "1.10"),
        "9" * 1000 + "." + "9" * 1000,
    ),
    "numeric(10,2)": ("NaN", "0.00", "-0.01", "99999999.99", "-99999999.99", "12.3"),
    "numeric(38,0)": ("NaN", "9" * 38, "-" + "9" * 38, "0"),
    "numeric(1000,500)": ("9" * 500 + "." + "9" * 500, "1e-500"),
    "numeric(20,20)": ("0.00000000000000000001", "-0.99999999999999999999"),
    "money": ("-92233720368547758.08", "92233720368547758.07", "0", "-0.01"),
    "text": (
        *("", " ", "\\N", "\\", "\\.", "NULL", "'\"`", "{}", "%s", _CONTROL, _EMOJI, _LONG),
        "line\r\nline\u2028line",
    ),
    "character varying(5)": ("", "abc  ", "\U0001f600" * 5),
    "character(5)": ("", "ab", "ab   ", "é\U0001f600", "     "),
    "name": ("", "n" * 63, "é" * 31),
    '"char"': ("", "a", "\\", "~"),
    "bytea": ("", "\\x00", "\\x00ff5c0a", "\\x" + "5c" * 500_000),
    "date": (
        *("infinity", "-infinity", "4714-11-24 BC", "0001-12-31 BC", "0001-01-01", "2000-02-29"),
        *("9999-12-31", "10000-01-01", "5874897-12-31", "1582-10-10"),
    ),
    "time": ("00:00:00", "24:00:00", "23:59:59.999999", "12:00:00.1", "00:00:00.000001"),
    "time(0)": ("12:34:56", "24:00:00"),
    "time with time zone": (
        *("00:00:00-15:59", "24:00:00+15:59", "12:34:56.789+05:30", "12:34:56+00"),
        "01:02:03.000004-00:00:59",
    ),
    "timestamp": (
        *("infinity", "-infinity", "4714-11-24 00:00:00 BC", "0001-01-01 00:00:00"),
        *("1969-12-31 23:59:59.999999", "2024-01-01 00:00:00.1", "9999-12-31 23:59:59.999999"),
        *("294276-12-31 23:59:59.999999", "0001-12-31 23:59:59.5 BC", "2016-12-31 23:59:60"),
    ),
    "timestamp(3)": ("2024-02-29 12:00:00.1239", "infinity"),
    "timestamptz": (
        *("infinity", "-infinity", "4714-11-24 00:00:00+00 BC", "0001-01-01 00:00:00+00"),
        *("1969-12-31 23:59:59.999999+00", "9999-12-31 23:59:59.999999+00"),
        *("9999-12-31 23:59:59-01", "294276-12-31 23:59:59+00", "2024-03-31 02:30:00+05:45"),
    ),
    "interval": (
        *("1 year -2 mons +3 days -04:05:06.789", "-178000000 years", "178000000 years", "0"),
        *("00:00:00.000001", "-1 mon", "-1 day +01:00", "-00:00:01", "2147483647 days"),
    ),
    "interval day to second(3)": ("1 day 02:03:04.5678", "-1 day"),
    "uuid": ("0" * 32, "f" * 32, "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"),
    "json": ('{"a":1,"a":2}', " [1,  2] ", "1e400", '"\\u0000"', "null", f'["{_EMOJI}"]'),
    "jsonb": ('{"b":1,"a":{"b":[]}}', "1e400", '"\\ud83d\\ude00"', "null", "0.00", '""'),
    "jsonpath": ('$."a b"[*] ? (@ > 1)', "strict $", "lax $[last]"),
    "bit(3)": ("101", "000"),
    "bit varying": ("", "1", "0" * 100),
    "inet": ("0.0.0.0/0", "192.168.0.1/24", "::1", "::ffff:1.2.3.4/120"),
    "cidr": ("0.0.0.0/0", "10.0.0.0/8", "::/0", "2001:db8::/32"),
    "macaddr": ("08:00:2b:01:02:03", "FF-FF-FF-FF-FF-FF"),
    "macaddr8": ("08:00:2b:01:02:03:04:05",),
    "integer[]": ("{}", "{NULL}", "{{1,2},{3,NULL}}", "[0:1]={1,2}", "[-1:0][2:2]={{1},{2}}"),
    "text[]": ('{"",NULL,"NULL","a,b","\\"","{}"," ","\\\\"}', f'{{"{_EMOJI}"}}', "{null,x}"),
    "character(3)[]": ("{a,NULL,abc}",),
    "numeric(10,2)[]": ("{NaN,1.5,NULL}",),
    "timestamptz[]": ("{infinity,NULL,0001-12-31 23:59:59+00 BC}",),
    "bytea[]": ('{"\\\\x00","\\\\x5c",NULL}',),
    "boolean[]": ("{t,f,NULL}",),
    "double precision[]": ("{NaN,-0,1e300,NULL}",),
    "interval[]": ("{-1 day,1 mon -1 day +00:00:01}",),
    "jsonb[]": ('{"{\\"a\\": \\"b,c\\"}",NULL}',),
    "int4range": ("empty", "[1,10)", "(,)", "(,5]"),
    "int8range": ("[1,9223372036854775807)",),
    "numrange": ("[1.10,NaN]", "(,)", "[-Infinity,0]"),
    "tsrange": ('["0001-01-01 00:00:00 BC",infinity)', "[2024-01-01,2024-01-02)"),
    "tstzrange": ("[-infinity,infinity]", "[2024-01-01 00:00+00,)"),
    "daterange": ("[2024-01-01,2024-02-01]", "empty"),
    "int4multirange": ("{}", "{[1,2),[5,6)}", "{(,)}"),
    "tstzmultirange": ("{[2024-01-01 00:00+00,infinity)}",),
    "int4range[]": ('{empty,"[1,2)",NULL}',),
    "public.spans": ("[1.5,NaN]", "[-0,0]"),
    "public.mood": ("sad", 'it\'s "ok"', "a,b {}", "ünï 😀", "\\N", " "),
    "public.mood[]": ('{sad,NULL,"a,b {}","\\\\N"}',),
    "public.price": ("NaN", "0.00", "-1.5"),
    "public.discount": ("12345678.90",),
    "public.tags": ('{a,"b c",NULL}',),
    "public.inner_pair": ("(,)", '(1,"")', '(2,"a,b ""c"" \\\\ (x)")', f'(3,"{_EMOJI}")'),
    "public.outer_pair": ('("(1,""x """" y"")","infinity","{1,NULL}")', "(,,)", '("(,)",,{})'),
    "public.outer_pair[]": ('{"(\\"(1,x)\\",,)",NULL}',),
    "public.citext": ("AbC", "ÀÉ"),
    "public.hstore": ("", 'a=>NULL, b=>"", "c d"=>"\\"x\\"", e=>"=>"'),
    "public.ltree": ("", "Top.Science.Astronomy"),
    "public.lquery": ("*.a{1,2}.!b|c.d*@%",),
    "public.ltxtquery": ("Europe & Russia*@",),
    "public.cube": ("(1,2),(3,4)", "(-0,1e300)"),
    "public.seg": ("1 .. 2.50", "~5"),
    "public.isbn": ("978-0-393-04002-9",),
    "xml": ("<a>é</a>", "just text", "<a/><b/>", ""),
    "tsvector": ("", "'it''s':1A 'b':2,3B 'c\\\\d'", "a b c"),
    "tsquery": ("", "'it''s' & !b", "a <-> b:*AB | c"),
    "point": ("(0,-0)", "(NaN,Infinity)", "(1e300,1e-300)"),
    "line": ("{1,2,3}", "{0,-1,0}"),
    "lseg": ("[(0,0),(1,-0)]",),
    "box": ("(1,1),(0,0)", "(NaN,0),(0,NaN)"),
    "path": ("((0,0),(1,1))", "[(0,0),(1,1)]"),
    "polygon": ("((0,0),(1,1),(1,0))",),
    "circle": ("<(0,0),1e300>", "<(0,0),0>"),
    "box[]": ("{(1,1),(0,0);(2,2),(0,0)}",),
    "pg_lsn": ("0/0", "FFFFFFFF/FFFFFFFF"),
    "xid": ("0", "4294967295"),
    "xid8": ("0", "18446744073709551615"),
    "cid": ("4294967295",),
    "tid": ("(0,1)", "(4294967295,65535)"),
    "pg_snapshot": ("10:20:10,14,15",),
    "txid_snapshot": ("10:20:10,14,15",),
    "regclass": ("pg_class", "0", "public.fidelity"),
    "regtype": ("integer", "numeric(5,2)", "public.mood"),
    "regproc": ("now",),
    "regrole": ("postgres",),
    "refcursor": ("a cursor", ""),
    "aclitem": ("postgres=r/postgres",),
    "int2vector": ("1 2 -3", ""),
    "oidvector": ("1 2 4294967295",),
}

NEWER: dict[int, dict[str, tuple[str, ...]]] = {
    15: {
        "numeric(3,-5)": ("12300000", "0", "NaN"),
        "numeric(3,5)": ("0.00123", "-0.00999"),
    },
    16: {'"char"[]': ("{a,\\\\200}",), '"char"': ("\\200",)},
    17: {"interval": ("infinity", "-infinity"), "interval[]": ("{infinity,-infinity}",)},
}
"""What only a server of that version or newer has."""


def values_for(version: int) -> list[tuple[str, tuple[str, ...]]]:
    """Return (type, values) pairs for a server, all its versions' additions included."""
    found = list(VALUES.items())
    for first, more in NEWER.items():
        found += more.items() if version >= first else ()
    return found
