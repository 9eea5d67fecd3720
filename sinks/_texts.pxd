"""Values as Avro holds them → the text PostgreSQL prints, with the escapes of COPY.

`schemas.types` is the reference. A writer returns False for a value that has no such text; rare
floats and decimals go through `decode`, which is the reference itself.
Source of the escapes: PostgreSQL 18 manual, "COPY, Text Format".
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint64_t, uint8_t
from libc.string cimport memcpy

from schemas._buffer cimport Buffer, put, put_raw, reserve
from schemas._copy cimport put_escaped
from schemas._texts cimport put_clock, put_day, put_hex as put_bytes, put_integer
from sinks._avro cimport DATE, TIME, TIMESTAMPTZ, Cell

cdef extern from "Python.h":
    char *PyOS_double_to_string(double value, char code, int precision, int flags, int *kind)
    void PyMem_Free(void *place)

cdef enum:
    DAY_US = 86_400_000_000
    FIRST_DAY = -719_162  # 0001-01-01
    LAST_DAY = 2_932_896  # 9999-12-31


cdef inline int put_object(Buffer *out, bytes data) except -1:
    return put_raw(out, <const unsigned char *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


cdef inline bint put_moment(Buffer *out, int kind, int64_t value) except -1:
    """Write a date, a time or a moment; decline what the plain reader refuses."""
    cdef char *start = <char *>reserve(out, 40)
    cdef char *at = start
    cdef int64_t day = value
    if kind == TIME:
        if not 0 <= value < DAY_US:
            return False
        at = put_clock(at, value)
    else:
        if kind != DATE:
            day = value // DAY_US
        if not FIRST_DAY <= day <= LAST_DAY:
            return False
        at = put_day(at, day)
        if kind != DATE:
            at[0] = c" "
            at = put_clock(at + 1, value - day * DAY_US)
        if kind == TIMESTAMPTZ:
            memcpy(at, b"+00", 3)
            at += 3
    out.size += at - start
    return True


cdef inline int put_float(Buffer *out, Cell *cell, object decode) except -1:
    """Write a float8; `repr` gives the digits of the usual ones (`schemas.floats`)."""
    cdef double value
    cdef char *text
    cdef Py_ssize_t length = 0
    memcpy(&value, cell.at, 8)
    if not -1e15 < value < 1e15:
        return put_object(out, decode(value))
    text = PyOS_double_to_string(value, c"r", 0, 0, NULL)
    if text == NULL:
        raise MemoryError
    while text[length]:
        length += 1
    try:
        return put_raw(out, <const unsigned char *>text, length)
    finally:
        PyMem_Free(text)


cdef inline int put_float32(Buffer *out, Cell *cell, object decode) except -1:
    cdef float value
    memcpy(&value, cell.at, 4)
    if value and -1e6 < value < 1e6 and <float><int64_t>value == value:
        return put_integer(out, <int64_t>value, 0)
    return put_object(out, decode(<double>value))


cdef inline int put_decimal(Buffer *out, Cell *cell, int scale, object decode) except -1:
    cdef int64_t number
    cdef int64_t place
    if not 0 < cell.number <= 8:
        return put_object(out, decode(<bytes>cell.at[:cell.number]))
    number = -1 if cell.at[0] & 0x80 else 0
    for place in range(cell.number):
        number = <int64_t>(<uint64_t>number << 8 | cell.at[place])
    return put_integer(out, number, scale)


cdef inline int put_hex(Buffer *out, Cell *cell, bint escaped) except -1:
    if escaped:
        put(out, c"\\")
    put_bytes(out, cell.at, cell.number)
    return 0


cdef inline int put_text(Buffer *out, Cell *cell) except -1:
    """Write text with the escapes of COPY."""
    put_escaped(out, cell.at, cell.number)
    return 0
