"""What a real MySQL logged, and what its SELECT gave beside it, as `record.py` left them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from uuid import UUID

from cdc.decode import binlog
from cdc.decode.binlogevents import Format, PreviousGtids, Rotate, TableEvent, Transaction
from cdc.decode.binlogtables import MYSQL_TEXTS, table_of
from cdc.decode.gtid import Intervals
from cdc.decode.mysqltypes import MysqlColumn, logged_column
from cdc.mariadb.catalog import ColumnFacts, TableFacts
from cdc.mariadb.connection import Login
from cdc.mariadb.lookback import Lookback
from cdc.mariadb.prepared import Prepared
from cdc.mariadb.spill import Spill
from cdc.mariadb.statements import Statement
from cdc.mariadb.tables import Tables
from cdc.mariadb.transactions import Transactions
from cdc.mysql.position import Position
from cdc.mysql.server import MySQL
from fix_capture import Event, events_of
from schemas.table import TableId

FOLDER = Path(__file__).parent / "cdc/mysql/recorded"
SERVER = UUID(int=7)
MAGIC = b"\xfebin"


class Recording:
    """A log, and what SELECT gave; it also answers for the catalogue, which knows no table.

    One that is `asked` knows the tables that are keyed by `id`, and gives their rows again.
    """

    login = Login("", "")
    begin = Position(1, "", str(SERVER), "binlog.000001", 4)
    dialect = MySQL()

    def __init__(self, name: str, *, asked: bool = False) -> None:
        self.asked = asked
        self.told = json.loads((FOLDER / f"{name}.json").read_text())
        self.data = (FOLDER / f"{name}.binlog").read_bytes()
        self.altered: list[Statement] = []

    def find(self, table: TableId) -> TableFacts | None:
        if not self.asked:
            return None
        columns = self.columns()[table.name]
        facts = (ColumnFacts(c, nullable=True, default=None, generated=False) for c in columns)
        return TableFacts(
            table,
            "InnoDB",
            transactional=True,
            versioned=False,
            rows=0,
            columns=tuple(facts),
            primary_key=("id",),
        )

    @property
    def connection(self) -> Any:
        return Answers(self.told)

    def charsets(self) -> Mapping[int, str]:
        return {int(number): name for number, name in self.told["charsets"].items()}

    def __call__(self, table: TableId) -> bool:
        return table.schema == "shop"

    def schemas(self) -> set[str]:
        return {"shop"}

    def files(self) -> list[list[bytes]]:
        """The events of each of its files, which begin with four bytes of their own."""
        files: list[list[bytes]] = []
        at = 0
        while at < len(self.data):
            if self.data[at : at + 4] == MAGIC:
                files.append([])
                at += 4
            size = int.from_bytes(self.data[at + 9 : at + 13], "little")
            files[-1].append(self.data[at : at + size])
            at += size
        return files

    def logged(self) -> list[bytes]:
        return [event for file in self.files() for event in file]

    def begins(self, file: int) -> Intervals:
        """What was executed before a file, as its second event says."""
        event = binlog.decode(self.files()[file][1], checksum=True)[1]
        assert isinstance(event, PreviousGtids)
        return event.gtids

    def rows(self, query: str) -> list[tuple[str, ...]]:
        """The files of the log, or the first events of one."""
        names = [f"binlog.{number:06}" for number in range(1, len(self.files()) + 1)]
        if query == "SHOW BINARY LOGS":
            return [(name, "0", "No") for name in names]
        asked = re.fullmatch("SHOW BINLOG EVENTS IN '(.*)' LIMIT 2", query)
        assert asked
        said = str(self.begins(names.index(asked[1])))
        kinds = (("Format_desc", "Server ver: 9.7.4"), ("Previous_gtids", said))
        return [(asked[1], "4", kind, "1", "158", info) for kind, info in kinds]

    def sent(self, gtid: str) -> Iterator[bytes]:
        """What a server sends to one that has `gtid`."""
        known, has = Intervals.parse(gtid), False
        for data in self.logged():
            event = binlog.decode(data, checksum=True)[1]
            if isinstance(event, Transaction):
                has = event.gtid is not None and known.names(str(event.gtid))
            if not has or isinstance(event, (Rotate, Format)):
                yield data

    def past(self, gtid: str) -> Generator[bytes, None, None]:
        """What `Lookback` reads, which knows where to stop."""
        yield from self.sent(gtid)
        raise AssertionError("it was read beyond the end of the log")

    def transactions(self, memory: int = 1 << 20, position: Position | None = None) -> Transactions:
        """What follows a position, the beginning when there is none."""
        position = position or self.begin
        tables = Tables(self, self, {})
        past: Any = Lookback(self, self.past)  # type: ignore[arg-type]
        made = Transactions(
            position,
            tables,
            lambda: Spill(memory),
            self.altered.append,
            checksum=True,
            prepared=Prepared(position.prepared, memory, past),
        )
        made.feed(list(self.sent(position.gtid)))
        return made

    def read(self, memory: int = 1 << 20) -> tuple[list[Event], Position]:
        """All events of the log, and the position behind them."""
        transactions, found = self.transactions(memory), []
        while transactions.advance():
            pass
        found = [event for rows in transactions.take() for event in events_of(rows)]
        transactions.close()
        assert isinstance(transactions.position, Position)
        return found, transactions.position

    def columns(self) -> dict[str, list[MysqlColumn]]:
        """The columns of each table as the log has them."""
        found: dict[str, list[MysqlColumn]] = {}
        for data in self.logged():
            event = binlog.decode(data, checksum=True)[1]
            if isinstance(event, TableEvent):
                table = table_of(event, MYSQL_TEXTS)
                charsets = self.charsets()
                found[table.table.name] = [logged_column(c, charsets) for c in table.columns]
        return found


class Answers:
    """A connection to a server that has what SELECT gave, and no more to say."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._told = told
        self._found: list[tuple[bytes | None, ...]] = []

    def cursor(self) -> Any:
        return nullcontext(self)

    def execute(self, query: str, _: object) -> None:
        table = re.search("FROM `shop`.`([a-z]+)`", query)
        rows = self._told["tables"][table[1]]["rows"] if table else [[self._told["gtid_executed"]]]
        self._found = [tuple(wanted(cell, None) for cell in row) for row in rows]

    def fetchall(self) -> list[tuple[bytes | None, ...]]:
        return self._found


def wanted(cell: str | None, make: Callable[[bytes], bytes] | None) -> bytes | None:
    """What a cell of SELECT is in a record."""
    if cell is None:
        return None
    raw = cell.encode("latin-1")
    return raw if make is None or raw.startswith(b"sha256 ") else make(raw)
