"""`cdc position`: where a source stands, and what an operator may do about it.

Writing takes the source's transactional id, as the source itself does: whoever runs it is fenced.
A source that is alive is therefore refused, unless it is paused or stopped first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import orjson
import typer

from cdc.cli.adopt import adopted
from cdc.cli.shared import (
    DEFAULT_FILE,
    ConfigFile,
    Json,
    SourceArgument,
    Yes,
    outline_of,
    pipeline_of,
    print_json,
    print_rows,
)
from cdc.cli.source import refuse_live
from cdc.config import Pipeline, Unit
from cdc.errors import ConfigError
from cdc.override import overwrite
from cdc.positions import PositionsTopic, Stored
from schemas.change import Stamp

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Show, set, reset, adopt or take over a position.")


@app.command()
def show(source: SourceArgument, config: ConfigFile = DEFAULT_FILE, json: Json = False) -> None:
    """Show what is stored of a source: its position and everything that commits with it.

    Example: cdc position show shopdb
    """
    pipeline = outline_of(config)
    unit = pipeline.unit(f"source/{source}")
    stored = PositionsTopic(pipeline.kafka, pipeline.name).read(unit.context.name)
    if json:
        print_json(_as_json(source, stored))
        return
    if stored.position is None:
        print(f"{source} has no position: its next start takes a snapshot")
    rows = [("position", name, value) for name, value in (stored.position or {}).items()]
    rows += [("progress", key, orjson.dumps(v).decode()) for key, v in stored.progress.items()]
    print_rows(("", "name", "value"), rows)


@app.command("set")
def set_(
    source: SourceArgument,
    position: Annotated[str, typer.Argument(metavar="JSON", help="As `show --json` prints it.")],
    yes: Yes = False,
    config: ConfigFile = DEFAULT_FILE,
    json: Json = False,
) -> None:
    """Store another position: events behind it come again, or are left out.

    Example: cdc position set shopdb "$(cdc position show shopdb --json | jq .position)" --yes
    """
    pipeline, unit = _source(config, source)
    wanted = _object(position)
    _ready(pipeline, unit)
    topic = PositionsTopic(pipeline.kafka, pipeline.name)
    stored = topic.read(unit.context.name)
    _refuse_foreign(wanted, stored)
    boundary = _boundary(wanted, stored)
    if yes:
        overwrite(pipeline.kafka, pipeline.name, source, Stored(wanted, boundary, {}))
    _told(source, "set", [], done=yes, as_json=json)


@app.command()
def reset(
    source: SourceArgument, yes: Yes = False, config: ConfigFile = DEFAULT_FILE, json: Json = False
) -> None:
    """Forget position and progress, and drop the slot: the next start takes a new snapshot.

    Tables that lost rows meanwhile keep them in the targets: truncate there, or rewind the sinks.

    Example: cdc position reset shopdb --yes
    """
    pipeline, unit = _source(config, source)
    _ready(pipeline, unit)
    stored = PositionsTopic(pipeline.kafka, pipeline.name).read(unit.context.name)
    dropped: list[str] = []
    if hasattr(unit.connector.module, "drop"):
        left = unit.connector.offer("drop")
        dropped = list(left(unit.context, unit.config, dry_run=not yes))
    if yes:
        gone: dict[str, Any] = dict.fromkeys(stored.progress)
        overwrite(pipeline.kafka, pipeline.name, source, Stored(None, None, gone))
    _told(source, "reset", dropped, done=yes, as_json=json)


@app.command()
def adopt(
    source: SourceArgument, yes: Yes = False, config: ConfigFile = DEFAULT_FILE, json: Json = False
) -> None:
    """Let every sink go on with a source whose incarnation it does not know.

    After a slot or a server was made anew, records carry another incarnation, and sinks stop
    rather than guess. Adopting forgets what they last applied of this source; they go on at their
    offsets. Do it when you know that nothing is missing, or have taken a new snapshot.

    Example: cdc position adopt shopdb --yes
    """
    pipeline, unit = _source(config, source)
    moved = adopted(pipeline, unit.context.name, dry_run=not yes)
    if json:
        print_json({"source": source, "done": yes, "cursors": moved})
        return
    print_rows(("sink", "topic", "partition", "offset"), [list(row.values()) for row in moved])
    verb = "adopted" if yes else "would be adopted; add --yes"
    print(f"{len(moved)} cursors {verb}")


@app.command("take-over")
def take_over(
    source: SourceArgument,
    offset: Annotated[Path, typer.Argument(metavar="FILE", help="What Debezium stored.")],
    yes: Yes = False,
    config: ConfigFile = DEFAULT_FILE,
    json: Json = False,
) -> None:
    """Begin where a Debezium connector stopped, on its slot, without a snapshot or a loss.

    The connector must be stopped, not deleted. cdc/postgres/debezium.md has every step.

    Example: cdc position take-over shopdb offsets.json --yes
    """
    pipeline, unit = _source(config, source)
    _ready(pipeline, unit)
    stored = PositionsTopic(pipeline.kafka, pipeline.name).read(unit.context.name)
    if stored.position is not None:
        raise ConfigError(
            f"{source} has a position of its own",
            hint=f"`cdc position show {source}` prints it. Give the source another name.",
        )
    begin = unit.connector.offer("take_over")
    position = begin(unit.context, unit.config, _bytes_of(offset))
    if yes:
        boundary = _boundary(position, stored)
        overwrite(pipeline.kafka, pipeline.name, source, Stored(position, boundary, {}))
    if json:
        print_json({"source": source, "done": yes, "position": position})
        return
    print_rows(("name", "value"), position.items())
    _told(source, "taken over", [], done=yes, as_json=False)


def _bytes_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error


def _source(config: Any, name: str) -> tuple[Pipeline, Unit]:
    pipeline = pipeline_of(config)
    return pipeline, pipeline.unit(f"source/{name}")


def _ready(pipeline: Pipeline, unit: Unit) -> None:
    """Refuse while the source is at work."""
    refuse_live(pipeline, unit)


def _object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"the position is not a JSON object: {error}",
            hint="`cdc position show SOURCE --json` prints one under `position`.",
        ) from error


def _refuse_foreign(wanted: dict[str, Any], stored: Stored) -> None:
    """Refuse a position that is not of the form of the stored one: its source could not open it."""
    if stored.position is None:
        return
    odd = sorted(wanted.keys() ^ stored.position.keys())
    if odd:
        raise ConfigError(
            f"the position differs from the stored one in the fields {', '.join(odd)}",
            hint="Change values alone: `cdc position show SOURCE --json` prints the stored one.",
        )


def _boundary(position: dict[str, Any], stored: Stored) -> Stamp:
    """Return the boundary of a new position: its own place, at most what was stored.

    Sinks cut there (R12): everything up to it is in Kafka, so it may go back, never ahead.
    """
    known = stored.boundary or Stamp(0, 0)
    incarnation = position.get("incarnation", known.incarnation)
    commit = position.get("complete", position.get("commit", known.commit))
    return min(known, Stamp(incarnation, commit)) if stored.boundary else Stamp(incarnation, commit)


def _as_json(source: str, stored: Stored) -> dict[str, Any]:
    return {
        "source": source,
        "position": stored.position,
        "boundary": stored.boundary,
        "ts_ms": stored.ts_ms,
        "progress": stored.progress,
    }


def _told(source: str, what: str, dropped: list[str], *, done: bool, as_json: bool) -> None:
    if as_json:
        print_json({"source": source, "done": done, "action": what, "dropped": dropped})
        return
    for line in dropped:
        print(f"{'dropped' if done else 'would drop'}: {line}")
    if done:
        print(f"position of {source}: {what}")
    else:
        print(f"position of {source} would be {what}; add --yes to do it")
