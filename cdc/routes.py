"""Where the rows of a table go: topic, subjects and plan, made once per version of the table.

Topic and schemas exist, and are compatible with what their readers know, before the first record
of a version is written (R13). A topic's id and number of partitions are progress: a topic that
was made anew, or grew, would move keys or has lost history, and stops the source by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import Literal, NamedTuple

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from cdc.brokers import TopicSettings, ensure_topic
from cdc.columns import ColumnRule, project
from cdc.connector import Context
from cdc.errors import ConfigError, Stop, TopicChanged
from cdc.kafka import KafkaConfig
from cdc.outbox import OutboxConfig, OutboxRoute
from cdc.positions import Stored
from cdc.quarantine import OnUndecodable, Quarantine, objection, singly
from cdc.source import Progress
from cdc.topics import topic_name
from schemas.avro import envelope_schema, key_schema
from schemas.change import Rows, Stamp
from schemas.connect_plan import ConnectPlan
from schemas.messages import MESSAGES, MessagePlan
from schemas.messages import message_schema as messages_schema
from schemas.plan import Message, Plan, SourceName
from schemas.registry import Registry
from schemas.table import TableSchema

__all__ = ["Messages", "Outgoing", "PublishConfig", "Routes", "Written"]


class Outgoing(msgspec.Struct):
    """Messages to one topic, as the client's `produce_batch` takes them.

    `singly`: some carry headers or a partition of their own, which only `produce` honours.
    `letters`: they are not records of the source, but rows put into quarantine.
    `bytes` is the size of their values. `last` gives the stamp of the newest record, where that is
    enough to know that all are there: one partition, and rows of the log.
    """

    messages: list[Message] = []
    singly: bool = False
    letters: bool = False
    bytes: int = 0
    last: Callable[[], Stamp] | None = None


Messages = dict[str, Outgoing]
"""Topic → what goes there."""

_Route = Callable[[Rows, int, Messages], int]
"""(rows, now in ms, out) → number of records appended: those of all rows or, raising, of none."""


class PublishConfig(BaseModel):
    """How a source's changes are written to Kafka."""

    model_config = ConfigDict(extra="forbid")

    topic: str = Field(
        default="{source}.{schema}.{table}", description="Template of the data topics' names"
    )
    format: Literal["avro", "json"] = Field(
        default="avro", description="`json` is what Debezium writes: `schemas/connect.md`"
    )
    json_schemas: bool = Field(
        default=False,
        description="With `json`: each record carries its schema, as with `schemas.enable=true`",
    )
    partitions: dict[str, int] = Field(
        default_factory=dict,
        description="Partitions by `schema.table` glob, fixed at creation; 1 where none matches",
    )
    topic_config: dict[str, str] = Field(
        default_factory=dict, description="Topic settings, as `cleanup.policy: compact`"
    )
    max_rows: int = Field(default=50_000, ge=1, description="Rows of one Kafka transaction")
    max_bytes: int = Field(
        default=16 * 1024 * 1024, ge=1024, description="Bytes of one Kafka transaction"
    )
    max_ms: int = Field(
        default=500, ge=0, description="Age at which a transaction commits under constant load"
    )
    transactions: bool = Field(
        default=False, description="Also write BEGIN and END to `<source>.transaction`"
    )
    outbox: OutboxConfig | None = Field(
        default=None, description="Route the rows of an outbox table to topics of their own"
    )


class Written(NamedTuple):
    """How a source's rows are written, and what of them."""

    publish: PublishConfig
    columns: Mapping[str, ColumnRule]
    on_undecodable: OnUndecodable = "stop"


