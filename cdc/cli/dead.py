"""`cdc dead`: what the target could never take, looked at, applied after all, or given up.

Letters are read from Kafka; only a replay reaches the target, and there it goes by
`sinks/replay.py`: each letter once, never an older row over a newer one. The rows that a source put
into quarantine are looked at and given up in the same way; what repairs them is a backfill.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import orjson
import typer
from confluent_kafka import Message

from cdc.cli.letters import Filter, filtered, key_text
from cdc.cli.shared import (
    DEFAULT_FILE,
    ConfigFile,
    Json,
    SinkArgument,
    Yes,
    outline_of,
    pipeline_of,
    print_json,
    print_rows,
)
from cdc.cli.tail import Decoder
from cdc.config import Pipeline, Unit
from cdc.errors import ConfigError, DataError
from cdc.quarantine import readable_row
from schemas.registry import Registry
from sinks.letters import DROPPED, REPLAYED, Ledger, Letter, LetterTopic, concerns, original
from sinks.mapping import Selection
from sinks.repair import Repair
from sinks.replay import Replay, Verdict, batches, held_back
from sinks.target import Target
from sinks.topic_lookup import Lookups

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="List, show, replay or drop dead letters.")
Letters = Annotated[
    list[str] | None,
    typer.Argument(metavar="[LETTER]...", help="Only these, as `list` names them."),
]
Fix = Annotated[
    str | None,
    typer.Option("--fix", metavar="EXPR", help="CEL map of columns to change, over the row."),
]
Owner = Annotated[
    str,
    typer.Argument(
        metavar="UNIT", help="A sink, or a source for its quarantine; `source/NAME` is plain."
    ),
]
_ROWS = 20
_ROUNDS = 100


@app.command("list")
@filtered
def list_(
    unit: Owner, chosen: Filter, config: ConfigFile = DEFAULT_FILE, json: Json = False
) -> None:
    """Sum the open letters by topic, partition and reason, and list them, the oldest first.

    Example: cdc dead list crm --table 'public.*' --reason '*too long*' --since 2026-01-31
    """
    with _opened(outline_of(config), unit) as (topic, ledger, decoder):
        whole = chosen._replace(limit=None).choose(ledger.open(), _keys(decoder))
        shown = [_summary(topic, letter, decoder) for letter in whole[: chosen.limit]]
    sums = _sums(whole)
    if json:
        kind, name = topic.kind, ledger.owner
        print_json({kind: name, "open": len(whole), "sums": sums, "letters": shown})
        return
    if not whole:
        print(f"no open letters of {topic.kind} {ledger.owner}")
        return
    print_rows(("topic", "partition", "reason", "letters"), [list(one.values()) for one in sums])
    print()
    rows = shown[: chosen.limit or _ROWS]
    print_rows(("letter", "table", "key", "place", "at", "reason"), [_row(one) for one in rows])
    if len(rows) < len(whole):
        print(f"… and {len(whole) - len(rows)} more: --limit, --json")


@app.command()
def show(
    unit: Owner,
    letter: Annotated[str, typer.Argument(metavar="LETTER", help="As `list` names it.")],
    config: ConfigFile = DEFAULT_FILE,
    json: Json = False,
) -> None:
    """Show one letter: the record decoded, its bytes, its headers, and why it was refused.

    Example: cdc dead show crm shop.dead-0-12
    """
    with _opened(outline_of(config), unit) as (topic, ledger, decoder):
        found = _named(topic, ledger, letter)
        [(_, message)] = topic.messages([found])
        record = original(message, found.record)
        plain = decoder.record(record)
        facts = {
            **_summary(topic, found, decoder),
            "state": ledger.outcomes.get(found.offset, "open"),
            "hint": found.hint,
            "timestamp_ms": found.record.timestamp,
            "key": plain["key"],
            "key_hex": _hex(record.key()),
            "value": plain["value"] if found.stamp is None else _quarantined(message),
            "value_hex": _hex(record.value()),
            "headers": plain.get("headers", {}),
        }
    if json:
        print_json(facts)
        return
    print_rows(("", ""), [(name, _cell(value)) for name, value in facts.items()])


@app.command()
@filtered
def replay(
    sink: SinkArgument,
    letters: Letters = None,
    fix: Fix = None,
    *,
    chosen: Filter,
    config: ConfigFile = DEFAULT_FILE,
    json: Json = False,
) -> None:
    """Apply open letters after all, once the target or the mapping was repaired.

    `--fix` repairs the chosen letters themselves, by a CEL map of columns over the row.

    Each is applied once, whatever happens meanwhile, and none over a newer change of its row: that
    one is `superseded` and can be dropped. The sink may go on working. Letters of one key go in
    order. The exit code is 1 when any letter is left.

    Example: cdc dead replay crm --reason '*too long*' --fix '{"name": name.substring(0, 8)}'
    """
    _refuse_source(outline_of(config), sink)
    pipeline = pipeline_of(config, f"sink/{sink}")
    unit = pipeline.unit(f"sink/{sink}")
    with _opened(pipeline, sink) as (topic, ledger, decoder):
        wanted = _wanted(topic, ledger, letters, chosen, decoder)
        told = _replayed(pipeline, unit, topic, (ledger, wanted), fix)
    left = [verdict for verdict in told if verdict.state != REPLAYED]
    said = [_verdict(topic, verdict) for verdict in told]
    if json:
        print_json({"sink": sink, "replayed": len(told) - len(left), "letters": said})
    else:
        _tell(said, len(told) - len(left), REPLAYED)
    if left:
        raise DataError(
            f"{len(left)} of {len(told)} letters were not applied",
            hint="Repair what the reason names and replay again, or give up with `cdc dead drop`.",
        )


@app.command()
@filtered
def drop(
    unit: Owner,
    letters: Letters = None,
    *,
    chosen: Filter,
    yes: Yes = False,
    config: ConfigFile = DEFAULT_FILE,
    json: Json = False,
) -> None:
    """Give up open letters: they are marked as dropped and listed no more.

    The records stay in the topic, and in the source's own; only the mark is written.

    Example: cdc dead drop crm shop.dead-0-12 --yes
    """
    with _opened(outline_of(config), unit) as (topic, ledger, decoder):
        wanted = _wanted(topic, ledger, letters, chosen, decoder)
        if yes:
            topic.mark(wanted, DROPPED)
        said = [_verdict(topic, Verdict(letter, DROPPED)) for letter in wanted]
    if json:
        print_json({topic.kind: ledger.owner, "done": yes, "letters": said})
    elif yes:
        _tell(said, len(said), DROPPED)
    else:
        _tell(said, len(said), "would be dropped; add --yes to do it")


@contextmanager
def _opened(pipeline: Pipeline, name: str) -> Iterator[tuple[LetterTopic, Ledger, Decoder]]:
    unit = _owner(pipeline, name)
    kind: Literal["sink", "source"] = "source" if unit.kind == "source" else "sink"
    topic = LetterTopic(pipeline.kafka, pipeline.name, kind)
    try:
        with Registry(pipeline.kafka.registry) as registry:
            yield topic, topic.ledger(unit.context.name), Decoder(registry)
    finally:
        topic.close()


def _owner(pipeline: Pipeline, name: str) -> Unit:
    """Return whose letters `name` means: a sink's, where a sink has the name, else a source's."""
    known = pipeline.units()
    found = [address for address in (name, f"sink/{name}", f"source/{name}") if address in known]
    return pipeline.unit(found[0] if found else f"sink/{name}")


def _refuse_source(pipeline: Pipeline, name: str) -> None:
    if _owner(pipeline, name).kind == "source":
        raise ConfigError(
            f"{name} is a source, and what its quarantine holds is not replayed",
            hint="The values cannot be written to its topics. Repair them in the source, then "
            "`cdc backfill` their keys; `cdc dead drop` the letters.",
        )


def _quarantined(message: Message) -> Any:
    """Return a row in quarantine by column."""
    headers: Any = message.headers() or ()
    facts = dict(headers)
    columns = orjson.loads(facts["cdc.columns"])
    return readable_row(facts["cdc.form"].decode(), columns, message.value() or b"")


def _repair(
    fix: str | None, wanted: Sequence[Letter], registry: Registry
) -> Callable[[Letter, bytes], bytes] | None:
    """Return what repairs the letters that were chosen, and no others."""
    if fix is None:
        return None
    repair, chosen = Repair(fix, registry.get), {letter.offset for letter in wanted}
    return lambda letter, value: repair.repaired(value) if letter.offset in chosen else value


def _replayed(
    pipeline: Pipeline,
    unit: Unit,
    topic: LetterTopic,
    given: tuple[Ledger, list[Letter]],
    fix: str | None,
) -> list[Verdict]:
    """Replay, and again what a sink that blocks keys put behind the letters meanwhile."""
    settings: Any = unit.config
    options: Any = unit.options
    ledger, wanted = given
    out: list[Verdict] = []
    target: Target = unit.connector.offer("create")(unit.context, settings)
    with Registry(pipeline.kafka.registry) as registry:
        repair = _repair(fix, wanted, registry)
        target.open()
        tables = Selection(settings.tables)
        work = Replay(unit.context, pipeline.kafka, target, tables, registry, repair=repair)
        lookups = Lookups(settings.tables, pipeline.kafka, registry)
        try:
            for _ in range(_ROUNDS):
                told = _round(work, ledger, wanted)
                out += told
                if options.on_poison != "block_key" or any(v.state != REPLAYED for v in told):
                    break
                ledger = topic.ledger(unit.context.name)
                wanted = list(_behind(ledger.open(), told))
                if not wanted:
                    break
        finally:
            lookups.close()
            work.close()
            target.close()
    return out


def _behind(known: Iterable[Letter], told: Iterable[Verdict]) -> Iterator[Letter]:
    """Yield the letters that had to wait for those in `told`."""
    parts: dict[tuple[str, bytes | None], set[str]] = {}
    for letter in (verdict.letter for verdict in told):
        parts.setdefault((letter.record.topic, letter.key), set()).add(letter.record.part)
    for letter in known:
        ahead = parts.get((letter.record.topic, letter.key), ())
        if any(concerns(letter.record.part, part) for part in ahead):
            yield letter


def _round(work: Replay, ledger: Ledger, wanted: Sequence[Letter]) -> list[Verdict]:
    held = held_back(ledger.open(), wanted)
    waiting = {verdict.letter.offset for verdict in held}
    for batch in batches(letter for letter in wanted if letter.offset not in waiting):
        held += work.replay(batch)
    return sorted(held, key=lambda verdict: verdict.letter.offset)


def _wanted(
    topic: LetterTopic,
    ledger: Ledger,
    names: Sequence[str] | None,
    chosen: Filter,
    decoder: Decoder,
) -> list[Letter]:
    known = ledger.open()
    if names:
        named = [_named(topic, ledger, name) for name in names]
        known = [letter for letter in named if letter.offset not in ledger.outcomes]
    return chosen.choose(known, _keys(decoder))


def _named(topic: LetterTopic, ledger: Ledger, name: str) -> Letter:
    offset = name.removeprefix(f"{topic.name}-0-")
    found = ledger.letters.get(int(offset)) if offset.isdecimal() else None
    if found is None:
        raise ConfigError(
            f"this sink has no letter {name}",
            hint=f"`cdc dead list` names them, as {topic.name}-0-12; the last number will do.",
        )
    return found


def _keys(decoder: Decoder) -> Callable[[Letter], Any]:
    return lambda letter: decoder.payload(letter.key)


def _summary(topic: LetterTopic, letter: Letter, decoder: Decoder) -> dict[str, Any]:
    return {
        "letter": f"{topic.name}-0-{letter.offset}",
        "topic": letter.record.topic,
        **_place(letter),
        "table": letter.table,
        "key": decoder.payload(letter.key),
        "error": letter.error,
        "reason": letter.reason,
        "at": datetime.fromtimestamp(letter.at_ms / 1000, UTC).isoformat(timespec="milliseconds"),
    }


def _place(letter: Letter) -> dict[str, Any]:
    """Return where the record is in its topic, or the row in its source's log."""
    if letter.stamp is None:
        return {"partition": letter.record.partition, "offset": letter.record.offset}
    incarnation, commit, ordinal, _ = letter.stamp
    return {"incarnation": incarnation, "commit": commit, "ordinal": ordinal}


