"""`cdc demo`: the whole pipeline on real servers, watched live or proven once."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from cdc.demo.engines import ENGINES, Pair
from cdc.demo.once import TAMPER, as_json, run_once, show
from cdc.demo.stage import Stage

__all__ = ["demo"]

_LEAST = 20_000


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Bounded load, compare row by row, exit 0 if equal.")
    ] = False,
    changes: Annotated[
        int, typer.Option(min=100, help="Changes of the bounded load, at the least.")
    ] = _LEAST,
    tamper: Annotated[
        str, typer.Option(help=f"Spoil the target before comparing: {', '.join(TAMPER)}.")
    ] = "",
    pair: Annotated[
        str, typer.Option(help=f"Source and target, each one of {', '.join(ENGINES)}.")
    ] = "postgres:postgres",
    as_json_: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Run a shop, Kafka, a registry and two sinks on this machine, no Docker needed.

    Example: cdc demo --once --pair mariadb:postgres
    """
    engines = _pair(pair)
    if tamper and tamper not in TAMPER:
        raise typer.BadParameter(f"--tamper takes one of {', '.join(TAMPER)}")
    console = Console(stderr=as_json_)
    with tempfile.TemporaryDirectory(prefix="tailrace-demo-") as folder:
        with Stage(Path(folder), engines, console.print) as stage:
            if not once:
                from cdc.demo.view import watch  # noqa: PLC0415 - only the live view needs it

                watch(stage, console)
                return
            outcome = run_once(stage, changes, console, tamper)
        show(outcome, console)
        if as_json_:
            typer.echo(orjson.dumps(as_json(outcome), option=orjson.OPT_INDENT_2).decode())
        raise typer.Exit(0 if outcome.equal else 1)


def _pair(text: str) -> Pair:
    source, _, target = text.partition(":")
    if source not in ENGINES or target not in ENGINES:
        known = ", ".join(ENGINES)
        raise typer.BadParameter(f"--pair takes source:target, each one of {known}")
    return Pair(ENGINES[source], ENGINES[target])
