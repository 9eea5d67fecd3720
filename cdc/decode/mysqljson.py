"""MySQL's binary JSON → the text SELECT gives, and updates that log only what they changed.

    type │ value        value: a scalar, or of containers: count, size, offsets of keys and values

A document becomes a tree: objects are dicts by their keys' UTF-8, in the server's order; arrays are
lists; a scalar is its JSON text. That is all a change of a part of it needs, and its text is one
walk. Numbers keep what they were: 1.0 is not 1, a decimal keeps its zeros.

Sources: MySQL 8.4 `sql-common/json_binary.h` (the format), `sql-common/json_dom.cc` (the text),
`sql/json_diff.h` (changes); the texts are compared with a server's (`tests/cdc/mysql`).
"""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Callable
from typing import Any

from cdc.decode.binlogevents import Reader
from cdc.decode.mysqlvalues import decimal

__all__ = ["Node", "changed", "dumped", "json_text", "loaded"]

Node = dict[bytes, "Node"] | list["Node"] | bytes
"""An object, an array, or the text of a scalar."""

_DEPTH = 101
"""A server takes no more levels than a hundred."""

_SMALL_OBJECT, _LARGE_OBJECT, _SMALL_ARRAY, _LARGE_ARRAY, _LITERAL = range(5)
_STRING, _OPAQUE = 0x0C, 0x0F
_NUMBERS = {5: "<h", 6: "<H", 7: "<i", 8: "<I", 9: "<q", 10: "<Q", 11: "<d"}
_LITERALS = {0: b"null", 1: b"true", 2: b"false"}
_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPES = str.maketrans({**{chr(byte): f"\\u{byte:04x}" for byte in range(0x20)}, **_SHORT})


def json_text(data: bytes) -> bytes:
    """Return the text of a document. Raises `ValueError` for one that is damaged."""
    return dumped(loaded(data))


def loaded(data: bytes) -> Node:
    """Return the tree of a document; an empty one is null, as the server has it."""
    if not data:
        return _LITERALS[0]
    try:
        return _value(data[0], data[1:], _DEPTH)
    except (IndexError, struct.error):
        raise ValueError("a JSON document is cut") from None


def dumped(node: Node) -> bytes:
    """Return the text of a tree."""
    if isinstance(node, bytes):
        return node
    if isinstance(node, list):
        return b"[" + b", ".join(map(dumped, node)) + b"]"
    members = (_quoted(key) + b": " + dumped(value) for key, value in node.items())
    return b"{" + b", ".join(members) + b"}"


def _quoted(text: bytes) -> bytes:
    return b'"' + text.decode().translate(_ESCAPES).encode() + b'"'


def _value(kind: int, data: bytes, depth: int) -> Node:
    """Return the value of `kind` that `data` begins with."""
    if kind <= _LARGE_ARRAY:
        return _container(kind, data, depth - 1)
    if kind == _LITERAL:
        if data[0] not in _LITERALS:
            raise ValueError(f"JSON has no literal {data[0]}")
        return _LITERALS[data[0]]
    if kind in _NUMBERS:
        (number,) = struct.unpack_from(_NUMBERS[kind], data)
        return _double(number) if isinstance(number, float) else b"%d" % number
    if kind == _STRING:
        return _quoted(_sized(data))
    if kind == _OPAQUE:
        return _opaque(data[0], _sized(data[1:]))
    raise ValueError(f"JSON has no type {kind}")


def _sized(data: bytes) -> bytes:
    """Return bytes behind their length: seven bits a byte, the eighth says that more follow."""
    size = 0
    for place in range(5):
        size |= (data[place] & 0x7F) << 7 * place
        if data[place] < 0x80:
            found = data[place + 1 : place + 1 + size]
            if len(found) != size:
                raise IndexError
            return found
    raise ValueError("a length in a JSON document is of more than five bytes")


def _container(kind: int, data: bytes, depth: int) -> Node:
    """Read an object or array; offsets in it are counted from its own beginning."""
    if not depth:
        raise ValueError(f"a JSON document has more than {_DEPTH - 1} levels")
    wide = 4 if kind in (_LARGE_OBJECT, _LARGE_ARRAY) else 2
    count, size = _little(data, 0, wide), _little(data, wide, wide)
    if size > len(data):
        raise IndexError
    data, at = data[:size], 2 * wide
    keys: list[bytes] = []
    if kind in (_SMALL_OBJECT, _LARGE_OBJECT):
        for place in range(count):
            entry = at + place * (wide + 2)
            start = _little(data, entry, wide)
            keys.append(_cut(data, start, _little(data, entry + wide, 2)))
        at += count * (wide + 2)
    values = [_entry(data, at + place * (1 + wide), wide, depth) for place in range(count)]
    if kind in (_SMALL_ARRAY, _LARGE_ARRAY):
        return values
    return dict(zip(keys, values, strict=True))


def _entry(data: bytes, at: int, wide: int, depth: int) -> Node:
    """Read a value by its entry, which has it itself where it is small enough."""
    kind = data[at]
    within = kind in (_LITERAL, 5, 6) or (wide == 4 and kind in (7, 8))
    start = at + 1 if within else _little(data, at + 1, wide)
    return _value(kind, data[start:], depth)


