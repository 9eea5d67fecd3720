"""The compiled reader of row images: a rows event of the binary log → tuples (`schemas/forms.py`).

    bitmap of NULLs │ value │ value │ …  ─▶  I N width │ t size text │ n │ t size text │ …

`cdc/mariadb/images.py` is the reference and `cdc/decode/mysqlvalues.py` says how each value stands
in an image. A value that the C code does not know, or finds odd, is read by the column's plain
function, so every error and every rare form is the plain one's. Nothing is read behind the end.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free

from schemas._buffer cimport Buffer, put, put_raw, reserve
from schemas._texts cimport digits_of, put_clock, put_day, put_hex, put_integer

__all__ = ["ImageReader"]

cdef enum Kind:
    PLAIN, SIGNED, UNSIGNED, DECIMAL, DATE, TIME, DATETIME, TIMESTAMP, TEXT, BYTES

KINDS = {
    "signed": SIGNED, "unsigned": UNSIGNED, "decimal": DECIMAL, "date": DATE, "time": TIME,
    "datetime": DATETIME, "timestamp": TIMESTAMP, "text": TEXT, "bytes": BYTES,
}

cdef struct Field:
    Kind kind
    int size   # bytes of a number or of a length, digits of a decimal or of a second's fraction
    int scale  # digits behind a decimal's point

cdef enum:
    MICROS = 1_000_000
    MAX_DIGITS = 18  # of a decimal: what an int64 surely holds
    LETTERS = 5  # kind and size before each text


cdef int *DIGIT_BYTES = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4]
cdef int *FRACTION = [1, 10_000, 100, 1]  # microseconds that the last of so many bytes counts


cdef inline uint64_t little(const unsigned char *data, int size) noexcept:
    cdef uint64_t value = 0
    cdef int place
    for place in range(size):
        value |= <uint64_t>data[place] << 8 * place
    return value


cdef inline uint64_t big(const unsigned char *data, int size) noexcept:
    cdef uint64_t value = 0
    cdef int place
    for place in range(size):
        value = value << 8 | data[place]
    return value


cdef inline int fixed_size(const Field *field) noexcept:
    """Return how many bytes a value has, or its length where that differs."""
    cdef int whole = field.size - field.scale
    cdef int extra = (field.size + 1) // 2
    if field.kind == DECIMAL:
        return (
            4 * (whole // 9) + DIGIT_BYTES[whole % 9]
            + 4 * (field.scale // 9) + DIGIT_BYTES[field.scale % 9]
        )
    if field.kind == DATE:
        return 3
    if field.kind == TIME:
        return 3 + extra
    if field.kind == DATETIME:
        return 5 + extra
    return 4 + extra if field.kind == TIMESTAMP else field.size


cdef inline int put_whole(Buffer *out, const Field *field, const unsigned char *data) except -1:
    cdef uint64_t value = little(data, field.size)
    cdef uint64_t sign = <uint64_t>1 << 8 * field.size - 1
    if field.kind == UNSIGNED:
        if value >> 63:
            return 0
        put_integer(out, <int64_t>value, 0)
        return 1
    put_integer(out, <int64_t>((value ^ sign) - sign), 0)
    return 1


cdef inline int put_decimal(Buffer *out, const Field *field, const unsigned char *data) except -1:
    """Groups of nine digits in four bytes, big-endian; all inverted below zero but the sign."""
    cdef int64_t value = 0
    cdef uint64_t group, limit
    cdef int whole = field.size - field.scale
    cdef int left = whole, digits, count, place
    cdef bint negative = data[0] < 0x80
    cdef bint first = True
    if field.size > MAX_DIGITS:
        return 0
    for place in range(2):
        while left:
            digits = left % 9 if place == 0 and left % 9 else min(left, 9)
            count = DIGIT_BYTES[digits]
            group = big(data, count)
            if negative:
                group = ~group
            if first:
                group ^= <uint64_t>0x80 << 8 * (count - 1)
            first = False
            group &= (<uint64_t>1 << 8 * count) - 1
            limit = 1
            for _ in range(digits):
                limit *= 10
            if group >= limit:
                return 0
            value = value * <int64_t>limit + <int64_t>group
            data += count
            left -= digits
        left = field.scale
    if negative and not value:
        return 0
    put_integer(out, -value if negative else value, field.scale)
    return 1


cdef inline int64_t fraction(const unsigned char *data, int digits) noexcept:
    cdef int extra = (digits + 1) // 2
    return <int64_t>big(data, extra) * FRACTION[extra] if extra else 0


cdef inline int put_calendar(Buffer *out, int64_t year, int64_t month, int64_t day) except -1:
    """Write a date as it stands in the log, zero and partial ones too."""
    cdef char *at = <char *>reserve(out, 10)
    if year > 9999:
        return 0
    at = digits_of(at, year, 4)
    at[0] = c"-"
    at = digits_of(at + 1, month, 2)
    at[0] = c"-"
    digits_of(at + 1, day, 2)
    out.size += 10
    return 1


cdef inline int put_time(Buffer *out, int64_t seconds, int64_t micros) except -1:
    """Write a space and a time of a day."""
    cdef char *start = <char *>reserve(out, 20)
    start[0] = c" "
    out.size += put_clock(start + 1, seconds * MICROS + micros) - start
    return 1


cdef inline int put_datetime(Buffer *out, const Field *field, const unsigned char *data) except -1:
    """40 bits: sign, year * 13 + month (17), day (5), hour (5), minute (6), second (6)."""
    cdef int64_t value = <int64_t>big(data, 5)
    cdef int64_t months = value >> 22 & 0x1FFFF
    cdef int64_t hour = value >> 12 & 31, minute = value >> 6 & 63, second = value & 63
    cdef int64_t micros = fraction(data + 5, field.size)
    if hour > 23 or minute > 59 or second > 59 or micros >= MICROS:
        return 0
    if not put_calendar(out, months // 13, months % 13, value >> 17 & 31):
        return 0
    return put_time(out, hour * 3600 + minute * 60 + second, micros)


cdef inline int put_timestamp(
    Buffer *out, const Field *field, const unsigned char *data
) except -1:
    """Seconds since 1970 UTC; none and no fraction is the zero timestamp, the plain reader's."""
    cdef int64_t value = <int64_t>big(data, 4)
    cdef int64_t micros = fraction(data + 4, field.size)
    cdef char *start
    if not value and not micros or micros >= MICROS:
        return 0
    start = <char *>reserve(out, 16)
    out.size += put_day(start, value // 86_400) - start
    put_time(out, value % 86_400, micros)
    return put_raw(out, b"+00", 3)


cdef inline int put_duration(Buffer *out, const Field *field, const unsigned char *data) except -1:
    """24 bits above their middle, and the fraction below it; hours outside a day are plain's."""
    cdef int extra = (field.size + 1) // 2
    cdef int64_t value = <int64_t>big(data, 3 + extra) - (<int64_t>1 << 8 * (3 + extra) - 1)
    cdef int64_t clock, hour, minute, second, micros
    cdef char *start
    if value < 0:
        return 0
    clock = value >> 8 * extra
    micros = (value & ((<int64_t>1 << 8 * extra) - 1)) * FRACTION[extra]
    hour, minute, second = clock >> 12 & 1023, clock >> 6 & 63, clock & 63
    if hour > 23 or minute > 59 or second > 59 or micros >= MICROS:
        return 0
    start = <char *>reserve(out, 20)
    out.size += put_clock(start, (hour * 3600 + minute * 60 + second) * MICROS + micros) - start
    return 1


cdef inline int put_fixed(Buffer *out, const Field *field, const unsigned char *data) except -1:
    """Write the text of a value of a fixed size; 0, and perhaps a part of it, when it is odd."""
    if field.kind == SIGNED or field.kind == UNSIGNED:
        return put_whole(out, field, data)
    if field.kind == DECIMAL:
        return put_decimal(out, field, data)
    if field.kind == DATETIME:
        return put_datetime(out, field, data)
    if field.kind == TIMESTAMP:
        return put_timestamp(out, field, data)
    if field.kind == TIME:
        return put_duration(out, field, data)
    cdef int64_t value = <int64_t>little(data, 3)
    return put_calendar(out, value >> 9, value >> 5 & 15, value & 31)


cdef class ImageReader:
    """Reads the images of one version of a table; `cdc.mariadb.images` makes it.

    `columns` has (kind, size, scale) of each column, a kind of `KINDS` or "" for what `readers`
    alone know: functions (data, offset) → (text, offset behind it).
    """

    cdef Field *fields
    cdef readonly int width
    cdef tuple readers
    cdef Buffer out

    def __cinit__(self, tuple columns, tuple readers):
        self.width = len(columns)
        self.readers = readers
        self.fields = <Field *>PyMem_Calloc(self.width + 1, sizeof(Field))
        if self.fields is NULL:
            raise MemoryError
        for place, (kind, size, scale) in enumerate(columns):
            self.fields[place] = Field(KINDS.get(kind, PLAIN), size, scale)

    def __dealloc__(self):
        PyMem_Free(self.fields)
        free(self.out.data)

    def packed(self, bytes kind, bytes data):
        """Return the rows of a whole event of `kind` b"I", b"U" or b"D", in order.

        Raises `IndexError` when they end behind `data`, and what the readers raise.
        """
        cdef Py_ssize_t at = 0, size = PyBytes_GET_SIZE(data)
        cdef unsigned char letter = PyBytes_AS_STRING(kind)[0]
        cdef list rows = []
        try:
            while at < size:
                self.out.size = 0
                put(&self.out, letter)
                at = self._image(data, at, c"N" if letter == c"I" else c"O")
                if letter == c"U":
                    at = self._image(data, at, c"N")
                rows.append(
                    PyBytes_FromStringAndSize(<const char *>self.out.data, self.out.size)
                )
        finally:
            free(self.out.data)
            self.out = Buffer(NULL, 0, 0)
        return rows

    cdef Py_ssize_t _image(self, bytes data, Py_ssize_t at, unsigned char letter) except -1:
        """Write the tuple of one image and return the offset behind it."""
        cdef const unsigned char *start = <const unsigned char *>PyBytes_AS_STRING(data)
        cdef const unsigned char *nulls = start + at
        cdef int place
        cdef size_t head
        at += (self.width + 7) // 8
        if at > PyBytes_GET_SIZE(data):
            raise IndexError
        put(&self.out, letter)
        put(&self.out, self.width >> 8)
        put(&self.out, self.width & 0xFF)
        for place in range(self.width):
            if nulls[place >> 3] >> (place & 7) & 1:
                put(&self.out, c"n")
                continue
            reserve(&self.out, LETTERS)
            head = self.out.size
            self.out.size += LETTERS
            at = self._value(data, at, place)
            self._size(head)
        return at

    cdef int _size(self, size_t head) except -1:
        """Put kind and size before the text that was written behind `head`."""
        cdef size_t size = self.out.size - head - LETTERS
        cdef unsigned char *at = self.out.data + head
        cdef int place
        at[0] = c"t"
        for place in range(4):
            at[1 + place] = size >> 8 * (3 - place) & 0xFF
        return 1

    cdef Py_ssize_t _value(self, bytes data, Py_ssize_t at, int place) except -1:
        """Write the text of one value and return the offset behind it."""
        cdef const Field *field = &self.fields[place]
        cdef const unsigned char *start = <const unsigned char *>PyBytes_AS_STRING(data)
        cdef Py_ssize_t left = PyBytes_GET_SIZE(data) - at
        cdef size_t before = self.out.size
        cdef Py_ssize_t size
        cdef bytes text
        if field.kind == TEXT or field.kind == BYTES:
            if field.size > left:
                raise IndexError
            size = <Py_ssize_t>little(start + at, field.size)
            at += field.size
            if size > left - field.size:
                raise IndexError
            if field.kind == TEXT:
                put_raw(&self.out, start + at, size)
            else:
                put_hex(&self.out, start + at, size)
            return at + size
        if field.kind != PLAIN:
            size = fixed_size(field)
            if size > left:
                raise IndexError
            if put_fixed(&self.out, field, start + at):
                return at + size
            self.out.size = before
        text, at = self.readers[place](data, at)
        if at > PyBytes_GET_SIZE(data):
            raise IndexError
        put_raw(
            &self.out, <const unsigned char *>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)
        )
        return at
