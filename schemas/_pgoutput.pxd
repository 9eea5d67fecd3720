"""Form "pgoutput": one Insert, Update or Delete message → cells. See `schemas/forms.py`.

What is not such a message, whole and of the expected width, is left to the plain reader.
Source: PostgreSQL 18 manual, "Logical Replication Message Formats" (TupleData).
"""

from schemas._cells cimport ABSENT_CELL, NULL_CELL, Cell

cdef struct Message:
    const unsigned char *data
    Py_ssize_t size
    Py_ssize_t at


cdef inline bint read_tuple(Message *message, int width, Cell *cells) noexcept:
    """Read the TupleData at `message.at`, which must have `width` columns, and go behind it."""
    cdef const unsigned char *data = message.data
    cdef Py_ssize_t at = message.at, size = message.size, length
    cdef int place
    if size - at < 2 or (data[at] << 8 | data[at + 1]) != width:
        return False
    at += 2
    for place in range(width):
        if at >= size:
            return False
        if data[at] == c"t":
            if size - at < 5:
                return False
            length = <Py_ssize_t>data[at + 1] << 24 | data[at + 2] << 16
            length |= data[at + 3] << 8 | data[at + 4]
            at += 5
            if length > size - at:
                return False
            cells[place].data = data + at
            cells[place].size = length
            at += length
        elif data[at] == c"n":
            cells[place].size = NULL_CELL
            at += 1
        elif data[at] == c"u":
            cells[place].size = ABSENT_CELL
            at += 1
        else:
            return False
    message.at = at
    return True


cdef inline bint read_last(Message *message, int width, Cell *cells) noexcept:
    """Read the new tuple that ends the message, its kind byte first."""
    cdef Py_ssize_t at = message.at
    if at >= message.size or message.data[at] != c"N":
        return False
    message.at = at + 1
    return read_tuple(message, width, cells) and message.at == message.size


cdef inline void fill(int width, Cell *after, const Cell *before) noexcept:
    """Take what `after` left out (unchanged TOAST) from a FULL old row (R6)."""
    cdef int place
    for place in range(width):
        if after[place].size == ABSENT_CELL:
            after[place] = before[place]
