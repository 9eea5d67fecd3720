"""Files as a target: every change appended, in Parquet, JSON lines or CSV; effectively once.

    rows of a cut ─▶ by partition, table, folder ─▶ encoded ─▶ a file each, named by its offsets
                                                                 │
    the cursor of a partition = the end of the last whole range ◀┘ read from the names

Why a change is in the files once: a file has its name, with the offsets it covers, only when it is
whole, and the next range begins where the names end (`sinks/files/names.py`). There is no
transaction over several files: each partition goes on by itself.

The names are read again where a note beside the files says that another worker, or an operator,
wrote them last. Two that look at it in the same moment may both write: a store has no lock.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Secret

from cdc.connector import Context, Finding
from cdc.errors import CdcError, ConfigError, DataError, StateError, TargetUnavailable
from cdc.failpoints import failpoint
from schemas.change import Cell
from schemas.table import TableSchema
from sinks.changes import one_by_one
from sinks.files.folders import By, Folders
from sinks.files.formats import FORMATS, Kind
from sinks.files.names import MARK, Chain, Name, chains, late_name
from sinks.files.store import WRITER, Store
from sinks.journal import KEY
from sinks.options import BUFFER_BYTES, BufferBytes, Topics
from sinks.refusals import rehearsed
from sinks.stored import VERSION, cursor_of, displaced
from sinks.target import Barrier, Cursor, Span, Step, TopicPartition

__all__ = ["Config", "FilesTarget", "check", "create"]

_NO_STAMP = (None, None, None, None)
_LONGEST = 100
"""Characters of a topic's name: a file's may have 255, and 130 are told beside it."""
_MANY, _LARGE = 5_000, 4 * 1024 * 1024
"""Rows and bytes of a batch behind which there may be more: the sink is not up to date."""
_Place = tuple[str, int]
_Content = tuple[str, bytes]
"""A folder, and the content of a file for it."""


class Config(BaseModel):
    """A sink into files."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["files"] = Field(default="files", description="The connector's name")
    path: str = Field(description="A folder, or a URL fsspec knows, as `s3://bucket/folder`")
    storage: Secret[dict[str, Any]] = Field(
        default=Secret[dict[str, Any]]({}),
        description="What fsspec is told of the store, as `key: …` for S3",
    )
    format: Kind = Field(default="parquet", description="What the files are")
    by_time: By | None = Field(
        default=None, description="A folder for each such time of the source's commits"
    )
    by: str | None = Field(default=None, description="A folder for each value of this column")
    every: float = Field(
        default=1.0,
        ge=0,
        le=5,
        description="Least seconds behind a batch that is small: fewer, larger files",
    )
    tables: Annotated[Topics, AfterValidator(one_by_one)]
    buffer_bytes: BufferBytes = BUFFER_BYTES


def create(context: Context, config: Config) -> FilesTarget:
    """Return the target; it looks at the files when it is opened."""
    return FilesTarget(context, config)


