"""A buffer that grows, and Avro's integers and byte strings written to it.

Every write asks for its room first, so none can go past the end. The owner frees `data`.
"""

from libc.stdlib cimport realloc
from libc.string cimport memcpy

cdef struct Buffer:
    unsigned char *data
    size_t size
    size_t room


cdef inline unsigned char *reserve(Buffer *out, size_t more) except NULL:
    """Return the end, behind which `more` bytes may now be written."""
    cdef size_t room
    cdef void *moved
    if out.room - out.size < more:
        room = 2 * out.room + more
        moved = realloc(out.data, room)
        if moved is NULL:
            raise MemoryError(f"{room} bytes for a record")
        out.data = <unsigned char *>moved
        out.room = room
    return out.data + out.size


cdef inline int put(Buffer *out, unsigned char byte) except -1:
    reserve(out, 1)[0] = byte
    out.size += 1
    return 1


cdef inline int put_raw(Buffer *out, const unsigned char *data, Py_ssize_t size) except -1:
    memcpy(reserve(out, size + 1), data, size)
    out.size += size
    return 1


cdef inline int put_long(Buffer *out, long long value) except -1:
    """Write an int or long: zigzag, base 128 (Avro specification, binary encoding)."""
    cdef unsigned long long rest = <unsigned long long>value << 1
    cdef unsigned char *at = reserve(out, 10)
    cdef int count = 0
    rest ^= <unsigned long long>(value >> 63)
    while rest > 0x7F:
        at[count] = rest & 0x7F | 0x80
        rest >>= 7
        count += 1
    at[count] = <unsigned char>rest
    out.size += count + 1
    return 1


cdef inline int put_sized(Buffer *out, const unsigned char *data, Py_ssize_t size) except -1:
    """Write a string or bytes: its length, then itself."""
    put_long(out, size)
    return put_raw(out, data, size)