class Routes:
    """The routes of one source. Makes topics and subjects; writes no record itself."""

    def __init__(
        self,
        context: Context,
        kafka: KafkaConfig,
        registry: Registry,
        source: SourceName,
        written: Written,
    ) -> None:
        self._context = context
        self._kafka = kafka
        self._registry = registry
        self._source = source
        self._options, self._columns = written.publish, written.columns
        self._quarantine = None
        if written.on_undecodable == "quarantine":
            self._quarantine = Quarantine(context, kafka)
        self._stored = Stored()
        self._routes: dict[tuple[TableSchema, str], _Route] = {}
        self._topics: dict[str, int] = {}
        self._progress: list[Progress] = []

    def restore(self, stored: Stored) -> None:
        """Take what was committed about the topics."""
        self._stored = stored

    def encode(self, rows: Rows, now_ms: int, out: Messages) -> int:
        """Append the records of `rows` to `out` and return their number.

        A row whose values cannot be encoded goes to the quarantine where that is asked for. Raises
        `errors.Stop` where it is not, or for what is no row of its table.
        """
        known = (rows.schema, rows.form)
        route = self._routes.get(known)
        if route is None:
            route = self._routes[known] = self._new_route(rows.schema)
        try:
            return route(rows, now_ms, out)
        except (ValueError, IndexError):
            return sum(self._alone(route, row, now_ms, out) for row in singly(rows))

    def _alone(self, route: _Route, row: Rows, now_ms: int, out: Messages) -> int:
        """Append the records of one row of a run that could not be encoded, or its letter."""
        try:
            return route(row, now_ms, out)
        except (ValueError, IndexError) as error:
            if self._quarantine is None:
                raise _stopped(row, error) from error
            topic = topic_name(self._context.name, row.schema.table, self._options.topic)
            try:
                letter = self._quarantine.letter(row, topic, error)
            except (ValueError, IndexError):
                raise _stopped(row, error) from error
        outgoing = out.setdefault(self._quarantine.topic, Outgoing(singly=True, letters=True))
        outgoing.messages.append(letter)
        outgoing.bytes += len(letter["value"])
        return 0

    def take_progress(self) -> list[Progress]:
        """Return, once, what is new about the topics and must commit with the next position."""
        taken, self._progress = self._progress, []
        return taken

    def _new_route(self, schema: TableSchema) -> _Route:
        outbox = self._options.outbox
        if schema == MESSAGES:
            return self._messages()
        if outbox is not None and str(schema.table) == outbox.table:
            return self._outbox(outbox, schema)
        return self._table(schema)

    def _table(self, schema: TableSchema) -> _Route:
        published, masks = project(schema, self._columns)
        topic = topic_name(self._context.name, schema.table, self._options.topic)
        partitions = self.ensure(topic, self._wanted(schema))
        if self._options.format == "json":
            with_schema = self._options.json_schemas
            plan = ConnectPlan(schema, published, self._source, topic, masks, schemas=with_schema)
            return _write_json(plan, topic, partitions)
        key_id = None
        if published.key:
            key_id = self._registry.register_for(topic, key_schema(published, topic), key=True)
        value_id = self._registry.register_for(topic, envelope_schema(published, topic))
        ids = (key_id, value_id)
        return _write_all(Plan(schema, published, self._source, ids, masks), topic, partitions)

    def _messages(self) -> _Route:
        topic = topic_name(self._context.name, MESSAGES.table)
        self.ensure(topic, 1)
        identity = self._registry.register_for(topic, messages_schema(topic))
        plan = MessagePlan(self._source, identity)

        def write(rows: Rows, now_ms: int, out: Messages) -> int:
            outgoing = out.setdefault(topic, Outgoing())
            outgoing.bytes += plan.write(rows, now_ms, outgoing.messages)
            return len(rows.items)

        return write

    def _outbox(self, config: OutboxConfig, schema: TableSchema) -> _Route:
        try:
            compiled = OutboxRoute(config, schema)
        except ValueError as error:
            raise ConfigError(f"publish.outbox: {error}") from error

        def write(rows: Rows, _now_ms: int, out: Messages) -> int:
            events = 0
            for topic, message in list(compiled.messages(rows)):
                self.ensure(topic, 1)
                outgoing = out.setdefault(topic, Outgoing(singly=True))
                outgoing.messages.append(message)
                outgoing.bytes += len(message["value"] or b"")
                events += 1
            return events

        return write

    def _wanted(self, schema: TableSchema) -> int:
        """Return the partitions of a new topic; a table without a key has one (R8)."""
        if not schema.key:
            return 1
        globs = self._options.partitions.items()
        return next((count for glob, count in globs if fnmatchcase(str(schema.table), glob)), 1)

    def ensure(self, topic: str, wanted: int) -> int:
        """Make `topic` if it is missing and return its number of partitions.

        Raises `errors.TopicChanged` when it is not the topic that was written to before.
        """
        if topic in self._topics:
            return self._topics[topic]
        settings = TopicSettings(wanted, self._options.topic_config)
        identity, partitions = ensure_topic(self._kafka, topic, settings)
        key = f"topic/{topic}"
        known = self._stored.progress.get(key)
        if known is None:
            value = {"version": 1, "id": identity, "partitions": partitions}
            self._stored.progress[key] = value
            self._progress.append(Progress(key, value))
        elif (known["id"], known["partitions"]) != (identity, partitions):
            raise TopicChanged(
                f"topic {topic} was {known['id']} with {known['partitions']} partitions and is "
                f"{identity} with {partitions}",
                hint="Keys would move or history is gone. Take a new snapshot: "
                f"`cdc position reset {self._context.name}` after the sinks were rewound.",
            )
        self._topics[topic] = partitions
        return partitions


