"""Changes one by one, for targets that keep no rows to merge with: an endpoint, a file.

Such a target takes every table as rows that each tell of one change (`Way` "changes"): the row
after it, of a delete the one before, with what `sinks.journal` adds. No two of them share a key, so
none is merged into another: what is told of a record is the same whichever cut it comes in, and a
cut that is told again repeats it, word by word. On that a receiver can rely who knows the
identity of each change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import merge
from operator import attrgetter, itemgetter
from urllib.parse import quote

import msgspec

from cdc.errors import ConfigError
from schemas.change import ABSENT, Cell, Stamp
from schemas.table import Column, TableId, TableSchema
from sinks.journal import FACTS, PART, ROW_KEY
from sinks.mapping import TableMap, Tables, Way, entries
from sinks.target import Cursor, Step

__all__ = ["Change", "ChangeMap", "ChangeTable", "changes_of", "one_by_one"]

_TOLD = len(FACTS) + 1
_BEFORE_ALL = Stamp(-1, -1)


class ChangeMap(TableMap):
    """What becomes of a topic whose changes are taken one by one."""

    @property
    def way(self) -> Way:
        """How changes become rows."""
        return "changes"


def one_by_one(tables: Tables) -> Tables:
    """Return `tables` for changes taken one by one.

    Raises `ValueError` for an entry that says how rows are kept: there are none.
    """
    out: dict[str, list[TableMap]] = {}
    for glob, table in entries(tables):
        if table.mode != "mirror" or table.soft_delete or table.key:
            raise ValueError(
                f"{glob}: changes are sent one by one, so `mode`, `key` and `soft_delete` mean "
                "nothing here"
            )
        several = out.setdefault(glob, [])
        part = len(several) if table.is_part else None
        several.append(ChangeMap.model_construct(**dict(table)).numbered(part))
    return out


class Change(msgspec.Struct, frozen=True):
    """One change. `op` is the envelope's letter, `cells` are those of `table.columns`.

    `topic`, `partition` and `offset` say where it was read, `stamp` where it was in the source
    (None: a producer that is not ours). `at` is when that committed, as text of a timestamptz.
    """

    table: ChangeTable
    op: str
    cells: Sequence[Cell]
    at: bytes | None
    topic: str
    partition: int
    offset: int
    stamp: Stamp | None

    @property
    def identity(self) -> tuple[Cell, ...]:
        """The key of its row, under which a target refuses it."""
        return (self.topic.encode(), b"%d" % self.partition, b"%d" % self.offset)

    @property
    def name(self) -> str:
        """What it is called, however often it is told: topic and place in the source.

        Of a producer that is not ours, topic and place in it. Where the record goes to other
        tables, too, its own is behind that.
        """
        place = (self.partition, self.offset) if self.stamp is None else self.stamp
        table = f":{quote(self.table.part)}" if self.table.part else ""
        return f"{self.topic}:{'-'.join(map(str, place))}{table}"

    def behind(self, cursor: Cursor | None) -> Cursor:
        """Return where the cursor of its partition goes; rows of a snapshot move no stamp."""
        known = None if cursor is None else cursor.stamp
        moves = self.stamp is not None and self.op != "r"
        return Cursor(self.offset + 1, self.stamp if moves else known)


class ChangeTable:
    """One version of a table as its changes tell of it: `columns` are the mapping's own.

    `key` are the places of the row's key among them, empty where it has none or it was cast. `part`
    is the table's name where its topic goes to others, too.
    Raises `errors.ConfigError` for a column whose name cannot be told.
    """

    def __init__(self, schema: TableSchema) -> None:
        self.schema = schema
        self.columns: tuple[Column, ...] = schema.columns[:-_TOLD]
        odd = [column.name for column in self.columns if "," in column.name]
        if odd:
            raise ConfigError(
                f"{schema.table}: column {odd[0]!r} has a comma in its name",
                hint="`rename` it: the names of values that were not sent are joined by commas.",
            )
        self.places: Mapping[str, int] = {c.name: n for n, c in enumerate(self.columns)}
        told = dict(schema.attributes)
        self.part = str(schema.table) if PART in told else ""
        names: list[str] = msgspec.json.decode(told.get(ROW_KEY, "[]"))
        self.key = tuple(self.places[name] for name in names)

    @property
    def table(self) -> TableId:
        """Which table of the target it is."""
        return self.schema.table

    def change(self, row: Sequence[Cell]) -> Change:
        """Return the change that `row`, as the decoder made it, tells of."""
        op, at, unsent, topic, partition, offset, position = map(_text, row[-_TOLD:])
        cells: Sequence[Cell] = row[:-_TOLD]
        if unsent:
            names = set(unsent.split(","))
            cells = [
                ABSENT if column.name in names else cell
                for column, cell in zip(self.columns, cells, strict=True)
            ]
        stamp = Stamp(*map(int, position.split("-"))) if position else None
        told = at.encode() or None
        return Change(self, op, cells, told, topic, int(partition), int(offset), stamp)


def _text(cell: Cell) -> str:
    return cell.decode() if isinstance(cell, bytes) else ""


def changes_of(step: Step, tables: Mapping[TableSchema, ChangeTable]) -> Iterable[Change]:
    """Return the changes of a step in the order of their sources, over all tables.

    Inside a partition the order is that of the records, also for rows of a snapshot.
    """
    lanes: defaultdict[tuple[str, int], list[Change]] = defaultdict(list)
    for mapped in step:
        for change in map(tables[mapped.schema].change, mapped.upserts):
            lanes[change.topic, change.partition].append(change)
    return (change for _, change in merge(*map(_placed, lanes.values()), key=itemgetter(0)))


def _placed(changes: list[Change]) -> Iterator[tuple[Stamp, Change]]:
    """Yield the changes of one partition in the order of its records, with growing stamps."""
    if changes[0].table.part:
        changes.sort(key=attrgetter("offset"))  # those of a record come table by table
    place = _BEFORE_ALL
    for change in changes:
        place = max(place, change.stamp or place)
        yield place, change
