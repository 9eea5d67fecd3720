"""What several commands share: the options every command has, loading the pipeline, printing."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cdc.config import Pipeline, load_outline, load_pipeline
from cdc.errors import ConfigError

__all__ = [
    "ConfigFile",
    "Json",
    "SinkArgument",
    "SourceArgument",
    "Yes",
    "console",
    "moment_ms",
    "outline_of",
    "pipeline_of",
    "print_json",
    "print_rows",
]

ConfigFile = Annotated[
    Path,
    typer.Option("-c", "--config", envvar="CDC_CONFIG", metavar="FILE", help="Pipeline file."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SinkArgument = Annotated[str, typer.Argument(metavar="SINK", help="A name under `sinks:`.")]
SourceArgument = Annotated[str, typer.Argument(metavar="SOURCE", help="A name under `sources:`.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would be done.")]

DEFAULT_FILE = Path("tailrace.yaml")


def pipeline_of(config: Path, only: str = "") -> Pipeline:
    """Return the pipeline in the file, with `only` of one unit. Raises `errors.ConfigError`."""
    return load_pipeline(config, only=only)


def outline_of(config: Path) -> Pipeline:
    """Return the pipeline for commands that need nothing but Kafka and the registry."""
    return load_outline(config)


def moment_ms(option: str, text: str, others: str = "") -> int:
    """Return a time as ms since 1970; one without a zone is UTC.

    Raises `errors.ConfigError`; `others` says what else the option takes.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{option} {text}: neither a time nor anything else it takes",
            hint=f"{others}a time as 2026-01-31T08:00+01:00",
        ) from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def console() -> Console:
    """Return a console on standard output, wide enough not to cut cells when piped."""
    made = Console(highlight=False)
    if not sys.stdout.isatty():
        made.width = 200
    return made


def print_json(value: Any) -> None:
    """Print `value` as JSON: indented for a person, one line for a program."""
    option = orjson.OPT_INDENT_2 if sys.stdout.isatty() else 0
    print(orjson.dumps(value, option=option, default=str).decode())


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Print a table; empty cells for None."""
    table = Table(*columns, title=title or None, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*("" if cell is None else escape(str(cell)) for cell in row))
    console().print(table)
