"""`cdc`: which commands there are, where each of them lives, and how it ends.

A command's module is imported when the command is used, not when it is listed: `cdc --help` needs
nothing but this file. `COMMANDS` is the one table; a test holds it against the modules.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

from cdc.cli.failure import fail
from cdc.cli.intruder import check_packages

__all__ = ["COMMANDS", "Listed", "app", "command", "main"]

_INTERRUPTED = 130
_BROKEN_PIPE = 141
_COMPLETION = ("install_completion", "show_completion")
"""Options of the root alone; typer gives them to every app."""


class Listed(NamedTuple):
    """A command as the list shows it: where it lives ("module:name"), its panel, its line."""

    path: str
    panel: str
    line: str


_FIRST, _RUN, _LOOK, _CHANGE = "Begin", "Run", "Look", "Change"

COMMANDS: dict[str, Listed] = {
    "demo": Listed(
        "cdc.cli.demo:demo",
        _FIRST,
        "Run a shop, Kafka, a registry and two sinks on this machine, no Docker needed.",
    ),
    "init": Listed("cdc.cli.init:init", _FIRST, "Write a pipeline file for a database."),
    "check": Listed("cdc.cli.check:check", _FIRST, "Check every precondition; say what repairs."),
    "local": Listed(
        "cdc.cli.local:app",
        _FIRST,
        "A local Kafka, schema registry and PostgreSQL, without Docker, for as long as you like.",
    ),
    "doctor": Listed("cdc.cli.doctor:doctor", _FIRST, "Say what this installation can do."),
    "run": Listed("cdc.cli.run:run", _RUN, "Run every source and sink; restart what fails."),
    "source": Listed("cdc.cli.source:source", _RUN, "Run one source in this process."),
    "sink": Listed("cdc.cli.sink:app", _RUN, "Run one sink in this process, or rewind it."),
    "status": Listed("cdc.cli.status:status", _LOOK, "Show how every worker stands."),
    "tail": Listed("cdc.cli.tail:tail", _LOOK, "Print the records of a topic, decoded."),
    "schema": Listed(
        "cdc.cli.schema:app", _LOOK, "Show schemas, compare them, or check a migration."
    ),
    "map": Listed("cdc.cli.map:app", _LOOK, "Try what a mapping makes of records: before, after."),
    "verify": Listed(
        "cdc.cli.verify:verify", _LOOK, "Compare a sink's tables with the source, while both run."
    ),
    "connectors": Listed(
        "cdc.cli.connectors:connectors", _LOOK, "List the connectors, or the options of one."
    ),
    "pause": Listed("cdc.cli.command:pause", _CHANGE, "Pause a source or sink until resumed."),
    "resume": Listed("cdc.cli.command:resume", _CHANGE, "Let a paused source or sink go on."),
    "restart": Listed("cdc.cli.command:restart", _CHANGE, "Start a source or sink again."),
    "backfill": Listed(
        "cdc.cli.command:backfill", _CHANGE, "Read a table again, whole or in part, while running."
    ),
    "position": Listed(
        "cdc.cli.position:app", _CHANGE, "Show, set, reset, adopt or take over a position."
    ),
    "dead": Listed("cdc.cli.dead:app", _CHANGE, "List, show, replay or drop dead letters."),
    "drop": Listed(
        "cdc.cli.drop:drop", _CHANGE, "Remove what a pipeline left behind; first only say what."
    ),
}


def command(name: str) -> Any:
    """Return the command behind `name`, importing its module."""
    module, _, attribute = COMMANDS[name].path.partition(":")
    found = getattr(import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        single = typer.Typer(add_completion=False)
        single.command(name)(found)
        found = single
    made: Any = typer.main.get_command(found)
    made.name = name
    made.params = [param for param in made.params if param.name not in _COMPLETION]
    return made


class _Lazy(TyperGroup):
    """Lists stand-ins, and puts the real command in their place when one is chosen."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, found, rest = super().resolve_command(ctx, args)
        return name, command(name) if name in COMMANDS else found, rest


app = typer.Typer(
    cls=_Lazy,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _stand_in() -> None:
    """Never called: `_Lazy` puts the real command in its place."""


for _name, _listed in COMMANDS.items():
    app.command(_name, help=_listed.line, rich_help_panel=_listed.panel)(_stand_in)


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version  # noqa: PLC0415 - slow, and rarely asked for

        print(f"tailrace {version('tailrace')}")
        raise typer.Exit


@app.callback()
def _root(
    config: Annotated[
        str | None,
        typer.Option("-c", "--config", metavar="FILE", help="Pipeline file for every command."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="And end.")
    ] = False,
) -> None:
    """Tailrace: change data capture into Kafka and out of it again, exactly once.

    Exit codes: 0 done · 1 a difference or data error · 2 wrong command line or pipeline file ·
    3 stopped, an operator must decide · 4 something is away · 5 another worker owns it ·
    6 source and target differ (`cdc verify`).
    """
    if config is not None:
        os.environ["CDC_CONFIG"] = config
    if debug:
        os.environ["CDC_DEBUG"] = "1"


def main(arguments: list[str] | None = None) -> None:
    """Run `cdc` and end the process with its exit code."""
    sys.exit(_run(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: list[str]) -> int:
    try:
        check_packages()
        group: Any = typer.main.get_command(app)
        code = group.main(arguments, prog_name="cdc", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the one place where anything becomes one line
        return fail(error, as_json="--json" in arguments)
    return code if isinstance(code, int) else 0
