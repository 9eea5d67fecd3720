"""The compiled reader of a result: its row packets, as a server sent them → lines of COPY text.

    size (3) │ number (1) │ size text │ FB │ …  ─▶  text ⇥ \\N ⇥ …

`cdc/mariadb/results.py` is the reference. A value that the C code does not know, or finds odd, is
written by the column's plain function, so every error and every rare form is the plain one's.
Nothing is read behind the end of a packet, or of the block.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport uint64_t
from libc.stdlib cimport free
from libc.string cimport memchr

from schemas._buffer cimport Buffer, put, put_raw
from schemas._copy cimport put_escaped
from schemas._texts cimport put_hex

__all__ = ["ResultReader"]

cdef enum Kind:
    PLAIN, TEXT, INTEGER, DECIMAL, MOMENT, ZONED, BYTES

KINDS = {
    "text": TEXT, "integer": INTEGER, "decimal": DECIMAL, "moment": MOMENT, "zoned": ZONED,
    "bytes": BYTES,
}

cdef enum:
    HEAD = 4
    LONGEST = 0xFFFFFF  # of a packet that goes on in the next one
    NULL_MARK = 0xFB
    EOF_MARK = 0xFE
    ERROR_MARK = 0xFF
    EOF_SIZE = 9  # what is shorter and begins with EOF_MARK ends the rows
    MAX_DIGITS = 20  # of an integer


cdef inline uint64_t little(const unsigned char *data, int size) noexcept:
    cdef uint64_t value = 0
    cdef int place
    for place in range(size):
        value |= <uint64_t>data[place] << 8 * place
    return value


cdef inline int size_bytes(unsigned char mark) noexcept:
    """Return how many bytes the size behind `mark` has; 0 where there is none."""
    if mark == 0xFC:
        return 2
    if mark == 0xFD:
        return 3
    return 8 if mark == 0xFE else 0


cdef inline bint is_row(const unsigned char *data, Py_ssize_t size) noexcept:
    if size and data[0] == EOF_MARK:
        return size >= EOF_SIZE
    return not size or data[0] != ERROR_MARK


cdef inline bint is_digit(unsigned char letter) noexcept:
    return c"0" <= letter <= c"9"


cdef inline int put_number(
    Buffer *out, const unsigned char *data, Py_ssize_t size, bint whole
) except -1:
    """Write a number without the zeros in front; 0, and nothing, where it is odd."""
    cdef Py_ssize_t sign = 1 if size and data[0] == c"-" else 0
    cdef Py_ssize_t first = sign
    cdef Py_ssize_t at
    while first + 1 < size and data[first] == c"0" and is_digit(data[first + 1]):
        first += 1
    at = first
    while at < size and is_digit(data[at]):
        at += 1
    if at == first or (whole and (size > MAX_DIGITS or (sign and data[first] == c"0"))):
        return 0
    if not whole and at < size and data[at] == c".":
        at += 1
        while at < size and is_digit(data[at]):
            at += 1
    if at != size:
        return 0
    if sign:
        put(out, c"-")
    return put_raw(out, data + first, size - first)


cdef inline int put_trimmed(Buffer *out, const unsigned char *data, Py_ssize_t size) except -1:
    """Write a moment without the zeros that end its fraction."""
    if size and memchr(data, c".", size) is not NULL:
        while data[size - 1] == c"0":
            size -= 1
        if data[size - 1] == c".":
            size -= 1
    return put_escaped(out, data, size)


cdef class ResultReader:
    """Reads the rows of one query; `cdc.mariadb.results` makes it.

    `kinds` has one of `KINDS` for each column, or "" for what its function in `makes` alone knows:
    bytes as the server printed them → text; None where they are that.
    """

    cdef Kind *kinds
    cdef readonly int width
    cdef tuple makes
    cdef Buffer out

    def __cinit__(self, tuple kinds, tuple makes):
        self.width = len(kinds)
        if len(makes) != self.width:
            raise ValueError(f"{len(makes)} functions for {self.width} columns")
        self.makes = makes
        self.kinds = <Kind *>PyMem_Calloc(self.width + 1, sizeof(Kind))
        if self.kinds is NULL:
            raise MemoryError
        for place, kind in enumerate(kinds):
            self.kinds[place] = KINDS.get(kind, PLAIN)

    def __dealloc__(self):
        PyMem_Free(self.kinds)
        free(self.out.data)

    def take(self, bytes block not None, int number):
        """Return the lines of the whole rows that begin `block`, their size, and what comes next.

        `number` is that of the first packet. Whatever is no row, or not whole, is left alone.
        Raises `ValueError` for a row that cannot be read, and what `makes` raise.
        """
        cdef const unsigned char *data = <const unsigned char *>PyBytes_AS_STRING(block)
        cdef Py_ssize_t end = PyBytes_GET_SIZE(block)
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t size
        cdef list lines = []
        try:
            while end - at >= HEAD and data[at + 3] == number:
                size = <Py_ssize_t>little(data + at, 3)
                if size == LONGEST or size > end - at - HEAD or not is_row(data + at + HEAD, size):
                    break
                lines.append(self._line(data + at + HEAD, size))
                at += HEAD + size
                number = number + 1 & 0xFF
        finally:
            self._forget()
        return lines, at, number

    def line(self, bytes row not None):
        """Return the line of one row, whose packets' heads are cut out. Raises as `take` does."""
        try:
            return self._line(<const unsigned char *>PyBytes_AS_STRING(row), PyBytes_GET_SIZE(row))
        finally:
            self._forget()

    cdef _forget(self):
        free(self.out.data)
        self.out = Buffer(NULL, 0, 0)

    cdef bytes _line(self, const unsigned char *data, Py_ssize_t size):
        cdef Py_ssize_t at = 0
        cdef int place
        self.out.size = 0
        for place in range(self.width):
            if place:
                put(&self.out, c"\t")
            at = self._cell(data, size, at, place)
        if at != size:
            raise ValueError(f"a row of {self.width} columns ends at byte {at} of {size}")
        return PyBytes_FromStringAndSize(<const char *>self.out.data, self.out.size)

    cdef Py_ssize_t _cell(
        self, const unsigned char *data, Py_ssize_t size, Py_ssize_t at, int place
    ) except -1:
        """Write the text of one value and return the offset behind it."""
        cdef int more
        cdef uint64_t length
        if at >= size:
            raise ValueError(f"a row ends behind {place} of {self.width} columns")
        length = data[at]
        at += 1
        if length == NULL_MARK:
            put_raw(&self.out, b"\\N", 2)
            return at
        if length > NULL_MARK:
            more = size_bytes(<unsigned char>length)
            if not more or more > size - at:
                raise ValueError(f"column {place} of a row has no size")
            length = little(data + at, more)
            at += more
        if length > <uint64_t>(size - at):
            raise ValueError(f"column {place} of a row has {length} bytes of {size - at}")
        self._value(data + at, <Py_ssize_t>length, place)
        return at + <Py_ssize_t>length

    cdef int _value(self, const unsigned char *data, Py_ssize_t size, int place) except -1:
        cdef Kind kind = self.kinds[place]
        cdef bytes text
        if kind == TEXT:
            return put_escaped(&self.out, data, size)
        if kind == MOMENT or kind == ZONED:
            put_trimmed(&self.out, data, size)
            return put_raw(&self.out, b"+00", 3) if kind == ZONED else 1
        if kind == BYTES:
            put(&self.out, c"\\")
            return put_hex(&self.out, data, size)
        if kind != PLAIN and put_number(&self.out, data, size, kind == INTEGER):
            return 1
        text = PyBytes_FromStringAndSize(<const char *>data, size)
        if self.makes[place] is not None:
            text = self.makes[place](text)
        return put_escaped(
            &self.out, <const unsigned char *>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)
        )
