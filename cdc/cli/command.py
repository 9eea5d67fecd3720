"""`cdc pause`, `resume`, `restart`, `backfill`: requests to workers, from any machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cdc.cli.shared import DEFAULT_FILE, ConfigFile, Json, SourceArgument, outline_of, print_json
from cdc.control import ControlWriter

__all__ = ["backfill", "pause", "restart", "resume"]

UnitName = Annotated[
    str,
    typer.Argument(metavar="UNIT", help="`source/NAME` or `sink/NAME`; NAME if only one has it."),
]


def pause(unit: UnitName, config: ConfigFile = DEFAULT_FILE, json: Json = False) -> None:
    """Pause a source or sink until it is resumed, across restarts.

    A paused source holds no connection, and its database keeps the log: watch the retained bytes.

    Example: cdc pause sink/crm
    """
    _send(config, unit, "pause", json=json)


def resume(unit: UnitName, config: ConfigFile = DEFAULT_FILE, json: Json = False) -> None:
    """Let a paused source or sink go on where it stood.

    Example: cdc resume sink/crm
    """
    _send(config, unit, "resume", json=json)


def restart(unit: UnitName, config: ConfigFile = DEFAULT_FILE, json: Json = False) -> None:
    """Begin again from what is stored; `cdc run` also starts a worker that had stopped.

    Example: cdc restart source/shopdb
    """
    _send(config, unit, "restart", json=json)


def backfill(
    source: SourceArgument,
    table: Annotated[str, typer.Argument(help="`schema.table`")],
    where: Annotated[
        str, typer.Option("--where", help="SQL condition: only these rows.", metavar="SQL")
    ] = "",
    config: ConfigFile = DEFAULT_FILE,
    json: Json = False,
) -> None:
    """Read a table again, whole or in part, while the stream runs; `cdc status` shows progress.

    Example: cdc backfill shopdb public.orders --where "created_at > now() - interval '1 day'"
    """
    arguments = {"table": table, **({"where": where} if where else {})}
    _send(config, f"source/{source.removeprefix('source/')}", "backfill", arguments, json=json)


def _send(
    config: Path, unit: str, command: str, arguments: dict[str, Any] | None = None, *, json: bool
) -> None:
    pipeline = outline_of(config)
    address = pipeline.unit(unit).address
    identity = ControlWriter(pipeline.kafka, pipeline.name).send(address, command, arguments)
    if json:
        print_json({"unit": address, "command": command, "id": identity})
    else:
        print(f"asked {address} to {command}; `cdc status` shows when it does")
