"""The compiled reader of a sink: the bytes of an Avro envelope → its key and its row as COPY text.

    before │ after │ source: names snapshot ts_ms txId stamp │ op ts_ms transaction absent exact
    skipped  places                                           declined unless they are empty
             └─▶ key cells, and one line in the order of the target's columns

`LineReader.read` either gives exactly what the plain decoder would, or hands the record to it:
whatever is torn, absent, exact, foreign or rare is read there, so there is one judge of poison.
Every byte is read through `Input`, whose `end` nothing passes; text goes to a `Buffer`, which
grows before it is written to.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from schemas._buffer cimport Buffer, put, put_raw, reserve
from schemas._texts cimport put_integer
from sinks._avro cimport (
    BOOLEAN, BYTES, DATE, DECIMAL, FLOAT32, FLOAT64, INTEGER, TEXT, TIME, TIMESTAMP, TIMESTAMPTZ,
    Cell, Input, read_branch, read_cell, read_long, read_op, read_source, read_text,
)
from sinks._texts cimport (
    put_decimal, put_float, put_float32, put_hex, put_moment, put_object, put_text,
)

from schemas.change import Stamp
from sinks.decode import DELETE, UPSERT, Event

cdef extern from "Python.h":
    # Tuples of text and numbers cannot be in a cycle; a hundred thousand of them are walked by
    # every collection (a quarter of the time this module takes, measured).
    void PyObject_GC_UnTrack(void *thing)

KINDS = {
    "boolean": BOOLEAN, "int16": INTEGER, "int32": INTEGER, "int64": INTEGER,
    "float32": FLOAT32, "float64": FLOAT64, "decimal": DECIMAL, "date": DATE, "time": TIME,
    "timestamp": TIMESTAMP, "timestamptz": TIMESTAMPTZ, "bytes": BYTES, "uuid": TEXT,
    "string": TEXT, "json": TEXT, "enum": TEXT, "text": TEXT,
}

cdef object new_tuple = tuple.__new__

cdef struct Column:
    int kind
    bint optional
    int scale


cdef class LineReader:
    """Reads the records of one schema id for one mapping.

    `columns` are (kind, may be null, scale, way to text) of the topic's row in its order;
    `targets` are places among them, or the finished text of a constant; `key` are places;
    `key_names` are the key columns' names at the source. `plain` reads what this one declines.
    """

    cdef Column *columns
    cdef Cell *cells
    cdef Cell *old
    cdef Py_ssize_t width
    cdef tuple targets
    cdef tuple decoders
    cdef tuple key
    cdef tuple key_names
    cdef object schema
    cdef object plain
    cdef Buffer out
    cdef int64_t commit
    cdef object commit_object
    cdef int64_t ts_ms
    cdef object ts_object

    def __cinit__(self, object schema, tuple columns, tuple targets, tuple key, object plain):
        cdef Py_ssize_t place
        self.width = len(columns)
        self.columns = <Column *>calloc(self.width + 1, sizeof(Column))
        self.cells = <Cell *>calloc(self.width + 1, sizeof(Cell))
        self.old = <Cell *>calloc(self.width + 1, sizeof(Cell))
        if self.columns == NULL or self.cells == NULL or self.old == NULL:
            raise MemoryError
        for place, (name, logical, optional, scale, decode) in enumerate(columns):
            self.columns[place].kind = KINDS[logical]
            self.columns[place].optional = optional
            self.columns[place].scale = scale
        self.decoders = tuple([column[4] for column in columns])
        for target in targets:
            if not isinstance(target, bytes) and not 0 <= target < self.width:
                raise IndexError(target)
        if not all([0 <= place < self.width for place in key]):
            raise IndexError(key)
        self.targets, self.key = targets, key
        reserve(&self.out, 1024)
        self.key_names = tuple([columns[place][0] for place in key])
        self.schema, self.plain = schema, plain
        self.commit, self.commit_object = 0, 0
        self.ts_ms, self.ts_object = 0, 0

    def __dealloc__(self):
        free(self.columns)
        free(self.cells)
        free(self.old)
        free(self.out.data)

    def read(self, object message, bytes value not None):
        """Return the event of a record: `value` is its payload with the frame."""
        event = self.fast(message, value)
        return self.plain(message, value) if event is None else event

    cdef object fast(self, object message, bytes value):
        """Return the event, None when the plain reader must look."""
        cdef Input data
        cdef bint before, after, snapshot
        cdef int64_t ts_ms
        cdef int64_t stamp[4]
        cdef char op = 0
        if PyBytes_GET_SIZE(value) < 5:
            return None
        data.at = <const uint8_t *>PyBytes_AS_STRING(value) + 5
        data.end = <const uint8_t *>PyBytes_AS_STRING(value) + PyBytes_GET_SIZE(value)
        if not self.read_row(&data, self.old, &before):
            return None
        if not self.read_row(&data, self.cells, &after):
            return None
        if not read_source(&data, &snapshot, &ts_ms, stamp):
            return None
        if not (read_op(&data, &op) and self.read_rest(&data, op)):
            return None
        cdef bint deletes = op == c"d"
        if not (before if deletes else after):
            return None
        key = self.make_key(self.old if deletes else self.cells)
        line = None if deletes or key is None else self.make_line()
        if key is None or (line is None and not deletes):
            return None
        if ts_ms != self.ts_ms:
            self.ts_ms, self.ts_object = ts_ms, ts_ms
        return Event(
            DELETE if deletes else UPSERT, self.schema, self.make_stamp(stamp), snapshot, message,
            PyBytes_GET_SIZE(value), self.ts_object, key, None, None, None, line, (), None,
            op == c"c" or op == c"r",
        )

    cdef object make_stamp(self, int64_t *stamp):
        if stamp[1] != self.commit:
            self.commit, self.commit_object = stamp[1], stamp[1]
        made = new_tuple(Stamp, (stamp[0], self.commit_object, stamp[2], stamp[3]))
        PyObject_GC_UnTrack(<void *>made)
        return made

    cdef bint read_row(self, Input *data, Cell *cells, bint *some) except -1:
        """Find the cells of an optional row."""
        cdef Py_ssize_t place
        cdef bint given
        if not read_branch(data, some):
            return False
        if not some[0]:
            return True
        for place in range(self.width):
            if self.columns[place].optional:
                if not read_branch(data, &given):
                    return False
                if not given:
                    cells[place].at = NULL
                    continue
            if not read_cell(data, self.columns[place].kind, &cells[place]):
                return False
        return True

    cdef bint read_rest(self, Input *data, char op) except -1:
        """Read what stands behind `op`; decline all that needs a closer look."""
        cdef int64_t ts_ms
        cdef int64_t orders
        cdef Cell text
        cdef bint some
        cdef int part
        if not (read_long(data, &ts_ms) and read_branch(data, &some)):
            return False
        if some and not (
            read_text(data, &text) and read_long(data, &orders) and read_long(data, &orders)
        ):
            return False
        for part in range(4):
            if not read_branch(data, &some):
                return False
            if some and (part or op != c"d" or not self.read_absent(data)):
                return False
        return True

    cdef bint read_absent(self, Input *data) except -1:
        """Read the names of the columns a delete does not carry; decline one of the key."""
        cdef int64_t count
        cdef Cell name
        cdef bytes wanted
        while True:
            if not read_long(data, &count) or count < 0:
                return False
            if not count:
                return True
            for _ in range(count):
                if not read_text(data, &name):
                    return False
                for wanted in self.key_names:
                    if len(wanted) == name.number and not memcmp(
                        PyBytes_AS_STRING(wanted), name.at, name.number
                    ):
                        return False

    cdef object make_key(self, Cell *cells):
        """Return the cells of the key as text, None when one is null or has no such form."""
        cdef list found = []
        cdef Py_ssize_t place
        for place in self.key:
            self.out.size = 0
            if cells[place].at == NULL or not self.write(place, &cells[place], False):
                return None
            found.append(PyBytes_FromStringAndSize(<char *>self.out.data, self.out.size))
        key = tuple(found)
        PyObject_GC_UnTrack(<void *>key)
        return key

    cdef object make_line(self):
        """Return the row as COPY text without the newline, None when a value has no such form."""
        cdef Py_ssize_t place
        cdef bint first = True
        self.out.size = 0
        for target in self.targets:
            if not first:
                put(&self.out, c"\t")
            first = False
            if isinstance(target, bytes):
                put_object(&self.out, target)
                continue
            place = target
            if self.cells[place].at == NULL:
                put_raw(&self.out, <const unsigned char *>b"\\N", 2)
            elif not self.write(place, &self.cells[place], True):
                return None
        return PyBytes_FromStringAndSize(<char *>self.out.data, self.out.size)

    cdef bint write(self, Py_ssize_t place, Cell *cell, bint escaped) except -1:
        """Write the text of one value; decline one the plain reader refuses."""
        cdef int kind = self.columns[place].kind
        cdef Buffer *out = &self.out
        if kind == TEXT:
            if escaped:
                put_text(out, cell)
            else:
                put_raw(out, cell.at, cell.number)
        elif kind == INTEGER:
            put_integer(out, cell.number, 0)
        elif kind == BOOLEAN:
            put(out, c"t" if cell.at[0] else c"f")
        elif kind == DECIMAL:
            put_decimal(out, cell, self.columns[place].scale, self.decoders[place])
        elif kind == FLOAT64:
            put_float(out, cell, self.decoders[place])
        elif kind == FLOAT32:
            put_float32(out, cell, self.decoders[place])
        elif kind == BYTES:
            put_hex(out, cell, escaped)
        else:
            return put_moment(out, kind, cell.number)
        return True
