"""Rows as sources hand them over → cells: pgoutput tuples and lines of COPY text.

Pure bytes, no types: a cell is the value's text, None for NULL, ABSENT for a value not sent.
Sources: PostgreSQL 18 manual, "Logical Replication Message Formats" (TupleData) and "COPY, File
Formats, Text Format".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from schemas.change import ABSENT, Cell, Change, Op

__all__ = ["READERS", "Read", "copy_line", "read_copy", "read_pgoutput", "split_tuple"]

_NULL, _UNCHANGED, _TEXT = b"nut"
_INSERT, _UPDATE, _DELETE, _TRUNCATE = b"IUDT"
_KEY, _OLD, _NEW = b"KON"


class Read(NamedTuple):
    """One row event as cells.

    `only_key` says that `before` carries nothing but the key columns (pgoutput's K tuple): its
    other cells are not NULL but absent.
    """

    op: Op
    before: Sequence[Cell] | None
    after: Sequence[Cell] | None
    only_key: bool = False


def split_tuple(data: bytes, at: int) -> tuple[list[Cell], int]:
    """Return the cells of the TupleData at `at` and the offset behind it.

    Raises `ValueError` for a column kind that is not text (binary was not asked for), and
    `ValueError` or `IndexError` when the tuple does not end inside `data`.
    """
    columns = data[at] << 8 | data[at + 1]
    at += 2
    cells: list[Cell] = []
    for _ in range(columns):
        kind = data[at]
        if kind == _TEXT:
            end = at + 5 + int.from_bytes(data[at + 1 : at + 5], "big")
            cells.append(data[at + 5 : end])
            at = end
        elif kind == _NULL:
            cells.append(None)
            at += 1
        elif kind == _UNCHANGED:
            cells.append(ABSENT)
            at += 1
        else:
            raise ValueError(f"column kind {kind:#x} at byte {at} of a tuple")
    if at > len(data):
        raise ValueError(f"a tuple ends at byte {at} of {len(data)}")
    return cells, at


def _fill(after: list[Cell], before: list[Cell]) -> list[Cell]:
    """Take what `after` left out (unchanged TOAST) from a FULL old row (R6)."""
    if ABSENT not in after:
        return after
    return [old if new is ABSENT else new for new, old in zip(after, before, strict=True)]


def read_pgoutput(item: bytes) -> Read:
    """Read one Insert, Update, Delete or Truncate, its relation id already cut out.

    Raises `ValueError` when the bytes are not such a message, whole and nothing behind it.
    """
    try:
        return _read_row(item)
    except IndexError:
        raise ValueError(f"a {item[:1]!r} message ends at byte {len(item)}, too early") from None


def _read_row(item: bytes) -> Read:
    kind = item[0]
    if kind == _INSERT:
        return Read(Op.CREATE, None, _last_tuple(item, 1))
    if kind == _TRUNCATE:
        return Read(Op.TRUNCATE, None, None)
    if kind not in (_UPDATE, _DELETE):
        raise ValueError(f"message kind {item[:1]!r} is no row")
    first = item[1]
    if kind == _UPDATE and first == _NEW:
        return Read(Op.UPDATE, None, _last_tuple(item, 1))
    if first not in (_KEY, _OLD):
        raise ValueError(f"tuple kind {item[1:2]!r} in a {item[:1]!r} message")
    if kind == _DELETE:
        return Read(Op.DELETE, _last_tuple(item, 1, first), None, first == _KEY)
    before, at = split_tuple(item, 2)
    after = _last_tuple(item, at)
    if first == _OLD:
        after = _fill(after, before)
    return Read(Op.UPDATE, before, after, first == _KEY)


def _last_tuple(item: bytes, at: int, kind: int = _NEW) -> list[Cell]:
    """Return the tuple whose kind byte is at `at` and which ends the message."""
    if item[at] != kind:
        raise ValueError(f"tuple kind {item[at : at + 1]!r} at byte {at} of a message")
    cells, end = split_tuple(item, at + 1)
    if end != len(item):
        raise ValueError(f"{len(item) - end} bytes behind the last tuple of a message")
    return cells


_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_SPECIAL = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_UNSAFE = re.compile(rb"[\\\b\f\n\r\t\v]")
_ESCAPED = {v: b"\\" + k for k, v in _SPECIAL.items()} | {b"\\": b"\\\\"}


def _unescape(field: bytes) -> bytes:
    if b"\\" not in field:
        return field
    return _ESCAPE.sub(lambda found: _SPECIAL.get(found[1], found[1]), field)


def read_copy(item: bytes) -> Read:
    """Read one line of COPY TO STDOUT in text format, without its newline, as a snapshot row."""
    cells = [None if field == b"\\N" else _unescape(field) for field in item.split(b"\t")]
    return Read(Op.READ, None, cells)


def copy_line(cells: Sequence[bytes | None]) -> bytes:
    """Return one line for COPY FROM STDIN in text format, with its newline."""
    return b"\t".join([b"\\N" if cell is None else _escape(cell) for cell in cells]) + b"\n"


def _escape(cell: bytes) -> bytes:
    if _UNSAFE.search(cell) is None:
        return cell
    return _UNSAFE.sub(lambda found: _ESCAPED[found[0]], cell)


def _read_change(item: Change) -> Read:
    return Read(item.op, item.before, item.after)


READERS: dict[str, Callable[..., Read]] = {
    "pgoutput": read_pgoutput,
    "copy": read_copy,
    "changes": _read_change,
}
"""Form of `Rows` → reader of one item."""
