"""`cdc map try`: what a sink's mapping makes of records, before → after, without a target.

Records are the newest of the topic, or rows of a file; nothing is written anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from confluent_kafka import KafkaException, Message

from cdc.cli.shared import DEFAULT_FILE, ConfigFile, Json, outline_of, print_json, print_rows
from cdc.cli.tail import Decoder, TopicReader, newest_or_from
from cdc.compacted import reach
from cdc.config import Pipeline
from cdc.errors import CdcError, ConfigError, Stop
from cdc.kafka import consumer_client, kafka_error
from cdc.plugins import nearest
from schemas.avro import table_schema
from schemas.change import Change, Op, Origin, Rows
from schemas.plan import Plan, SourceName
from schemas.registry import Registry
from schemas.table import TableSchema
from schemas.wire import FRAME_BYTES, frame, schema_id
from sinks.decode import DELETE, POISON, SKIP, TRUNCATE, UPSERT, Event
from sinks.mapping import Selection, Tables
from sinks.parts import all_parts
from sinks.routes import Routes
from sinks.topic_lookup import Lookups
from sinks.values import text_of

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Try what a mapping makes of records.")
_DOES = {
    UPSERT: "upsert",
    DELETE: "delete",
    TRUNCATE: "truncate",
    SKIP: "skip",
    POISON: "dead_letter",
}


@app.callback()
def _root() -> None:
    """Try what a mapping makes of records."""


@app.command("try")
def try_(
    table: Annotated[
        str, typer.Option("--table", metavar="T", help="A topic, or `schema.table` of its source.")
    ],
    sink: Annotated[
        str | None, typer.Option("--sink", help="A name under `sinks:`; may be left out with one.")
    ] = None,
    sample: Annotated[
        int, typer.Option("--sample", min=1, help="How many records, the newest.")
    ] = 5,
    records: Annotated[
        Path | None,
        typer.Option(
            "--records", metavar="FILE", help="Rows of the source instead, as JSON lines."
        ),
    ] = None,
    config: ConfigFile = DEFAULT_FILE,
    json: Json = False,
) -> None:
    """Show records before and after a sink's mapping; nothing is written.

    Example: cdc map try --table public.customers --sample 5
    """
    pipeline = outline_of(config)
    tables = _tables(pipeline, sink)
    selection = Selection(tables)
    topic = _topic(pipeline, selection, table)
    with Registry(pipeline.kafka.registry) as registry:
        given = (
            _newest(pipeline, topic, sample)
            if records is None
            else _from_file(pipeline, topic, registry, _lines(records)[:sample])
        )
        lookups = Lookups(tables, pipeline.kafka, registry)
        try:
            trial = _Trial(selection, registry)
            tried = [told for message in given for told in trial.run(message)]
        finally:
            lookups.close()
    if json:
        print_json({"topic": topic, "records": tried})
    else:
        _tell(topic, tried)


def _tables(pipeline: Pipeline, sink: str | None) -> Tables:
    names = list(pipeline.sinks)
    if sink is None and len(names) != 1:
        raise ConfigError(f"{pipeline.path} has {len(names)} sinks", hint="Name one with --sink.")
    settings: Any = pipeline.unit(f"sink/{sink or names[0]}").config
    tables: Tables = settings.tables
    return tables


def _topic(pipeline: Pipeline, selection: Selection, table: str) -> str:
    """Return the one topic of the sink that `table` means."""
    taken = sorted(name for name in reach(pipeline.kafka) if selection.takes(name))
    found = [name for name in taken if name == table or fnmatchcase(name, f"*.{table}")]
    if table in found:
        return table
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"--table {table} is ambiguous", hint=f"Write {' or '.join(found)}.")
    raise ConfigError(f"the sink takes no topic {table}", hint=nearest(table, taken))


def _newest(pipeline: Pipeline, topic: str, count: int) -> Iterable[Message]:
    consumer = consumer_client(pipeline.kafka)
    try:
        reader = TopicReader(consumer, pipeline.kafka, topic)
        # A delete is followed by its tombstone, which says nothing to a sink.
        found = [m for m in newest_or_from(reader, None, 2 * count) if m.value() is not None]
        return found[-count:]
    except KafkaException as error:
        raise kafka_error(error, f"reading {topic}") from error
    finally:
        consumer.close()


def _from_file(
    pipeline: Pipeline, topic: str, registry: Registry, lines: Sequence[tuple[str, bytes]]
) -> Iterator[Message]:
    """Yield rows of a file as the records a source would write for them."""
    newest = [message.value() for message in _newest(pipeline, topic, 1)]
    if not newest:
        raise ConfigError(f"{topic} has no record yet, so its columns are not known")
    identity = schema_id(newest[0] or b"")
    envelope = registry.get(identity)
    schema = table_schema(envelope)
    plan = Plan(schema, schema, SourceName("", "file", topic.partition(".")[0]), (identity,) * 2)
    for number, (place, line) in enumerate(lines):
        change = Change(Op.CREATE, None, _row(line, schema, place))
        made = Rows(schema, "changes", Origin(0, 0, 0), [change], [number])
        for record in plan.records(made, 0):
            payload = frame(identity) + (record.value or b"")[FRAME_BYTES:]
            yield Message(topic=topic, partition=0, offset=number, value=payload)


def _lines(path: Path) -> Sequence[tuple[str, bytes]]:
    """Return the lines of a file that hold something, each with its place."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    return [(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line.strip()]