class FilesTarget:
    """See `sinks.target.Target`, but for its transaction: ranges appear partition by partition."""

    takes_lines = False

    def __init__(self, context: Context, config: Config) -> None:
        self._sink = context.name
        self._store = Store(config.path, config.storage.get_secret_value())
        self._format = FORMATS[config.format]
        self._folders = Folders(config.by_time, config.by)
        self._every = config.every
        self._next = 0.0
        self._chains: dict[TopicPartition, Chain] | None = None
        self._name = secrets.token_hex(16).encode()

    def open(self) -> None:
        """Read the names of all files."""
        self._store.open()
        self._chains = dict(chains(self._store.find()))
        for path in self._store.unfinished():
            self._store.remove(path)

    def close(self) -> None:
        """Forget what the names said."""
        self._chains = None

    def cursors(
        self, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, Cursor | None]:
        """Return where the names end; see `sinks.stored.cursor_of` for what it raises."""
        known = {(p.topic, p.partition): (p, chain) for p, chain in self._live().items()}
        out = {}
        for partition in partitions:
            if len(partition.topic) > _LONGEST:
                raise ConfigError(
                    f"topic {partition.topic} has a name of more than {_LONGEST} characters: the "
                    "names of its files would be longer than file systems take",
                    hint="Leave it out with `!topic`.",
                )
            place, chain = known.get((partition.topic, partition.partition), (partition, Chain()))
            row = None
            if chain.cursor is not None:
                stamp = chain.cursor.stamp or _NO_STAMP
                row = (place.topic_id, chain.cursor.offset, *stamp, VERSION)
            out[partition] = cursor_of(row, partition, self._sink)
        return out

    def place(self, cursors: Mapping[TopicPartition, Cursor | None]) -> None:
        """Put files behind a cursor aside, and mark what the names do not say.

        A file is not cut: a cursor inside of its range goes to where the range begins.
        """
        self._store.put(WRITER, self._name)
        self._chains = dict(chains(self._store.find()))
        for partition, cursor in cursors.items():
            self._place(partition, self._live().get(partition, Chain()), cursor)
        self._chains = dict(chains(self._store.find()))

    def _place(self, partition: TopicPartition, chain: Chain, cursor: Cursor | None) -> None:
        """Move one cursor; wherever it ends on the way, nothing is passed over or kept twice."""
        rows, marks = _split(chain.files)
        aside = [file for file in rows if cursor is None or _end(file[1]) > cursor.offset]
        mark = None
        if cursor is not None and not aside:
            begin = min(_begin(chain, cursor.offset), cursor.offset)
            mark = str(Name(partition, begin, cursor, 1, 1, MARK))
        elif cursor is not None and len(aside) == len(rows):
            begin = min(start for start, _ in aside)  # nothing is left that says where
            mark = str(Name(partition, begin, Cursor(begin), 1, 1, MARK))
        if mark is not None:
            self._store.put(mark, b"")
        for path in [*(path for _, path in marks), *chain.leftovers]:
            if path != mark:
                self._store.remove(path)
        for _, path in sorted(aside, reverse=True):
            self._store.set_aside(path)

    def prepare(self, schema: TableSchema, *, known: bool = False) -> None:  # noqa: ARG002
        """Look at the columns; every file has those of its rows."""
        self._folders.bind(schema)

    def apply(self, steps: Iterable[Step], spans: Sequence[Span]) -> None:
        """Encode all rows, then let the files of each partition appear."""
        time.sleep(max(0.0, self._next - time.monotonic()))
        failpoint("sink.before_stage")
        taken = self._taken(steps)
        failpoint("sink.before_cursor")
        self._write_next()
        moved = [span for span in spans if self._chain(span).cursor != span.start]
        if moved:
            raise displaced(len(moved))
        late, parts = self._encoded(taken, spans)
        for path, content in late:
            self._store.put(path, content)
        for span in spans:
            self._extend(span, parts.get((span.partition.topic, span.partition.partition), []))
        size = sum(len(content) for part in [late, *parts.values()] for _, content in part)
        is_small = len(taken) < _MANY and size < _LARGE
        self._next = time.monotonic() + (self._every if is_small else 0)
        failpoint("sink.after_commit")

    def _taken(self, steps: Iterable[Step]) -> list[tuple[TableSchema, Sequence[Cell]]]:
        return [(mapped.schema, row) for step in steps for mapped in step for row in mapped.upserts]

    def _write_next(self) -> None:
        """Leave the note that we write; read the names again where it was not ours."""
        if not self._wrote_last():
            self._store.put(WRITER, self._name)
            self._chains = dict(chains(self._store.find()))

    def _wrote_last(self) -> bool:
        return self._store.read(WRITER) == self._name

    def _chain(self, span: Span) -> Chain:
        return self._live().get(span.partition, Chain())

    def _encoded(
        self, taken: Sequence[tuple[TableSchema, Sequence[Cell]]], spans: Sequence[Span]
    ) -> tuple[list[_Content], dict[_Place, list[_Content]]]:
        """Return files of replayed rows, by path, and those of each partition, by folder."""
        begins = {
            (s.partition.topic, s.partition.partition): 0 if s.start is None else s.start.offset
            for s in spans
        }
        groups: dict[tuple[_Place, str, TableSchema], list[Sequence[Cell]]] = {}
        late = []
        for schema, row in taken:
            topic, partition, offset = _record_of(schema, row)
            place, folder = (topic, partition), self._folders.of(schema, row)
            if place in begins and offset >= begins[place]:
                groups.setdefault((place, folder, schema), []).append(row)
            else:
                name = late_name(topic, partition, offset, self._format.suffix)
                late.append((f"{folder}/{name}", self._format.encode(schema, [row])))
        parts: dict[_Place, list[_Content]] = {}
        for (place, folder, schema), rows in groups.items():
            parts.setdefault(place, []).append((folder, self._format.encode(schema, rows)))
        return late, parts

    def _extend(self, span: Span, parts: Sequence[_Content]) -> None:
        """Let the files of one range appear, or a mark where it has no rows."""
        chain = self._chain(span)
        if not parts and span.end == chain.cursor:
            return
        if not self._wrote_last():
            raise displaced(1)
        begin = _begin(chain, 0 if span.start is None else span.start.offset)
        for path in chain.leftovers:
            self._store.remove(path)
        files = []
        suffix = self._format.suffix if parts else MARK
        for number, (folder, content) in enumerate(parts or [("", b"")], 1):
            name = Name(span.partition, begin, span.end, number, max(1, len(parts)), suffix)
            path = f"{folder}/{name}".lstrip("/")
            self._store.put(path, content)
            files.append((begin, path))
        rows, marks = _split(chain.files)
        for _, path in marks:
            self._store.remove(path)
        end = span.end.offset if parts else chain.rows_end
        self._live()[span.partition] = Chain(span.end, end, [*rows[-1:], *files])

    def rehearse(self, transactions: Iterable[Sequence[Step]]) -> Mapping[int, DataError]:
        """Return which steps hold rows that have no form in the files."""
        return rehearsed(transactions, lambda step: self._encoded(self._taken([step]), ()))

    def meet(self, barrier: Barrier) -> Sequence[int]:
        """Raise: of changes one by one a truncation is one like others, and is not waited at."""
        raise StateError(f"{barrier.topic[0]} has a truncation that is no row of its own")

    def reserve(self) -> None:
        """Do nothing: there is one worker."""

    def _live(self) -> dict[TopicPartition, Chain]:
        if self._chains is None:
            raise TargetUnavailable(f"{self._store.url} is closed")
        return self._chains


