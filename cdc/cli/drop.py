"""`cdc drop`: remove what a pipeline leaves behind; an abandoned slot fills the disk of its server.

Without --yes it only says what would go. Targets' rows and data topics stay unless asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import typer
from confluent_kafka import KafkaError, KafkaException

from cdc.cli.shared import DEFAULT_FILE, ConfigFile, Json, Yes, pipeline_of, print_json
from cdc.compacted import reach
from cdc.config import Pipeline, Unit
from cdc.errors import CdcError, ConfigError, Fenced
from cdc.kafka import DEADLINE_S, admin_client, kafka_error
from cdc.override import overwrite
from cdc.positions import PositionsTopic, Stored
from cdc.status import StatusReader

__all__ = ["drop"]

_INTERNAL = ("positions", "control", "status", "cursors")
_GONE = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.GROUP_ID_NOT_FOUND,
        KafkaError.NON_EMPTY_GROUP,
    }
)
"""What is not there any more, or lives on because somebody uses it, is no failure."""


def drop(
    units: Annotated[
        list[str] | None,
        typer.Argument(metavar="[UNIT]...", help="Only these; the whole pipeline when left out."),
    ] = None,
    yes: Yes = False,
    topics: Annotated[
        bool, typer.Option("--topics", help="Data topics and dead letters too.")
    ] = False,
    config: ConfigFile = DEFAULT_FILE,
    json: Json = False,
) -> None:
    """Remove slots, publications, cursors and internal topics. Workers must be stopped first.

    Example: cdc drop source/shopdb --yes
    """
    pipeline = pipeline_of(config)
    chosen = [pipeline.unit(name) for name in units or pipeline.units()]
    _refuse_live(pipeline, chosen)
    said = list(_connectors(chosen, dry_run=not yes))
    if units:
        said += _states(pipeline, chosen, dry_run=not yes)
    else:
        said += _kafka(pipeline, topics=topics, dry_run=not yes)
    if json:
        print_json({"done": yes, "dropped": said})
        return
    for line in said:
        print(f"{'dropped' if yes else 'would drop'}: {line}")
    if not yes:
        print("nothing was touched; add --yes to do it")


def _refuse_live(pipeline: Pipeline, units: Sequence[Unit]) -> None:
    reader = StatusReader(pipeline.kafka, pipeline.name)
    try:
        for unit in units:
            owner = reader.live_owner(unit.address)
            if owner is not None:
                raise Fenced(
                    f"{unit.address} is alive as process {owner.pid} on {owner.host}",
                    hint="Stop its worker first.",
                )
    finally:
        reader.close()


def _connectors(units: Sequence[Unit], *, dry_run: bool) -> Iterator[str]:
    """Let each connector drop what it left outside Kafka; one that fails does not hold others."""
    failed: CdcError | None = None
    for unit in units:
        if not hasattr(unit.connector.module, "drop"):
            continue
        try:
            for line in unit.connector.offer("drop")(unit.context, unit.config, dry_run=dry_run):
                yield f"{unit.address}: {line}"
        except CdcError as error:
            failed = failed or error
    if failed is not None:
        raise failed


def _states(pipeline: Pipeline, units: Sequence[Unit], *, dry_run: bool) -> list[str]:
    """Forget the positions of single sources, in a topic that others go on using."""
    out = []
    for unit in units:
        if unit.kind != "source":
            continue
        name = unit.context.name
        stored = PositionsTopic(pipeline.kafka, pipeline.name).read(name)
        if stored.position is None and not stored.progress:
            continue
        out.append(f"{unit.address}: position and {len(stored.progress)} progress records")
        if not dry_run:
            gone: dict[str, Any] = dict.fromkeys(stored.progress)
            overwrite(pipeline.kafka, pipeline.name, name, Stored(None, None, gone))
    return out


def _kafka(pipeline: Pipeline, *, topics: bool, dry_run: bool) -> list[str]:
    """Delete the pipeline's topics and groups; return what they were."""
    wanted = {f"{pipeline.name}.{name}" for name in _INTERNAL}
    there = reach(pipeline.kafka, DEADLINE_S)
    if topics:
        wanted |= {f"{pipeline.name}.dead", f"{pipeline.name}.quarantine"}
        prefixes = tuple(f"{source}." for source in pipeline.sources)
        wanted |= {name for name in there if prefixes and name.startswith(prefixes)}
    found = sorted(wanted & there.keys())
    admin = admin_client(pipeline.kafka)
    groups = [f"{pipeline.name}.supervisors"]
    groups += [f"{pipeline.name}.sink.{name}" for name in pipeline.sinks]
    if not dry_run:
        if found:
            _settle(lambda: admin.delete_topics(found), "deleting topics")
        _settle(lambda: admin.delete_consumer_groups(groups), "deleting groups")
    return [*(f"topic {name}" for name in found), *(f"consumer group {name}" for name in groups)]


def _settle(start: Callable[[], dict[str, Any]], doing: str) -> None:
    try:
        for future in start().values():
            _one(future)
    except KafkaException as error:
        raise kafka_error(error, doing) from error
    except TimeoutError as error:
        raise ConfigError(f"{doing}: no answer in {DEADLINE_S:.0f} s") from error


def _one(future: Any) -> None:
    try:
        future.result(DEADLINE_S)
    except KafkaException as error:
        if error.args[0].code() not in _GONE:
            raise
