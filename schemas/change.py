"""What a change is, independent of where it was read and of how it is written down.

A cell is the source's own text form of a value, as bytes. Three things are not text: `None` is
SQL NULL; `ABSENT` is a value the log did not carry (an unchanged TOAST value, a column outside a
minimal row image) and is never to be confused with NULL (R6).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, StrEnum
from typing import Literal, NamedTuple

import msgspec

from schemas.table import TableSchema

__all__ = [
    "ABSENT",
    "UNREADABLE",
    "Absent",
    "Cell",
    "Change",
    "Form",
    "Op",
    "Origin",
    "Row",
    "Rows",
    "Stamp",
]


class Op(StrEnum):
    """The envelope's `op`, with Debezium's letters."""

    CREATE = "c"
    UPDATE = "u"
    DELETE = "d"
    READ = "r"
    TRUNCATE = "t"
    MESSAGE = "m"


class Absent(Enum):
    """The type of `ABSENT`, an enum so that type checkers can narrow on identity."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = Absent.ABSENT
"""The value was not sent. `None` is NULL."""

UNREADABLE = b"\xff"
"""Stands before the bytes of a value that its source could not turn into text. No UTF-8 has this
byte, so a row that holds it is refused by whoever encodes it, and its other values stay readable.
"""

Cell = bytes | None | Literal[Absent.ABSENT]
Row = Sequence[Cell]


class Stamp(NamedTuple):
    """The place of a record in its source: a total order, never shared by two records (R1).

    `incarnation` grows with each new slot or server identity. `commit` is the place of the commit
    in the log (for Postgres the commit LSN). `ordinal` counts the surviving rows of the
    transaction, before any filter. `sub` numbers the records one event becomes.
    """

    incarnation: int
    commit: int
    ordinal: int = 0
    sub: int = 0


class Origin(msgspec.Struct, frozen=True):
    """What all rows of one transaction, or of one snapshot chunk, share.

    `commit_us` and `read_us` are microseconds since 1970 UTC. `txid` is the source's own name
    of the transaction, empty for snapshot rows.
    """

    incarnation: int
    commit: int
    commit_us: int
    txid: str = ""
    snapshot: bool = False


class Change(msgspec.Struct):
    """One change as objects: what SaaS sources yield and what transforms see.

    `before` and `after` follow the columns of the schema they travel with. A key change is one
    `UPDATE` whose `before` carries the old key. `message` is the payload of a logical message.
    """

    op: Op
    before: Row | None = None
    after: Row | None = None
    message: tuple[str, bytes] | None = None


Form = Literal["changes", "pgoutput", "copy", "binlog"]


class Rows(msgspec.Struct):
    """A run of rows of one table version inside one transaction, in the form they were read.

    form "changes":  items are `Change`
    form "pgoutput": items are the bytes of one I, U, D or T message after its relation id
                     (kind byte first: b"I", b"U", b"D", b"T")
    form "copy":     items are lines of COPY TO STDOUT in text format, without the newline

    `ordinals` are the items' ordinals inside the transaction, one each, growing.
    """

    schema: TableSchema
    form: Form
    origin: Origin
    items: list[bytes] | list[Change]
    ordinals: Sequence[int]
