"""Numbers, moments and bytes → the text PostgreSQL prints (`schemas/types.py` is the reference)."""

cimport cython
from libc.stdint cimport int64_t, uint64_t

from schemas._buffer cimport Buffer, reserve


cdef inline int put_integer(Buffer *out, int64_t value, int scale) except -1:
    """Write a number; `scale` of its digits stand behind the point."""
    cdef char *end = <char *>reserve(out, 64 + scale) + 40 + scale
    cdef char *at = end
    cdef uint64_t rest = <uint64_t>value if value >= 0 else 0 - <uint64_t>value
    cdef int digits = 0
    while rest or digits <= scale:
        if scale and digits == scale:
            at -= 1
            at[0] = c"."
        at -= 1
        at[0] = <char>(48 + rest % 10)
        rest = rest // 10
        digits += 1
    if value < 0:
        at -= 1
        at[0] = c"-"
    cdef Py_ssize_t length = end - at
    cdef Py_ssize_t place = 0
    cdef char *start = <char *>out.data + out.size
    while place < length:
        start[place] = at[place]
        place += 1
    out.size += length
    return 0


cdef inline char *digits_of(char *at, int64_t value, int count) noexcept nogil:
    cdef int place = count - 1
    while place >= 0:
        at[place] = <char>(48 + value % 10)
        value = value // 10
        place -= 1
    return at + count


@cython.cdivision(True)
cdef inline char *put_day(char *at, int64_t day) noexcept nogil:
    """Write an ISO date: days since 1970 → civil (H. Hinnant, "chrono-Compatible Algorithms")."""
    cdef int64_t shifted = day + 719_468  # positive from the year 1 on
    cdef int64_t era = shifted // 146_097
    cdef int64_t in_era = shifted - era * 146_097
    cdef int64_t year_of = (
        in_era - in_era // 1460 + in_era // 36_524 - in_era // 146_096
    ) // 365
    cdef int64_t in_year = in_era - (365 * year_of + year_of // 4 - year_of // 100)
    cdef int64_t month_of = (5 * in_year + 2) // 153
    cdef int64_t month = month_of + 3 if month_of < 10 else month_of - 9
    at = digits_of(at, year_of + era * 400 + (1 if month <= 2 else 0), 4)
    at[0] = c"-"
    at = digits_of(at + 1, month, 2)
    at[0] = c"-"
    return digits_of(at + 1, in_year - (153 * month_of + 2) // 5 + 1, 2)


@cython.cdivision(True)
cdef inline char *put_clock(char *at, int64_t micros) noexcept nogil:
    cdef int64_t second = micros // 1_000_000
    cdef int64_t rest = micros - second * 1_000_000
    at = digits_of(at, second // 3600, 2)
    at[0] = c":"
    at = digits_of(at + 1, second // 60 % 60, 2)
    at[0] = c":"
    at = digits_of(at + 1, second % 60, 2)
    if rest:
        at[0] = c"."
        at = digits_of(at + 1, rest, 6)
        while (at - 1)[0] == c"0":
            at -= 1
    return at


cdef inline int put_hex(Buffer *out, const unsigned char *data, Py_ssize_t size) except -1:
    cdef char *at = <char *>reserve(out, 2 * size + 2)
    cdef const char *letters = b"0123456789abcdef"
    cdef Py_ssize_t place
    at[0], at[1] = c"\\", c"x"
    for place in range(size):
        at[2 * place + 2] = letters[data[place] >> 4]
        at[2 * place + 3] = letters[data[place] & 15]
    out.size += 2 * size + 2
    return 1
