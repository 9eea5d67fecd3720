"""The work of `cdc verify`: table after table, found, compared, settled, repaired."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from cdc.config import Pipeline, SourceOptions, Unit
from cdc.control import ControlWriter
from cdc.errors import ConfigError, Unavailable
from cdc.positions import PositionsTopic
from cdc.topics import topic_name, topic_parts
from cdc.verify.compare import Pair, differing
from cdc.verify.readable import NotThere, ReadableSource, Row
from cdc.verify.scatter import scattered
from cdc.verify.settle import Difference, differences, settle
from schemas.table import TableId, TableSchema
from sinks.binding import target_name
from sinks.mapping import Selection, TableMap
from sinks.passage import Passage
from sinks.surplus import remove
from sinks.target import Target
from sinks.topics import Topics
from sinks.verification import Match, match

__all__ = ["NAMED", "Outcome", "Shown", "Verification"]

NAMED = 20
"""Differences of a table that are shown one by one."""

_BATCH = 2_000
_PIECE = 50_000
_REPAIR_POLL_S = 0.2


class Shown(msgspec.Struct):
    """A difference for a person: `kind` is missing, extra or different."""

    kind: str
    key: dict[str, str | None]
    columns: dict[str, tuple[str | None, str | None]] = {}
    reason: str = ""


class Outcome(msgspec.Struct):
    """How a table came out: `equal`, `differs`, `repaired`, `refused` or `unknown` with a reason.

    `late` rows were equal when the sink had come so far, `moving` ones changed at every look.
    """

    source: str
    target: str
    state: str = "equal"
    rows: int = 0
    target_rows: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    late: int = 0
    moving: int = 0
    repaired: int = 0
    seconds: float = 0.0
    reason: str = ""
    hint: str = ""
    differences: list[Shown] = msgspec.field(default_factory=list)

    @property
    def lost(self) -> int:
        """Rows that differ for good, before any repair."""
        return self.missing + self.extra + self.different


Tell = Callable[[str, int, int], None]
"""(table, rows done, rows estimated): how far it is."""


class Verification:
    """A source and a sink of one pipeline; close it in the end."""

    def __init__(self, pipeline: Pipeline, source: Unit, sink: Unit, patience: float) -> None:
        self._pipeline, self._source, self._sink = pipeline, source, sink
        self._patience = patience
        for unit in (source, sink):
            if not hasattr(unit.connector.module, "readable"):
                raise ConfigError(
                    f"{unit.address} cannot be verified: nobody can read rows back from "
                    f"`{unit.connector.name}`"
                )
        settings: Any = sink.config
        self._selection = Selection(settings.tables)
        self._topics = Topics(pipeline.kafka, self._selection.takes)
        self._target: Target = sink.connector.offer("create")(sink.context, sink.config)
        self._target.open()
        positions = PositionsTopic(pipeline.kafka, pipeline.name)
        self._passage = Passage(
            positions, source.context.name, self._topics, self._target, patience
        )

    def close(self) -> None:
        """Let go of the target."""
        self._target.close()

    def run(self, globs: Sequence[str], tell: Tell, *, repair: bool) -> Iterator[Outcome]:
        """Yield how each table came out; ends at the first that nobody can tell of."""
        shared = self._shared()
        for schema, topic, mapping in self._tables(globs):
            outcome = Outcome(str(schema.table), "")
            started = time.monotonic()
            try:
                found = self._match(schema, topic, mapping, shared)
                outcome.target = str(found.target.table)
                _Table(self, found, outcome, tell).run(repair=repair)
            except Unavailable as error:
                outcome.state, outcome.reason, outcome.hint = "unknown", str(error), error.hint
            except ConfigError as error:
                outcome.state, outcome.reason, outcome.hint = "refused", str(error), error.hint
            except NotThere as error:
                outcome.state, outcome.reason = "differs", str(error)
            outcome.seconds = round(time.monotonic() - started, 1)
            yield outcome
            if outcome.state == "unknown":
                return

    def _tables(self, globs: Sequence[str]) -> list[tuple[TableSchema, str, TableMap]]:
        """Return the source's tables that the sink takes, each with its topic and mappings."""
        options = self._source.options
        if not isinstance(options, SourceOptions):
            raise TypeError(f"{self._source.address} is no source")
        outbox = options.publish.outbox
        found = []
        for schema in self._source.connector.offer("discover")(self._source.config):
            name = str(schema.table)
            topic = topic_name(self._source.context.name, schema.table, options.publish.topic)
            wanted = not globs or any(fnmatchcase(name, glob) for glob in globs)
            is_outbox = outbox is not None and name == outbox.table
            if wanted and not is_outbox:
                found += [(schema, topic, one) for one in self._selection.mappings(topic)]
        return found

    def _match(
        self, schema: TableSchema, topic: str, mapping: TableMap, shared: set[TableId]
    ) -> Match:
        options = self._source.options
        if not isinstance(options, SourceOptions):
            raise TypeError(f"{self._source.address} is no source")
        found = match(schema, options.columns, topic, mapping)
        if found.target.table in shared:
            raise ConfigError(
                f"{found.target.table} takes rows of several topics, and nobody can tell which "
                f"of them are those of {schema.table}"
            )
        return found

    def _shared(self) -> set[TableId]:
        """Return the target tables that several topics go to."""
        met: set[TableId] = set()
        shared: set[TableId] = set()
        for topic in self._topics.names():
            _, *parts = topic_parts(topic)
            for mapping in self._selection.mappings(topic) if len(parts) == 2 else ():
                table = target_name(TableId(*parts), topic, mapping)
                (shared if table in met else met).add(table)
        return shared

    def pair(self, found: Match) -> tuple[ReadableSource, Pair]:
        """Return a table's sides over connections of their own, open."""
        source, sink = self._source, self._sink
        return found.pair(
            lambda wanted: source.connector.offer("readable")(
                source.context, source.config, wanted
            ),
            lambda wanted: sink.connector.offer("readable")(sink.context, sink.config, wanted),
        )

    def wait(self, source: ReadableSource, here: Any, topic: str) -> None:
        """Wait until the sink has passed a place; see `sinks.passage`."""
        self._passage.wait(here, source.has_passed, topic)

    def backfill(self, table: TableId, condition: str) -> None:
        """Have the source read some rows again."""
        writer = ControlWriter(self._pipeline.kafka, self._pipeline.name)
        arguments = {"table": str(table), "where": condition}
        writer.send(self._source.address, "backfill", arguments)

    def remove(self, found: Match, surplus: Callable[[], list[list[Any]]]) -> int:
        """Delete rows the source has not; see `sinks.surplus`."""
        partitions = self._passage.partitions(found.topic)
        return remove(self._target, found.target, partitions, surplus)

    @property
    def patience(self) -> float:
        """Seconds that anything is waited for."""
        return self._patience


