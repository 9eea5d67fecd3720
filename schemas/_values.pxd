"""PostgreSQL's text of a value → its Avro form: `schemas/types.py` once more, in C.

A function returns 1 when it has written the value, 0 when the text is none it knows: that is left
to the plain encoder, which knows what it means. So only the usual forms are here, and each is
recognised whole before anything is written.
"""

from libc.math cimport isinf
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from schemas._buffer cimport Buffer, put, put_long, put_raw, put_sized, reserve

cdef extern from "Python.h":
    double PyOS_string_to_double(const char *text, char **end, void *overflow) except? -1.0

cdef enum:
    MAX_DIGITS = 18  # what a long long surely holds
    MAX_FLOAT = 32

ctypedef const unsigned char *Text


cdef inline int put_boolean(Buffer *out, Text text, Py_ssize_t size) except -1:
    return put(out, size == 1 and text[0] == c"t")


cdef inline bint digits(Text text, Py_ssize_t size, long long *value) noexcept:
    """Read `size` digits, at most 18; false when there is anything else."""
    cdef Py_ssize_t at
    cdef long long found = 0
    if not 0 < size <= MAX_DIGITS:
        return False
    for at in range(size):
        if not c"0" <= text[at] <= c"9":
            return False
        found = 10 * found + (text[at] - c"0")
    value[0] = found
    return True


cdef inline int put_integer(Buffer *out, Text text, Py_ssize_t size) except -1:
    cdef long long value
    cdef bint negative = size > 0 and text[0] == c"-"
    if not digits(text + negative, size - negative, &value):
        return 0
    return put_long(out, -value if negative else value)


cdef inline int read_float(Text text, Py_ssize_t size, double *value) except -1:
    cdef char copy[MAX_FLOAT + 1]
    cdef char *end
    cdef Py_ssize_t at
    if not 0 < size <= MAX_FLOAT:
        return 0
    for at in range(size):
        if not (c"0" <= text[at] <= c"9" or text[at] in b"-+.e"):
            return 0
        copy[at] = text[at]
    copy[size] = 0
    if not c"0" <= copy[copy[0] == c"-"] <= c"9":
        return 0
    value[0] = PyOS_string_to_double(copy, &end, NULL)
    return end == copy + size


cdef inline int put_float64(Buffer *out, Text text, Py_ssize_t size) except -1:
    cdef double value
    cdef uint64_t bits
    cdef unsigned char *at
    cdef int place
    if not read_float(text, size, &value):
        return 0
    memcpy(&bits, &value, 8)
    at = reserve(out, 8)
    for place in range(8):
        at[place] = bits >> 8 * place & 0xFF
    out.size += 8
    return 1


cdef inline int put_float32(Buffer *out, Text text, Py_ssize_t size) except -1:
    cdef double value
    cdef float single
    cdef unsigned int bits
    cdef unsigned char *at
    cdef int place
    if not read_float(text, size, &value):
        return 0
    single = <float>value
    if isinf(single):
        return 0
    memcpy(&bits, &single, 4)
    at = reserve(out, 4)
    for place in range(4):
        at[place] = bits >> 8 * place & 0xFF
    out.size += 4
    return 1


cdef inline int put_decimal(Buffer *out, Text text, Py_ssize_t size, int scale) except -1:
    """Write the unscaled number as `int.to_bytes` does: big-endian, signed, one bit to spare."""
    cdef long long value = 0
    cdef unsigned long long rest
    cdef unsigned char *at
    cdef Py_ssize_t place, seen = 0, whole = -1
    cdef bint negative = size > 0 and text[0] == c"-"
    cdef int count = 1
    for place in range(negative, size):
        if text[place] == c"." and whole < 0:
            whole = seen
        elif c"0" <= text[place] <= c"9" and seen < MAX_DIGITS:
            value = 10 * value + (text[place] - c"0")
            seen += 1
        else:
            return 0
    whole = seen if whole < 0 else whole
    if not whole or seen - whole > scale or whole + scale > MAX_DIGITS:
        return 0
    for _ in range(scale - seen + whole):
        value *= 10
    rest = value
    while rest >> 8 * (count - 1) >> 7:
        count += 1
    if negative:
        rest = -rest
    put_long(out, count)
    at = reserve(out, count)
    for place in range(count):
        at[place] = rest >> 8 * (count - 1 - place) & 0xFF
    out.size += count
    return 1