def _row(line: bytes, schema: TableSchema, place: str) -> list[bytes | None]:
    """Return a JSON object as the cells of a row; a column that is not in it is NULL."""
    try:
        given: Any = orjson.loads(line)
        unknown = sorted(set(given) - {column.name for column in schema.columns})
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{place}: not a JSON object") from error
    if unknown:
        names = ", ".join(column.name for column in schema.columns)
        raise ConfigError(f"{place}: no column {', '.join(unknown)}", hint=f"There are {names}.")
    return [text_of(given.get(column.name)) for column in schema.columns]


class _Trial:
    """Runs records through the mapping, and tells of each."""

    def __init__(self, selection: Selection, registry: Registry) -> None:
        self._routes = Routes(selection, registry, self)
        self._decoder = Decoder(registry)

    def partitions(self, _topic: str) -> int:
        """Return how many partitions a topic has, for the mapping: one."""
        return 1

    def writers(self, _topic: str) -> int:
        """Return how many would write at once: nobody does."""
        return 1

    def run(self, message: Message) -> list[dict[str, Any]]:
        """Return what one record is and what becomes of it, for each table it goes to."""
        payload = message.value() or b""
        plain = self._decoder.payload(payload)
        told: dict[str, Any] = {
            "partition": message.partition(),
            "offset": message.offset(),
            "op": plain.get("op") if isinstance(plain, dict) else None,
            "before": _source_row(plain),
        }
        try:
            event = self._routes.read(message, payload)
        except Stop as error:
            return [{**told, "does": "stop", "reason": str(error), "hint": error.hint}]
        return [{**told, **_outcome(part)} for part in all_parts(event)]


def _source_row(plain: Any) -> Any:
    row = plain.get("after") if isinstance(plain, dict) else None
    return row if row is not None or not isinstance(plain, dict) else plain.get("before")


def _outcome(event: Event) -> dict[str, Any]:
    told: dict[str, Any] = {"does": _DOES[event.kind]}
    if event.schema is not None:
        told["table"] = str(event.schema.table)
    names = [column.name for column in event.schema.columns] if event.schema is not None else []
    if event.kind == UPSERT and event.row is not None:
        cells = zip(names, event.row, strict=True)
        told["after"] = {name: _shown(cell) for name, cell in cells if _is_sent(cell)}
    elif event.kind == DELETE and event.schema is not None:
        key = event.schema.key or names
        told["after"] = {n: _shown(cell) for n, cell in zip(key, event.key, strict=True)}
    if isinstance(event.error, CdcError):
        told |= {"reason": str(event.error), "hint": event.error.hint}
    return told


def _is_sent(cell: object) -> bool:
    return cell is None or isinstance(cell, bytes)


def _shown(cell: Any) -> str | None:
    return None if cell is None else cell.decode(errors="replace")


def _tell(topic: str, tried: Sequence[Mapping[str, Any]]) -> None:
    if not tried:
        print(f"{topic} has no records")
    for one in tried:
        place = f"{topic}[{one['partition']}] at {one['offset']}"
        print(f"\n{place}: {one['op']} → {one['does']} {one.get('table', '')}".rstrip())
        if one.get("reason"):
            print(f"  {one['reason']}")
        before, after = one["before"] or {}, one.get("after", {})
        names = dict.fromkeys([*before, *after])
        rows = [(name, _cell(before, name), _cell(after, name)) for name in names]
        print_rows(("  column", "before", "after"), [(f"  {n}", b, a) for n, b, a in rows])


def _cell(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        return ""
    value = row[name]
    return value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