class _Table:
    """One table being verified."""

    def __init__(self, of: Verification, found: Match, outcome: Outcome, tell: Tell) -> None:
        self._of, self._found = of, found
        self._outcome, self._tell = outcome, tell

    def run(self, *, repair: bool) -> None:
        with ExitStack() as stack:
            self._source, walking = self._pair(stack)
            # Rows are looked up while the walk is a few pieces ahead: over other connections.
            looking, self._pair_to_look = self._pair(stack)
            self._looking = looking
            self._walk(walking, repair=repair)
        outcome = self._outcome
        if outcome.lost:
            outcome.state = "repaired" if outcome.repaired == outcome.lost else "differs"

    def _pair(self, stack: ExitStack) -> tuple[ReadableSource, Pair]:
        source, pair = self._of.pair(self._found)
        stack.enter_context(closing(pair.ours))
        stack.enter_context(closing(pair.theirs))
        return source, pair

    def _walk(self, pair: Pair, *, repair: bool) -> None:
        outcome, estimate = self._outcome, self._source.estimate()
        doubtful: list[Row] = []
        if pair.sorted_alike:
            looks = differing(pair, self._source.pieces(_PIECE))
        else:
            looks = scattered(pair, estimate)
        with closing(looks) as every:
            for found in every:
                outcome.rows += found.ours
                outcome.target_rows += found.theirs
                self._tell(outcome.source, outcome.rows, max(estimate, outcome.rows))
                doubtful += found.keys
                while len(doubtful) >= _BATCH:
                    self._settle(doubtful[:_BATCH], repair=repair)
                    del doubtful[:_BATCH]
        if doubtful:
            self._settle(doubtful, repair=repair)

    def _settle(self, keys: list[Row], *, repair: bool) -> None:
        outcome, source = self._outcome, self._looking

        def passed(here: Any) -> None:
            self._of.wait(source, here, self._found.topic)

        settled = settle(self._pair_to_look, source, keys, passed)
        outcome.late += settled.late
        outcome.moving += settled.moving
        for difference in settled.lost:
            count = getattr(outcome, difference.kind) + 1
            setattr(outcome, difference.kind, count)
        room = NAMED - len(outcome.differences)
        outcome.differences += [self._shown(d) for d in settled.lost[:room]]
        if repair and settled.lost:
            self._repair(settled.lost)

    def _shown(self, difference: Difference) -> Shown:
        names = self._found.view.names if self._found.view.width else ("hash of the row", "copies")
        key = {n: _text(c) for n, c in zip(names, difference.key, strict=False)}
        ours, theirs = difference.ours, difference.theirs
        if ours is not None and len(ours) != len(names):
            return Shown(difference.kind, key, reason=_text(ours[-1]) or "")
        if ours is None or theirs is None:
            return Shown(difference.kind, key)
        cells = zip(names, ours, theirs, strict=True)
        columns = {n: (_text(a), _text(b)) for n, a, b in cells if a != b}
        return Shown(difference.kind, key, columns)

    def _repair(self, lost: Sequence[Difference]) -> None:
        """Read lost rows again through the pipeline, delete surplus ones, and see them equal."""
        if not self._found.view.width:
            raise ConfigError(
                f"{self._found.table} has no key, so single rows of it cannot be repaired",
                hint=f"Empty {self._found.target.table} and `cdc backfill` the table.",
            )
        again = [d.key for d in lost if d.kind != "extra"]
        if again:
            self._of.backfill(self._found.table, self._looking.condition(again))
        surplus = [d.key for d in lost if d.kind == "extra"]
        if surplus:
            self._of.remove(self._found, lambda: self._surplus(surplus))
        left = [d.key for d in lost]
        deadline = time.monotonic() + self._of.patience
        while left and time.monotonic() < deadline:
            time.sleep(_REPAIR_POLL_S)
            left = [d.key for d in differences(self._pair_to_look, left)]
        self._outcome.repaired += len(lost) - len(left)

    def _surplus(self, keys: list[Row]) -> list[list[Any]]:
        """Return the target's keys of rows that the source has not, now."""
        self._looking.here()
        names = self._found.view.names
        places = [names.index(name) for name in self._found.target.key]
        now = differences(self._pair_to_look, keys)
        return [[d.theirs[p] for p in places] for d in now if d.ours is None and d.theirs]


def _text(cell: bytes | None) -> str | None:
    return None if cell is None else cell.decode(errors="replace")