cdef inline bint read_date(Text text, long long *days) noexcept:
    """Read YYYY-MM-DD of the years 1 to 9999 as days since 1970."""
    cdef long long year, month, day, era, length
    if not (
        text[4] == text[7] == c"-"
        and digits(text, 4, &year) and digits(text + 5, 2, &month) and digits(text + 8, 2, &day)
        and year and 1 <= month <= 12 and day
    ):
        return False
    length = 30 + ((month + (month > 7)) & 1)
    if month == 2:
        length = 28 + (year % 4 == 0 and (year % 100 != 0 or year % 400 == 0))
    if day > length:
        return False
    # Years that begin in March put the odd day last; a month is then 30.6 days, rounded.
    year -= month < 3
    era = year // 400
    year -= 400 * era
    day += (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 - 1
    days[0] = era * 146097 + 365 * year + year // 4 - year // 100 + day - 719468
    return True


cdef inline int put_date(Buffer *out, Text text, Py_ssize_t size) except -1:
    cdef long long days
    if size != 10 or not read_date(text, &days):
        return 0
    return put_long(out, days)


cdef inline bint read_time(Text text, Py_ssize_t size, long long *micros) noexcept:
    """Read HH:MM:SS with at most six digits behind a point."""
    cdef long long hour, minute, second, fraction = 0
    if size < 8 or size == 9 or size > 15 or not text[2] == text[5] == c":":
        return False
    if not (digits(text, 2, &hour) and digits(text + 3, 2, &minute)):
        return False
    if not digits(text + 6, 2, &second) or hour > 23 or minute > 59 or second > 59:
        return False
    if size > 9:
        if text[8] != c"." or not digits(text + 9, size - 9, &fraction):
            return False
        for _ in range(15 - size):
            fraction *= 10
    micros[0] = ((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction
    return True


cdef inline int put_time(Buffer *out, Text text, Py_ssize_t size) except -1:
    cdef long long micros
    return put_long(out, micros) if read_time(text, size, &micros) else 0


cdef inline int put_timestamp(Buffer *out, Text text, Py_ssize_t size, bint zone) except -1:
    """Write microseconds since 1970; `zone`: the text ends with +00, as it does under UTC."""
    cdef long long days, micros
    if zone:
        size -= 3
        if size < 19 or text[size] != c"+" or text[size + 1] != c"0" or text[size + 2] != c"0":
            return 0
    if size < 19 or text[10] != c" " or not read_date(text, &days):
        return 0
    if not read_time(text + 11, size - 11, &micros):
        return 0
    return put_long(out, days * 86_400_000_000LL + micros)


cdef inline int nibble(unsigned char digit) noexcept:
    if c"0" <= digit <= c"9":
        return digit - c"0"
    digit |= 0x20
    return digit - c"a" + 10 if c"a" <= digit <= c"f" else -1


cdef inline int put_bytes(Buffer *out, Text text, Py_ssize_t size) except -1:
    """Write "\\x0a1b" as two bytes."""
    cdef unsigned char *at
    cdef Py_ssize_t place, count = size // 2 - 1
    cdef size_t before = out.size
    cdef int high, low
    if size < 2 or size % 2 or text[0] != c"\\" or text[1] != c"x":
        return 0
    put_long(out, count)
    at = reserve(out, count + 1)
    for place in range(count):
        high, low = nibble(text[2 * place + 2]), nibble(text[2 * place + 3])
        if high < 0 or low < 0:
            out.size = before
            return 0
        at[place] = high << 4 | low
    out.size += count
    return 1


cdef inline bint is_ascii(Text text, Py_ssize_t size) noexcept:
    cdef uint64_t eight, seen = 0
    cdef Py_ssize_t at = 0
    while at + 8 <= size:
        memcpy(&eight, text + at, 8)
        seen |= eight
        at += 8
    while at < size:
        seen |= text[at]
        at += 1
    return not seen & 0x8080808080808080ULL


cdef inline bint is_utf8(Text text, Py_ssize_t size) noexcept:
    """Tell whether `bytes.decode` would take it (RFC 3629: no surrogates, nothing overlong)."""
    cdef Py_ssize_t at = 0, more
    cdef unsigned char first
    cdef unsigned int point
    while at < size:
        first = text[at]
        at += 1
        if first < 0x80:
            continue
        if not 0xC2 <= first <= 0xF4:
            return False
        more = 1 + (first >= 0xE0) + (first >= 0xF0)
        if size - at < more:
            return False
        point = first & (0x3F >> more)
        for at in range(at, at + more):
            if text[at] & 0xC0 != 0x80:
                return False
            point = point << 6 | text[at] & 0x3F
        at += 1
        if more == 2 and (point < 0x800 or 0xD800 <= point <= 0xDFFF):
            return False
        if more == 3 and not 0x10000 <= point <= 0x10FFFF:
            return False
    return True


cdef inline int put_text(Buffer *out, Text text, Py_ssize_t size) except -1:
    if not is_ascii(text, size) and not is_utf8(text, size):
        return 0
    return put_sized(out, text, size)
