"""The compiled executor of a plan: rows as a source read them → Kafka messages, in C.

`schemas/plan.py` says what is written and is the reference; it builds a `Writer` once per version
of a table. A value or a row that the C code does not know is handed back to the plain executor,
so that every error, and every rare form, is the plain one's.

    item ─ _pgoutput.pxd, _copy.pxd ─▶ cells ─ _values.pxd ─▶ Avro ─ here ─▶ key and envelope
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdlib cimport free
from libc.string cimport memcmp

from schemas._buffer cimport Buffer, put, put_long, put_raw, put_sized, reserve
from schemas._cells cimport ABSENT_CELL, Cell
from schemas._copy cimport read_line
from schemas._pgoutput cimport Message, fill, read_last, read_tuple
from schemas._values cimport (
    put_boolean, put_bytes, put_date, put_decimal, put_float32, put_float64, put_integer, put_text,
    put_time, put_timestamp,
)

from schemas.types import avro_text

__all__ = ["Writer"]

cdef enum Kind:
    PLAIN, RAW, BOOLEAN, INTEGER, FLOAT32, FLOAT64, DECIMAL, DATE, TIME, TIMESTAMP, TIMESTAMPTZ
    BYTES, TEXT

KINDS = {
    "raw": RAW, "boolean": BOOLEAN, "int16": INTEGER, "int32": INTEGER, "int64": INTEGER,
    "float32": FLOAT32, "float64": FLOAT64, "decimal": DECIMAL, "date": DATE, "time": TIME,
    "timestamp": TIMESTAMP, "timestamptz": TIMESTAMPTZ, "bytes": BYTES, "uuid": TEXT,
    "string": TEXT, "json": TEXT, "enum": TEXT, "text": TEXT,
}

cdef struct Field:
    int place
    Kind kind
    int scale
    bint optional

cdef enum:
    KEPT = 1 << 20  # bytes of scratch that outlive a run


cdef inline int put_native(Buffer *out, const Field *field, const Cell *cell) except -1:
    """Write a value; 0 when it is left to the plain encoder."""
    if field.kind == TEXT:
        return put_text(out, cell.data, cell.size)
    if field.kind == INTEGER:
        return put_integer(out, cell.data, cell.size)
    if field.kind == DECIMAL:
        return put_decimal(out, cell.data, cell.size, field.scale)
    if field.kind == TIMESTAMPTZ or field.kind == TIMESTAMP:
        return put_timestamp(out, cell.data, cell.size, field.kind == TIMESTAMPTZ)
    if field.kind == BOOLEAN:
        return put_boolean(out, cell.data, cell.size)
    if field.kind == FLOAT64:
        return put_float64(out, cell.data, cell.size)
    if field.kind == FLOAT32:
        return put_float32(out, cell.data, cell.size)
    if field.kind == DATE:
        return put_date(out, cell.data, cell.size)
    if field.kind == TIME:
        return put_time(out, cell.data, cell.size)
    if field.kind == BYTES:
        return put_bytes(out, cell.data, cell.size)
    if field.kind == RAW:
        return put_sized(out, cell.data, cell.size)
    return 0


cdef int put_encoded(Buffer *out, encode, const Cell *cell) except -1:
    """Let the plain encoder write a value; 0 when the type cannot hold it."""
    cdef bytes encoded = encode(PyBytes_FromStringAndSize(<const char *>cell.data, cell.size))
    return 0 if encoded is None else put_block(out, encoded)


cdef class _Fields:
    """Columns to write, in order; `encoders` and `names` are looked at only where C gives up."""

    cdef Field *fields
    cdef int count
    cdef list encoders
    cdef list names

    def __cinit__(self, list columns):
        self.count = len(columns)
        self.fields = <Field *>PyMem_Calloc(self.count + 1, sizeof(Field))
        if self.fields is NULL:
            raise MemoryError
        self.encoders = [column.encode for column in columns]
        self.names = [avro_text(column.name.encode()) for column in columns]
        for place, column in enumerate(columns):
            self.fields[place] = Field(
                column.place, KINDS.get(column.native, PLAIN), column.scale, column.optional
            )

    def __dealloc__(self):
        PyMem_Free(self.fields)


cdef inline bytes taken(const Buffer *buffer):
    return PyBytes_FromStringAndSize(<const char *>buffer.data, buffer.size)


cdef inline int put_block(Buffer *out, bytes block) except -1:
    return put_raw(out, <const unsigned char *>PyBytes_AS_STRING(block), PyBytes_GET_SIZE(block))


cdef inline void slim(Buffer *buffer) noexcept:
    """Let go of the room that a large row needed."""
    buffer.size = 0
    if buffer.room > KEPT:
        free(buffer.data)
        buffer.data = NULL
        buffer.room = 0


cdef class Writer:
    """Writes the messages of one version of a table; `schemas.plan.Plan` makes it.

    `row` and `key` are the published columns and those of the key, each with `place`, `name`,
    `native`, `scale`, `optional`, `encode`; `frames` are those of key and value; `absent_but_key`
    is the list of absent columns of a row that has its key alone.
    """

    cdef _Fields row, key
    cdef int width
    cdef bytes key_frame, frame, absent_but_key, source, now
    cdef Cell *before
    cdef Cell *after
    cdef int *exact
    cdef Buffer value, old, new, absents, exacts, scratch
    cdef long long ordinal
    cdef Py_ssize_t bytes_written
    cdef list out

    def __cinit__(self, int width, list row, list key, tuple frames, bytes absent_but_key):
        self.width = width
        self.row, self.key = _Fields(row), _Fields(key)
        self.key_frame, self.frame = frames
        self.absent_but_key = absent_but_key
        self.before = <Cell *>PyMem_Calloc(2 * width + 1, sizeof(Cell))
        self.exact = <int *>PyMem_Calloc(self.row.count + 1, sizeof(int))
        if self.before is NULL or self.exact is NULL:
            raise MemoryError
        self.after = self.before + width

    def __dealloc__(self):
        PyMem_Free(self.before)
        PyMem_Free(self.exact)
        free(self.value.data)
        free(self.old.data)
        free(self.new.data)
        free(self.absents.data)
        free(self.exacts.data)
        free(self.scratch.data)

    def pgoutput(self, list items, ordinals, tuple blocks, list out, plain):
        """Append the messages of a run to `out` and return the bytes of their values.

        `blocks` are the source block up to the ordinal, and `ts_ms` with what follows it;
        `plain(item, ordinal)` gives the records of a row that is left to the plain executor.
        """
        self._begin(blocks, out)
        for item, ordinal in zip(items, ordinals, strict=True):
            self.ordinal = ordinal
            if type(item) is not bytes or not self._message(item):
                self._plain(plain(item, ordinal))
        return self._end()

    def copy(self, list items, ordinals, tuple blocks, list out, plain):
        """See `pgoutput`."""
        self._begin(blocks, out)
        for item, ordinal in zip(items, ordinals, strict=True):
            self.ordinal = ordinal
            if type(item) is not bytes or not self._line(item):
                self._plain(plain(item, ordinal))
        return self._end()

    cdef int _begin(self, tuple blocks, list out) except -1:
        self.source, self.now = blocks
        self.out = out
        self.bytes_written = 0
        return 1

    cdef Py_ssize_t _end(self) except -1:
        self.out = None
        slim(&self.value)
        slim(&self.old)
        slim(&self.new)
        slim(&self.absents)
        slim(&self.exacts)
        slim(&self.scratch)
        return self.bytes_written

    cdef int _plain(self, records) except -1:
        for key, value in records:
            self._append(key, value)
        return 1

    cdef int _append(self, bytes key, bytes value) except -1:
        self.out.append({"key": key, "value": value})
        if value is not None:
            self.bytes_written += PyBytes_GET_SIZE(value)
        return 1

    cdef int _line(self, bytes item) except -1:
        cdef const unsigned char *data = <const unsigned char *>PyBytes_AS_STRING(item)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(item)
        cdef unsigned char *room = reserve(&self.scratch, size + 1)
        if not read_line(data, size, self.width, self.after, room):
            return 0
        return self._change(c"r", NULL, self.after, False)

    cdef int _message(self, bytes item) except -1:
        cdef const unsigned char *data = <const unsigned char *>PyBytes_AS_STRING(item)
        cdef Message message = Message(data, PyBytes_GET_SIZE(item), 1)
        if message.size < 2:
            return 0
        if data[0] == c"I" or (data[0] == c"U" and data[1] == c"N"):
            if not read_last(&message, self.width, self.after):
                return 0
            return self._change(c"c" if data[0] == c"I" else c"u", NULL, self.after, False)
        if (data[0] != c"U" and data[0] != c"D") or (data[1] != c"K" and data[1] != c"O"):
            return 0
        message.at = 2
        if not read_tuple(&message, self.width, self.before):
            return 0
        if data[0] == c"D":
            if message.at != message.size:
                return 0
            return self._change(c"d", self.before, NULL, data[1] == c"K")
        if not read_last(&message, self.width, self.after):
            return 0
        if data[1] == c"O":
            fill(self.width, self.after, self.before)
        return self._change(c"u", self.before, self.after, data[1] == c"K")

    cdef int _change(
        self, unsigned char op, const Cell *before, const Cell *after, bint only_key
    ) except -1:
        """Append the messages of one row; 0, and nothing, when it is the plain executor's."""
        cdef bint keyed = self.key.count > 0
        cdef bytes key = None
        cdef bytes value
        if keyed:
            if before is not NULL and not self._key(&self.old, before):
                return 0
            if after is not NULL and not self._key(&self.new, after):
                return 0
            if op == c"u" and before is not NULL and not self._same_key():
                return self._moved(before, after, only_key)
            key = taken(&self.old if after is NULL else &self.new)
        if op == c"u" and only_key:
            before = NULL
        value = self._envelope(op, before, after, only_key)
        if value is None:
            return 0
        self._append(key, value)
        if op == c"d" and keyed:
            self._append(key, None)
        return 1

    cdef bint _same_key(self) noexcept:
        return (
            self.old.size == self.new.size
            and not memcmp(self.old.data, self.new.data, self.old.size)
        )

    cdef int _moved(self, const Cell *before, const Cell *after, bint only_key) except -1:
        """Append the delete of the old key, its tombstone and the create of the new one (R8)."""
        cdef bytes gone = self._envelope(c"d", before, NULL, only_key)
        cdef bytes made = self._envelope(c"c", NULL, after, False, 2)
        cdef bytes old
        if gone is None or made is None:
            return 0
        old = taken(&self.old)
        self._append(old, gone)
        self._append(old, None)
        return self._append(taken(&self.new), made)

    cdef int _key(self, Buffer *out, const Cell *cells) except -1:
        """Write a framed key; 0 when a part of it has no value."""
        cdef const Cell *cell
        cdef int place
        out.size = 0
        put_block(out, self.key_frame)
        for place in range(self.key.count):
            cell = &cells[self.key.fields[place].place]
            if cell.size < 0:
                return 0
            if not put_native(out, &self.key.fields[place], cell):
                if not put_encoded(out, self.key.encoders[place], cell):
                    return 0
        return 1

    cdef bytes _envelope(
        self, unsigned char op, const Cell *before, const Cell *after, bint only_key, int sub=0
    ):
        """Return a framed envelope, None when the row is the plain executor's."""
        cdef Buffer *out = &self.value
        out.size = self.absents.size = self.exacts.size = 0
        put_block(out, self.frame)
        if not self._row(before, only_key) or not self._row(after, False):
            return None
        put_block(out, self.source)
        put_long(out, self.ordinal)
        put_long(out, sub)
        put_sized(out, &op, 1)
        put_block(out, self.now)
        put_raw(out, self.absents.data, self.absents.size)
        put_raw(out, self.exacts.data, self.exacts.size)
        return taken(out)

    cdef int _row(self, const Cell *cells, bint only_key) except -1:
        """Write an optional row, its list of absent columns and its exact texts."""
        cdef Buffer *out = &self.value
        cdef const Field *field
        cdef const Cell *cell
        cdef int place, absent = 0, exact = 0
        if cells is NULL:
            put(&self.absents, 0)
            put(&self.exacts, 0)
            return put(out, 0)
        put(out, 2)
        for place in range(self.row.count):
            field = &self.row.fields[place]
            cell = &cells[field.place]
            if cell.size < 0:
                absent += cell.size == ABSENT_CELL
                put(out, 0)
                continue
            if field.optional:
                put(out, 2)
            if put_native(out, field, cell):
                continue
            if not put_encoded(out, self.row.encoders[place], cell):
                out.size -= field.optional
                put(out, 0)
                self.exact[exact] = place
                exact += 1
        if only_key and absent:
            return 0
        if only_key:
            put_block(&self.absents, self.absent_but_key)
        else:
            self._absent(cells, absent)
        return self._exact(cells, exact)

    cdef int _absent(self, const Cell *cells, int count) except -1:
        cdef int place
        if not count:
            return put(&self.absents, 0)
        put(&self.absents, 2)
        put_long(&self.absents, count)
        for place in range(self.row.count):
            if cells[self.row.fields[place].place].size == ABSENT_CELL:
                put_block(&self.absents, self.row.names[place])
        return put(&self.absents, 0)

    cdef int _exact(self, const Cell *cells, int count) except -1:
        cdef const Cell *cell
        cdef int at
        if not count:
            return put(&self.exacts, 0)
        put(&self.exacts, 2)
        put_long(&self.exacts, count)
        for at in range(count):
            cell = &cells[self.row.fields[self.exact[at]].place]
            put_block(&self.exacts, self.row.names[self.exact[at]])
            put_sized(&self.exacts, cell.data, cell.size)
        return put(&self.exacts, 0)