def _row(one: dict[str, Any]) -> tuple[Any, ...]:
    key = "" if one["key"] is None else key_text(one["key"])
    place = one["offset"] if "offset" in one else f"{one['commit']}:{one['ordinal']}"
    return one["letter"], one["table"], key, place, one["at"][:19], _line(one["reason"])


def _sums(letters: Sequence[Letter]) -> list[dict[str, Any]]:
    counts = Counter((o.record.topic, _place(o).get("partition"), _line(o.reason)) for o in letters)
    return [
        {"topic": topic, "partition": partition, "reason": reason, "letters": count}
        for (topic, partition, reason), count in counts.most_common()
    ]


def _line(reason: str) -> str:
    """Return the first line of a reason: what follows is of the one row, as its values."""
    return reason.partition("\n")[0]


def _verdict(topic: LetterTopic, verdict: Verdict) -> dict[str, Any]:
    return {
        "letter": f"{topic.name}-0-{verdict.letter.offset}",
        "state": verdict.state,
        "reason": verdict.reason,
    }


def _tell(said: Sequence[dict[str, Any]], count: int, what: str) -> None:
    if said:
        rows = [(one["letter"], one["state"], _line(one["reason"])) for one in said]
        print_rows(("letter", "", "reason"), rows)
    print(f"{count} letters {what}")


def _hex(payload: bytes | None) -> str | None:
    return None if payload is None else payload.hex(" ")


def _cell(value: Any) -> str:
    if isinstance(value, dict | list):
        return orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode()
    return "" if value is None else str(value)
