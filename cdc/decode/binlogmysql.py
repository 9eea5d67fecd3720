"""What only MySQL's binary log has: its transaction ids, payloads of transactions, heartbeats.

Sources: MySQL 9.7 `libs/mysql/binlog/event/control_events.h` (Gtid_event, Heartbeat_event_v2,
Transaction_payload_event), `libs/mysql/serialization` (the form of Gtid_tagged), `libs/mysql/gtid`;
read again in what a server of version 9.7.4 wrote (`tests/cdc/mysql/recorded`).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from uuid import UUID

from cdc.decode.binlogevents import (
    Event,
    Header,
    Heartbeat,
    Payload,
    PreviousGtids,
    Reader,
    Transaction,
)
from cdc.decode.gtid import Interval, Intervals, MysqlGtid

__all__ = ["KINDS", "encoded", "events_of"]

_HEADER = struct.Struct("<IBIIIH")
_CHECKSUM_BYTES = 4
_BLOCK = 1 << 20


def _transaction(reader: Reader, _: Header) -> Transaction:
    reader.number(1)
    server, number = UUID(bytes=reader.take(16)), reader.number(8)
    return Transaction(MysqlGtid(server, "", number), standalone=None, ddl=False)


def _anonymous(_: Reader, __: Header) -> Transaction:
    return Transaction(None, standalone=None, ddl=False)


def _tagged(reader: Reader, _: Header) -> Transaction:
    """Read fields by their numbers; those behind the tag are times and sizes, which differ."""
    version, size, _last = _varied(reader), _varied(reader), _varied(reader)
    if version != 1 or size != reader.at + reader.left:
        raise ValueError(f"version {version}, {size} bytes")
    for wanted in (0, 1):  # flags, and the first of the server's bytes
        if _varied(reader) != wanted:
            raise ValueError(f"field {wanted} is missing")
        if not wanted:
            _varied(reader)
    server = UUID(bytes=bytes(_varied(reader) for _ in range(16)))
    if _varied(reader) != 2:
        raise ValueError("field 2 is missing")
    number = _varied(reader) >> 1  # signed: the sign comes first
    if _varied(reader) != 3:
        raise ValueError("field 3 is missing")
    tag = reader.take(_varied(reader)).decode("ascii")
    return Transaction(MysqlGtid(server, tag, number), standalone=None, ddl=False)


def _varied(reader: Reader) -> int:
    """Read an integer whose first byte ends in as many ones as bytes follow it."""
    first = reader.number(1)
    more = (first ^ first + 1).bit_length() - 1
    if more == 8:
        return reader.number(8)
    return (first | reader.number(more) << 8) >> more + 1


def _previous(reader: Reader, _: Header) -> PreviousGtids:
    """Read the set a file begins at; `encoded` writes it."""
    count = reader.number(8)
    tagged = count >> 56 == 1
    if tagged:
        count = count >> 8 & (1 << 48) - 1
    sets: dict[tuple[UUID, str], list[Interval]] = {}
    for _owner in range(count):
        server = UUID(bytes=reader.take(16))
        tag = reader.take(_varied(reader)).decode("ascii") if tagged else ""
        found = sets.setdefault((server, tag), [])
        for _interval in range(reader.number(8)):
            found.append(Interval(reader.number(8), reader.number(8) - 1))
    return PreviousGtids(Intervals(sets))


def encoded(gtids: Intervals) -> bytes:
    """Return a set as COM_BINLOG_DUMP_GTID wants it; with tags only where there are any.

    Servers before 8.3 know no tags, and no set with one.
    """
    tagged = any(tag for (_, tag), _ in gtids.parts())
    parts = list(gtids.parts())
    count = len(parts) << 8 | 1 << 56 | 1 if tagged else len(parts)
    out = [struct.pack("<Q", count)]
    for (server, tag), intervals in parts:
        name = bytes([len(tag) << 1]) + tag.encode() if tagged else b""
        out.append(server.bytes + name + struct.pack("<Q", len(intervals)))
        out += [struct.pack("<QQ", first, last + 1) for first, last in intervals]
    return b"".join(out)


def _fields(reader: Reader) -> Iterator[tuple[int, bytes]]:
    """Yield (kind, value) up to the mark that ends them, kind 0."""
    while kind := reader.packed():
        yield kind, reader.take(reader.packed())


_COMPRESSION, _SIZE = 2, 3
_ZSTD, _NONE = 0, 255


def _payload(reader: Reader, _: Header) -> Payload:
    fields = dict(_fields(reader))
    if _COMPRESSION not in fields:
        raise ValueError("a payload does not say how it is compressed")
    how = Reader(fields[_COMPRESSION]).packed()
    if how not in (_ZSTD, _NONE):
        raise ValueError(f"compression {how} is not known")
    data = reader.rest()
    if how == _NONE:
        return Payload(data, compressed=False, size=len(data))
    if _SIZE not in fields:
        raise ValueError("a payload does not say how large it was")
    return Payload(data, compressed=True, size=Reader(fields[_SIZE]).packed())


def events_of(payload: Payload, *, checksum: bool) -> Iterator[bytes]:
    """Yield the events of a payload as they would stand in the log, checksums and all.

    Never more than one event, and a block of a MiB, in memory. Raises `ValueError`.
    """
    waiting = bytearray()
    for block in _inflated(payload):
        waiting += block
        at = 0
        while (event := _cut(waiting, at)) is not None:
            at += len(event)
            yield _sealed(event) if checksum else event
        del waiting[:at]
    if waiting:
        raise ValueError(f"a payload ends {len(waiting)} bytes into an event")


def _cut(data: bytearray, at: int) -> bytes | None:
    """Return the event at `at`, None when it is not there whole."""
    if len(data) - at < _HEADER.size:
        return None
    size = int.from_bytes(data[at + 9 : at + 13], "little")
    if size < _HEADER.size:
        raise ValueError(f"an event of a payload says it has {size} bytes")
    return bytes(data[at : at + size]) if len(data) - at >= size else None


def _sealed(event: bytes) -> bytes:
    """Return an event with the checksum that stands behind one of its own."""
    seconds, kind, server, size, end, flags = _HEADER.unpack_from(event)
    head = _HEADER.pack(seconds, kind, server, size + _CHECKSUM_BYTES, end, flags)
    whole = head + event[_HEADER.size :]
    return whole + struct.pack("<I", zlib.crc32(whole))


def _inflated(payload: Payload) -> Iterator[bytes]:
    if not payload.compressed:
        yield payload.data
        return
    import zstandard  # noqa: PLC0415 - of the extra `mysql`: MariaDB has no such events

    size = 0
    try:
        with zstandard.ZstdDecompressor().stream_reader(payload.data) as inflater:
            while block := inflater.read(_BLOCK):
                size += len(block)
                yield block
    except zstandard.ZstdError as error:
        raise ValueError(f"a payload cannot be decompressed: {error}") from error
    if size != payload.size:
        raise ValueError(f"a payload was compressed from {payload.size} bytes and is {size}")


_FILE, _PLACE = 1, 2


def _heartbeat(reader: Reader, _: Header) -> Heartbeat:
    """Read Heartbeat_log_event_v2, whose offset may have more than 32 bits."""
    fields = dict(_fields(reader))
    place = fields.get(_PLACE)
    return Heartbeat(fields.get(_FILE, b"").decode(), Reader(place).packed() if place else 0)


KINDS: dict[int, tuple[str, Callable[[Reader, Header], Event] | None]] = {
    33: ("Gtid (MySQL)", _transaction),
    34: ("Anonymous_gtid (MySQL)", _anonymous),
    35: ("Previous_gtids (MySQL)", _previous),
    36: ("Transaction_context (MySQL)", None),
    37: ("View_change (MySQL)", None),
    40: ("Transaction_payload (MySQL)", _payload),
    41: ("Heartbeat_v2 (MySQL)", _heartbeat),
    42: ("Gtid_tagged (MySQL)", _tagged),
}
