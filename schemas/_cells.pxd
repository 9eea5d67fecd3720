"""The cells of a row as spans of the bytes it was read from; nothing is copied."""

cdef enum:
    NULL_CELL = -1
    ABSENT_CELL = -2

cdef struct Cell:
    const unsigned char *data
    Py_ssize_t size
