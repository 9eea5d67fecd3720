"""Form "copy": one line of COPY TO STDOUT in text format → cells, and the escapes of one.

`schemas/forms.py` is the reference.

Source: PostgreSQL 18 manual, "COPY, File Formats, Text Format".
"""

from libc.string cimport memchr

from schemas._buffer cimport Buffer, reserve
from schemas._cells cimport NULL_CELL, Cell


cdef inline unsigned char unescaped(unsigned char letter) noexcept:
    if letter == c"b":
        return c"\b"
    if letter == c"f":
        return c"\f"
    if letter == c"n":
        return c"\n"
    if letter == c"r":
        return c"\r"
    if letter == c"t":
        return c"\t"
    return c"\v" if letter == c"v" else letter


cdef inline Py_ssize_t unescape(
    const unsigned char *text, Py_ssize_t size, unsigned char *room
) noexcept:
    """Write the value of a field to `room`, which holds `size` bytes; return its size."""
    cdef Py_ssize_t at = 0, count = 0
    while at < size:
        if text[at] == c"\\" and at + 1 < size:
            at += 1
            room[count] = unescaped(text[at])
        else:
            room[count] = text[at]
        at += 1
        count += 1
    return count


cdef inline bint read_line(
    const unsigned char *text, Py_ssize_t size, int width, Cell *cells, unsigned char *room
) noexcept:
    """Read a line of `width` fields, without its newline; `room` holds `size` bytes."""
    cdef const unsigned char *end = text + size
    cdef const unsigned char *stop
    cdef bint escapes = memchr(text, c"\\", size) is not NULL
    cdef Py_ssize_t length
    cdef int place
    for place in range(width):
        stop = <const unsigned char *>memchr(text, c"\t", end - text)
        if (stop is NULL) != (place == width - 1):
            return False
        length = (end if stop is NULL else stop) - text
        cells[place].data = text
        cells[place].size = length
        if escapes and length == 2 and text[0] == c"\\" and text[1] == c"N":
            cells[place].size = NULL_CELL
        elif escapes and memchr(text, c"\\", length) is not NULL:
            cells[place].data = room
            cells[place].size = unescape(text, length, room)
            room += cells[place].size
        text = stop + 1
    return True


cdef inline unsigned char escape_of(unsigned char letter) noexcept:
    """Return what stands behind the backslash, 0 for a letter that needs none."""
    if letter == c"\\":
        return c"\\"
    return b"btnvfr"[letter - 8] if 8 <= letter <= 13 else 0


cdef inline int put_escaped(Buffer *out, const unsigned char *text, Py_ssize_t size) except -1:
    """Write the value of a field."""
    cdef unsigned char *start = reserve(out, 2 * size + 1)
    cdef unsigned char *at = start
    cdef const unsigned char *end = text + size
    cdef unsigned char letter
    while text < end:
        letter = escape_of(text[0])
        if letter:
            at[0] = c"\\"
            at += 1
        at[0] = letter if letter else text[0]
        at += 1
        text += 1
    out.size += at - start
    return 1