def _begin(chain: Chain, otherwise: int) -> int:
    """Return where the next range begins: behind the rows, whatever marks say."""
    if chain.rows_end is not None:
        return chain.rows_end
    return chain.files[0][0] if chain.files else otherwise


def _split(
    files: Sequence[tuple[int, str]],
) -> tuple[Sequence[tuple[int, str]], Sequence[tuple[int, str]]]:
    """Return files with rows, and marks."""
    marks = [file for file in files if file[1].endswith(f".{MARK}")]
    return [file for file in files if file not in marks], marks


def _end(path: str) -> int:
    """Return the offset behind the range of a file that is part of a chain."""
    name = Name.read(path.rpartition("/")[2])
    return 0 if name is None else name.end.offset


def _record_of(schema: TableSchema, row: Sequence[Cell]) -> tuple[str, int, int]:
    """Return topic, partition and offset of the record that a row tells of."""
    names = [column.name for column in schema.columns]
    cells = [row[names.index(name)] for name in KEY]
    topic, partition, offset = (c.decode() if isinstance(c, bytes) else "" for c in cells)
    return topic, int(partition), int(offset)


def check(_context: Context, config: Config) -> Iterator[Finding]:
    """Look at the store, and at the names that are there."""
    try:
        found = chains(Store(config.path, config.storage.get_secret_value()).find())
    except CdcError as error:
        yield Finding("fail", "files", str(error), error.hint)
        return
    count = sum(len(chain.files) for chain in found.values())
    yield Finding("ok", "files", f"{count} files of {len(found)} partitions are in {config.path}")