def _little(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(_cut(data, at, size), "little")


def _cut(data: bytes, at: int, size: int) -> bytes:
    found = data[at : at + size]
    if len(found) != size:
        raise IndexError
    return found


_FIXED_DIGITS = 15
"""Of a double: with more places before the point, or zeros behind it, it has an exponent."""


def _double(number: float) -> bytes:
    """Return a double as the server prints it (`my_gcvt`), never like an integer."""
    sign, digits, exponent = _shortest(number)
    point = len(digits) + exponent
    if -_FIXED_DIGITS < point <= _FIXED_DIGITS:
        whole = digits[: max(point, 0)].ljust(point, "0") or "0"
        fraction = "0" * -point + digits[max(point, 0) :] if point < len(digits) else "0"
        return f"{sign}{whole}.{fraction}".encode()
    tail = "." + digits[1:] if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{point - 1}".encode()


def _shortest(number: float) -> tuple[str, str, int]:
    """Return sign, the fewest digits that tell `number`, and the exponent of the last of them."""
    mantissa, _, power = f"{number!r}".lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    kept = digits.rstrip("0")
    exponent = int(power or 0) - len(fraction) + len(digits) - len(kept)
    return ("-" if str(number).startswith("-") else ""), kept or "0", exponent if kept else 0


_LINE = 76
"""Characters of base64 in a line."""


def _opaque(code: int, raw: bytes) -> bytes:
    """Return the text of a value of one of the server's own types."""
    known = _OPAQUES.get(code)
    if known is not None:
        return known(raw)
    encoded = base64.b64encode(raw)
    lines = (encoded[at : at + _LINE] for at in range(0, len(encoded), _LINE))
    return b'"base64:type%d:%s"' % (code, b"\\n".join(lines))


def _decimal(raw: bytes) -> bytes:
    text, end = decimal(raw[0], raw[1])(raw, 2)
    if end != len(raw):
        raise IndexError
    return text


def _clock(packed: int) -> str:
    """Return hours, minutes, seconds and microseconds, six bits each but the first and last."""
    micros, clock = packed & 0xFFFFFF, packed >> 24
    return f"{clock >> 12:02}:{clock >> 6 & 63:02}:{clock & 63:02}.{micros:06}"


def _day(packed: int) -> str:
    months = packed >> 46
    return f"{months // 13:04}-{months % 13:02}-{packed >> 41 & 31:02}"


def _date(raw: bytes) -> bytes:
    return f'"{_day(_packed(raw))}"'.encode()


def _datetime(raw: bytes) -> bytes:
    packed = _packed(raw)
    return f'"{_day(packed)} {_clock(packed & (1 << 41) - 1)}"'.encode()


def _time(raw: bytes) -> bytes:
    packed = _packed(raw)
    return f'"{"-" if packed < 0 else ""}{_clock(abs(packed))}"'.encode()


def _packed(raw: bytes) -> int:
    (found,) = struct.unpack("<q", raw)
    return int(found)


_OPAQUES: dict[int, Callable[[bytes], bytes]] = {
    246: _decimal,
    10: _date,
    7: _datetime,
    12: _datetime,
    11: _time,
}

_LEG = re.compile(rb'\.("(?:[^"\\]|\\.)*"|[^.\["]+)|\[([0-9]{1,10})\]', re.DOTALL)
_REPLACE, _INSERT, _REMOVE = range(3)
_Leg = bytes | int


def changed(document: bytes, changes: bytes) -> bytes:
    """Return the text of a document after `changes` of parts of it.

    Raises `ValueError` when they do not fit it.
    """
    root: list[Node] = [loaded(document)]
    reader = Reader(changes)
    while reader.left:
        deed = reader.number(1)
        path = reader.take(reader.packed())
        value = None if deed == _REMOVE else loaded(reader.take(reader.packed()))
        try:
            _change(root, [0, *_legs(path)], deed, value)
        except (KeyError, IndexError, TypeError):
            raise ValueError(f"there is no {path!r} in the JSON document to change") from None
    return dumped(root[0])


def _legs(path: bytes) -> list[_Leg]:
    """Read `$.a."b c"[3]`."""
    legs: list[_Leg] = []
    at = 1
    while path[:1] == b"$" and at < len(path):
        found = _LEG.match(path, at)
        if found is None:
            break
        at = found.end()
        legs.append(int(found[2]) if found[2] else _member(found[1]))
    if at != len(path) or path[:1] != b"$":
        raise ValueError(f"{path!r} is no path in a JSON document")
    return legs


def _member(name: bytes) -> bytes:
    if not name.startswith(b'"'):
        return name
    found: str = json.loads(name)
    return found.encode()


def _change(root: Node, legs: list[_Leg], deed: int, value: Node | None) -> None:
    """Carry out one change. Raises `KeyError`, `IndexError` or `TypeError` when it is none."""
    parent: Any = root
    for leg in legs[:-1]:
        parent = parent[leg]
    last: Any = legs[-1]
    if deed == _REMOVE:
        del parent[last]
    elif deed == _REPLACE:
        parent[last]  # it must be there
        parent[last] = value
    elif deed != _INSERT:
        raise ValueError(f"a change {deed} of a JSON document is not known")
    elif isinstance(parent, list):
        parent.insert(last, value)
    else:
        _add(parent, last, value)


def _add(parent: dict[bytes, Node], name: bytes, value: Any) -> None:
    """Add a member where the server has it: keys are in order of length, then of bytes."""
    if name in parent:
        raise KeyError(name)
    members = {**parent, name: value}
    parent.clear()
    parent.update({key: members[key] for key in sorted(members, key=lambda key: (len(key), key))})
