"""Events of the binary log of MariaDB and MySQL: bytes in, typed events out, no I/O.

    19 bytes of header │ what the kind has │ CRC32, where the log has checksums

Rows stay bytes: what their columns are says the Table event before them (`binlogtables.py`), what
a value looks like `mysqlvalues.py`. An event of which a byte is missing, and one whose kind is not
known here, is a `ValueError` that names it; one that its writer flagged as ignorable is `Ignored`.

Sources: MariaDB documentation, "Replication Protocol", and `sql/log_event.h`; MySQL 8.4 internals,
"Binary Log Event".
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from cdc.decode import binlogmysql
from cdc.decode.binlogevents import (
    Event,
    Format,
    GtidList,
    Header,
    Heartbeat,
    Ignored,
    Incident,
    Query,
    Reader,
    Rotate,
    RowsEvent,
    Stopped,
    TableEvent,
    Transaction,
    XaPrepare,
    Xid,
)
from cdc.decode.gtid import Gtid

__all__ = ["decode", "header_of"]

_HEADER = struct.Struct("<IBIIIH")
_CHECKSUM_BYTES = 4
_IGNORABLE = 0x80


def header_of(data: bytes) -> Header:
    """Return the header of an event. Raises `ValueError` when it is cut or of another size."""
    if len(data) < _HEADER.size:
        raise ValueError(f"an event of {len(data)} bytes has no header")
    header = Header(*_HEADER.unpack_from(data))
    if header.size != len(data):
        raise ValueError(f"an event says it has {header.size} bytes and has {len(data)}")
    return header


def decode(data: bytes, *, checksum: bool) -> tuple[Header, Event]:
    """Return the event in `data`; `checksum` as the last `Format` said.

    Raises `ValueError` for an event that is cut, damaged or not known.
    """
    header = header_of(data)
    name, read = _KINDS.get(header.kind, (f"kind {header.kind}", None))
    end = len(data)
    if checksum if read is not _format else _has_checksum(data):
        end -= _CHECKSUM_BYTES
        if zlib.crc32(data[:end]) != int.from_bytes(data[end:], "little"):
            raise ValueError(f"the checksum of a {name} event does not fit")
    if read is None:
        if header.flags & _IGNORABLE:
            return header, Ignored(name)
        raise ValueError(f"events of {name} cannot be read")
    try:
        return header, read(Reader(data[_HEADER.size : end]), header)
    except ValueError as error:
        raise ValueError(f"a {name} event is damaged: {error}") from error


def _has_checksum(data: bytes) -> bool:
    """A Format event ends with the algorithm (0 none, 1 CRC32) and four bytes, whatever it is."""
    if len(data) < _HEADER.size + 62:
        raise ValueError(f"a Format event of {len(data)} bytes is cut")
    return data[-5] == 1


def _format(reader: Reader, _: Header) -> Format:
    version = reader.number(2)
    if version != 4:
        raise ValueError(f"the log has version {version}, not 4")
    server = reader.take(50).rstrip(b"\0").decode("ascii", "replace")
    reader.number(4)
    if reader.number(1) != _HEADER.size:
        raise ValueError("headers are not of 19 bytes")
    return Format(server, reader.rest()[-1:] == b"\x01")


def _rotate(reader: Reader, _: Header) -> Rotate:
    offset = reader.number(8)
    return Rotate(reader.rest().decode(), offset)


_STANDALONE, _GROUPED, _DDL, _PREPARED, _COMPLETED = 1, 2, 32, 64, 128
_ENGINES, _ALTER = 1, {2: "start", 4: "commit", 8: "rollback"}


def _transaction(reader: Reader, header: Header) -> Transaction:
    """Read Gtid_log_event of MariaDB; behind what is known may stand more (`flags_extra`)."""
    sequence, domain, flags = reader.number(8), reader.number(4), reader.number(1)
    reader.take(8 if flags & _GROUPED else 0)
    xid = _xid(reader, 1) if flags & (_PREPARED | _COMPLETED) else b""
    extra = reader.number(1) if reader.left else 0
    return Transaction(
        Gtid(domain, header.server, sequence),
        standalone=bool(flags & _STANDALONE),
        ddl=bool(flags & _DDL),
        prepared=bool(flags & _PREPARED),
        completed=bool(flags & _COMPLETED),
        xid=xid,
        alter=next((told for bit, told in _ALTER.items() if extra & bit), ""),
    )


def _xid(reader: Reader, size: int) -> bytes:
    """Return format id, lengths and bytes of an XA id, as one value that names it."""
    kind, branch, rest = reader.number(4), reader.number(size), reader.number(size)
    return struct.pack("<III", kind, branch, rest) + reader.take(branch + rest)


def _gtid_list(reader: Reader, _: Header) -> GtidList:
    count = reader.number(4) & 0x0FFFFFFF
    if count * 16 > reader.left:
        raise ValueError(f"{count} ids in {reader.left} bytes")
    found = ((reader.number(4), reader.number(4), reader.number(8)) for _ in range(count))
    return GtidList(tuple(Gtid(*parts) for parts in found))


def _query(reader: Reader, header: Header) -> Query:
    reader.take(8)
    size, error, status = reader.number(1), reader.number(2), reader.number(2)
    reader.take(status)
    database = reader.take(size).decode()
    reader.take(1)
    text = reader.rest()
    if header.kind == _QUERY_COMPRESSED:
        text = _inflated(text)
    return Query(database, text.decode("utf-8", "replace"), error)


def _xid_event(reader: Reader, _: Header) -> Xid:
    return Xid(reader.number(8))


def _xa_prepare(reader: Reader, _: Header) -> XaPrepare:
    one_phase = bool(reader.number(1))
    return XaPrepare(_xid(reader, 4), one_phase)


def _table(reader: Reader, _: Header) -> TableEvent:
    return TableEvent(reader.number(6), reader.rest())


def _rows(reader: Reader, header: Header) -> RowsEvent:
    kind, version, compressed = _ROWS[header.kind]
    number, flags = reader.number(6), reader.number(2)
    if version == 2:
        extra = reader.number(2)
        if extra != 2:
            raise ValueError(f"{extra - 2} bytes of extra row data are not known")
    width = reader.packed()
    before = reader.take((width + 7) // 8)
    after = reader.take((width + 7) // 8) if kind == b"U" else before
    data = reader.rest()
    if compressed:
        data = _inflated(data)
    parts = header.kind == _PARTIAL_UPDATE
    return RowsEvent(kind, number, width, before, after, data, bool(flags & 1), parts)


def _inflated(data: bytes) -> bytes:
    """Return what MariaDB compressed: 0x80 | bytes of the length, the length big-endian, zlib."""
    reader = Reader(data)
    first = reader.number(1)
    if first & 0xF8 != 0x80 or not 1 <= first & 7 <= 4:
        raise ValueError(f"{first:#x} is no compression that is known")
    size = int.from_bytes(reader.take(first & 7), "big")
    inflater = zlib.decompressobj()
    try:
        found = inflater.decompress(reader.rest(), size + 1)
    except zlib.error as error:
        raise ValueError(f"it cannot be decompressed: {error}") from error
    if len(found) != size or not inflater.eof:
        raise ValueError(f"it was compressed from {size} bytes and is {len(found)}")
    return found


def _incident(reader: Reader, _: Header) -> Incident:
    number = reader.number(2)
    return Incident(number, reader.take(reader.number(1)).decode("utf-8", "replace"))


def _heartbeat(reader: Reader, _: Header) -> Heartbeat:
    return Heartbeat(reader.rest().decode())


def _stopped(_: Reader, __: Header) -> Stopped:
    return Stopped()


def _statement(_: Reader, __: Header) -> Query:
    """A file loaded in statement format, whatever it says."""
    return Query("", "LOAD DATA", 0)


def _ignored(name: str) -> Callable[[Reader, Header], Ignored]:
    return lambda _, __: Ignored(name)


_PARTIAL_UPDATE, _QUERY_COMPRESSED = 39, 165
_ROWS = {
    23: (b"I", 1, False),
    24: (b"U", 1, False),
    25: (b"D", 1, False),
    30: (b"I", 2, False),
    31: (b"U", 2, False),
    32: (b"D", 2, False),
    39: (b"U", 2, False),
    166: (b"I", 1, True),
    167: (b"U", 1, True),
    168: (b"D", 1, True),
    169: (b"I", 2, True),
    170: (b"U", 2, True),
    171: (b"D", 2, True),
}
_ROWS_NAMES = {b"I": "Write_rows", b"U": "Update_rows", b"D": "Delete_rows"}
_WITHOUT_EFFECT = {
    5: "Intvar",  # prepares the statement that follows, which is judged itself
    13: "Rand",
    14: "User_var",
    29: "Rows_query",
    160: "Annotate_rows",
    161: "Binlog_checkpoint",
    164: "Start_encryption",
}

_KINDS: dict[int, tuple[str, Callable[[Reader, Header], Event] | None]] = {
    2: ("Query", _query),
    3: ("Stop", _stopped),
    4: ("Rotate", _rotate),
    15: ("Format_description", _format),
    16: ("Xid", _xid_event),
    17: ("Begin_load_query", _statement),
    18: ("Execute_load_query", _statement),
    19: ("Table_map", _table),
    26: ("Incident", _incident),
    27: ("Heartbeat", _heartbeat),
    38: ("XA_prepare", _xa_prepare),
    162: ("Gtid", _transaction),
    163: ("Gtid_list", _gtid_list),
    165: ("Query_compressed", _query),
    **binlogmysql.KINDS,
    **{kind: (_ROWS_NAMES[rows[0]], _rows) for kind, rows in _ROWS.items()},
    **{kind: (name, _ignored(name)) for kind, name in _WITHOUT_EFFECT.items()},
}