def _write_all(plan: Plan, topic: str, partitions: int) -> _Route:
    def write(rows: Rows, now_ms: int, out: Messages) -> int:
        outgoing = out.setdefault(topic, Outgoing())
        before = _append(plan, rows, now_ms, outgoing)
        if partitions > 1:
            _spread(outgoing, before, partitions)
        tells = partitions == 1 and not rows.origin.snapshot
        outgoing.last = partial(plan.last, rows) if tells else None
        return len(outgoing.messages) - before

    return write


def _write_json(plan: ConnectPlan, topic: str, partitions: int) -> _Route:
    """Its records carry no stamp, so that of the last one tells a reader nothing."""

    def write(rows: Rows, now_ms: int, out: Messages) -> int:
        outgoing = out.setdefault(topic, Outgoing())
        before = _append(plan, rows, now_ms, outgoing)
        if not outgoing.singly:
            outgoing.singly = any("headers" in m for m in outgoing.messages[before:])
        if partitions > 1:
            _spread(outgoing, before, partitions)
        return len(outgoing.messages) - before

    return write


def _append(plan: Plan | ConnectPlan, rows: Rows, now_ms: int, outgoing: Outgoing) -> int:
    """Append the messages of a run, of all its rows or of none; return where they begin."""
    before = len(outgoing.messages)
    try:
        outgoing.bytes += plan.write(rows, now_ms, outgoing.messages)
    except (ValueError, IndexError):
        del outgoing.messages[before:]
        raise
    return before


def _spread(outgoing: Outgoing, start: int, partitions: int) -> None:
    """Put what has no key into every partition: a truncate is a barrier in each (R8)."""
    added = outgoing.messages[start:]
    if all(message["key"] is not None for message in added):
        return
    del outgoing.messages[start:]
    for message in added:
        if message["key"] is None:
            value = message["value"]
            outgoing.messages += [{"value": value, "partition": n} for n in range(partitions)]
        else:
            outgoing.messages.append(message)
    outgoing.singly = True


def _stopped(row: Rows, error: Exception) -> Stop:
    return Stop(
        f"a row of {row.schema.table} in transaction {row.origin.txid} at {row.origin.commit} "
        f"cannot be encoded: {objection(row, error)}",
        hint="Nothing was skipped. Repair the value, leave the column out under `columns:`, or set "
        "`on_undecodable: quarantine` to put such rows aside.",
    )
