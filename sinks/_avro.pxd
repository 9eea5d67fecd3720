"""Avro binary → where its values lie; nothing is copied, and nothing behind `end` is read.

A reader returns False for what is torn or not as we write it: such a record is declined.
Source: Avro specification 1.12, "Binary encoding".
"""

from libc.stdint cimport int64_t, uint64_t, uint8_t
from libc.string cimport memcmp

from schemas._values cimport is_utf8

cdef enum Kind:
    BOOLEAN, INTEGER, FLOAT32, FLOAT64, DECIMAL, DATE, TIME, TIMESTAMP, TIMESTAMPTZ, BYTES, TEXT

cdef struct Input:
    const uint8_t *at
    const uint8_t *end

cdef struct Cell:
    const uint8_t *at  # NULL: the value is null
    int64_t number     # the value of what is a number on the wire, else the length


cdef inline bint read_long(Input *data, int64_t *out) noexcept nogil:
    """Read a zigzag varint (Avro specification, binary encoding); decline one over 64 bits."""
    cdef uint64_t value = 0
    cdef int shift = 0
    cdef uint8_t byte
    while data.at < data.end:
        byte = data.at[0]
        data.at += 1
        if shift == 63 and byte > 1:
            return False
        value |= <uint64_t>(byte & 0x7F) << shift
        if byte < 0x80:
            out[0] = <int64_t>(value >> 1) ^ -<int64_t>(value & 1)
            return True
        shift += 7
        if shift > 63:
            return False
    return False


cdef inline bint read_block(Input *data, Cell *cell) noexcept nogil:
    """Read the length of text or bytes and step over them."""
    cdef int64_t length
    if not read_long(data, &length) or length < 0 or length > data.end - data.at:
        return False
    cell.at, cell.number = data.at, length
    data.at += length
    return True


cdef inline bint read_text(Input *data, Cell *cell) except -1:
    """Read a string; decline one that is not UTF-8."""
    if not read_block(data, cell):
        return False
    return is_utf8(cell.at, <Py_ssize_t>cell.number)


cdef inline bint read_branch(Input *data, bint *some) noexcept nogil:
    """Read the branch of a union of null and one type."""
    if data.at >= data.end or data.at[0] not in (0, 2):
        return False
    some[0] = data.at[0] == 2
    data.at += 1
    return True


cdef inline bint read_fixed(Input *data, Cell *cell, Py_ssize_t length) noexcept nogil:
    if data.end - data.at < length:
        return False
    cell.at, cell.number = data.at, length
    data.at += length
    return True


cdef inline bint read_cell(Input *data, int kind, Cell *cell) except -1:
    if kind == TEXT:
        return read_text(data, cell)
    if kind == DECIMAL or kind == BYTES:
        return read_block(data, cell)
    if kind == FLOAT64:
        return read_fixed(data, cell, 8)
    if kind == FLOAT32:
        return read_fixed(data, cell, 4)
    if kind == BOOLEAN:
        return read_fixed(data, cell, 1) and cell.at[0] < 2
    cell.at = data.at
    return read_long(data, &cell.number)


cdef inline bint read_source(Input *data, bint *snapshot, int64_t *ts_ms, int64_t *stamp) except -1:
    """Read the source block: six names, snapshot, ts_ms, txId, and the stamp."""
    cdef Cell text
    cdef int part, _
    for _ in range(7):
        if not read_text(data, &text):
            return False
    snapshot[0] = text.number != 5 or memcmp(text.at, b"false", 5) != 0
    if not (read_long(data, ts_ms) and read_text(data, &text)):
        return False
    for part in range(4):
        if not read_long(data, &stamp[part]):
            return False
    return True


cdef inline bint read_op(Input *data, char *op) except -1:
    """Read the op; decline all but rows that come, change or go."""
    cdef Cell text
    if not read_text(data, &text) or text.number != 1:
        return False
    op[0] = <char>text.at[0]
    return op[0] in (c"c", c"u", c"r", c"d")
