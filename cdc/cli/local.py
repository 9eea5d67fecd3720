"""`cdc local`: a Kafka, a schema registry and databases that stay up for a person.

Exit codes: 0 done or running, 4 nothing is up (`status` and `logs`), else as for every command.
"""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from cdc.local import standing
from cdc.local.process import end_of_log

__all__ = ["app"]

NOT_UP = 4

app = typer.Typer(
    no_args_is_help=True,
    help="A local Kafka, schema registry and databases, without Docker, for as long as you like.",
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Server(StrEnum):
    """The servers of the stack."""

    KAFKA = "kafka"
    REGISTRY = "registry"
    POSTGRES = "postgres"
    MARIADB = "mariadb"


@app.command()
def up(
    postgres: Annotated[int, typer.Option(help="PostgreSQL version, 14 to 18.")] = 18,
    mariadb: Annotated[bool, typer.Option("--mariadb", help="A MariaDB 11.4 as well.")] = False,
    json: Json = False,
) -> None:
    """Start the stack, or say where it is; data of an earlier one is still there."""
    _show(standing.up(postgres, mariadb=mariadb), json=json)


@app.command()
def down(
    wipe: Annotated[bool, typer.Option("--wipe", help="Remove its data too.")] = False,
    json: Json = False,
) -> None:
    """Stop the stack; its data stays unless --wipe is given."""
    stopped = standing.down(wipe=wipe)
    if json:
        _print_json({"stopped": stopped, "wiped": wipe})
    else:
        print("The local stack is down." if stopped else "No local stack was up.")


@app.command()
def status(json: Json = False) -> None:
    """Print the addresses, ready to paste into a pipeline file; exit code 4 when nothing is up."""
    state = standing.status()
    if state is not None:
        _show(state, json=json)
        return
    if json:
        _print_json({"running": False})
    else:
        print("No local stack is up. Start one with: cdc local up")
    raise typer.Exit(NOT_UP)


@app.command()
def logs(
    server: Annotated[Server | None, typer.Argument(help="One server; all when left out.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Lines from the end.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    json: Json = False,
) -> None:
    """Print the end of the logs of the running stack, or of the last one."""
    paths = {one.value: standing.log_of(one.value) for one in ([server] if server else Server)}
    paths = {name: path for name, path in paths.items() if path.exists()}
    if not paths:
        print("There are no logs: no local stack was ever up.", file=sys.stderr)
        raise typer.Exit(NOT_UP)
    ends = {name: end_of_log(path, lines) for name, path in paths.items()}
    if json:
        _print_json({name: text.splitlines() for name, text in ends.items()})
        return
    for name, text in ends.items():
        print(f"── {name}: {paths[name]}\n{text}")
    if follow:
        _follow(paths)


def _follow(paths: dict[str, Path]) -> None:
    """Print what is appended to the logs until Ctrl-C."""
    files = {name: path.open(encoding="utf-8", errors="replace") for name, path in paths.items()}
    for file in files.values():
        file.seek(0, 2)
    try:
        while True:
            for name, file in files.items():
                for line in file:
                    print(f"{name:<8} │ {line}", end="", flush=True)
            time.sleep(0.2)
    except KeyboardInterrupt:
        return
    finally:
        for file in files.values():
            file.close()


def _show(state: standing.State, *, json: bool) -> None:
    if json:
        _print_json({"running": state.running, "pid": state.pid, **_servers(state)})
        return
    console = Console(highlight=False, soft_wrap=True, markup=False)
    for name, server in state.servers.items():
        word = "running" if server.running else "ended, see: cdc local logs " + name
        console.print(f"{name:<9} {word:<8} pid {server.pid}")
    kafka, registry = state.kafka.address, state.registry.address
    console.print("\n# for a pipeline file")
    console.print(f'kafka: {{bootstrap: "{kafka}", registry: "{registry}"}}')
    console.print(f'# PostgreSQL, as superuser\nurl: "{state.postgres.address}"')
    if state.mariadb is not None:
        console.print(f'# MariaDB, as root\nurl: "{state.mariadb.address}"')


def _servers(state: standing.State) -> dict[str, Any]:
    return {
        name: {
            "bootstrap" if name == "kafka" else "url": server.address,
            "running": server.running,
            "pid": server.pid,
            "log": server.log,
        }
        for name, server in state.servers.items()
    }


def _print_json(value: Any) -> None:
    print(orjson.dumps(value).decode())
