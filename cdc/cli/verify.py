"""`cdc verify`: does the target hold what the source does, while both go on?"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cdc.cli.shared import (
    DEFAULT_FILE,
    ConfigFile,
    Json,
    pipeline_of,
    print_json,
    print_rows,
)
from cdc.cli.verifying import NAMED, Outcome, Tell, Verification
from cdc.errors import ConfigError

__all__ = ["DIFFERENT", "verify"]

DIFFERENT = 6
"""Exit code: source and target differ, and it is no lag."""

_REFUSED, _UNKNOWN = 2, 4
_COUNTS = ("rows", "target_rows", "missing", "extra", "different", "late", "moving", "repaired")


def verify(
    between: Annotated[
        tuple[str, str],
        typer.Argument(metavar="SOURCE SINK", help="A name under `sources:`, one under `sinks:`."),
    ],
    table: Annotated[
        list[str] | None,
        typer.Option("--table", metavar="GLOB", help="Only these: globs over `schema.table`."),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Read lost rows again; delete what is too much.")
    ] = False,
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait for the sink, at most.")
    ] = 60.0,
    config: ConfigFile = DEFAULT_FILE,
    json: Json = False,
) -> None:
    """Compare every row of a source with a sink's tables, through its mapping, while both run.

    A row that differs is looked at again once the sink has come to where it was seen: what was only
    late is no difference. Exit code 0 when all are equal (or repaired), 6 when rows differ, 4 when
    that cannot be told because a worker does not get on, 2 when nothing could be compared.

    Example: cdc verify shopdb crm --table 'public.orders' --repair
    """
    pipeline = pipeline_of(config)
    source, sink = between
    units = pipeline.unit(f"source/{source}"), pipeline.unit(f"sink/{sink}")
    with closing(Verification(pipeline, *units, wait)) as work, _progress(quiet=json) as tell:
        outcomes = list(work.run(table or [], tell, repair=repair))
    if not outcomes:
        raise ConfigError(f"sink {sink} takes no table of {source} that --table names")
    code = _code(outcomes, named=bool(table))
    if json:
        told = [msgspec.to_builtins(outcome) for outcome in outcomes]
        print_json({"source": source, "sink": sink, "equal": code == 0, "tables": told})
    else:
        _show(outcomes)
    if code:
        raise typer.Exit(code)


def _code(outcomes: list[Outcome], *, named: bool) -> int:
    states = [outcome.state for outcome in outcomes]
    if "differs" in states:
        return DIFFERENT
    if "unknown" in states:
        return _UNKNOWN
    refused = states.count("refused")
    return _REFUSED if refused and (named or refused == len(states)) else 0


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Tell]:
    """Show a bar on standard error for a person."""
    console = Console(stderr=True)
    if quiet or not sys.stderr.isatty():
        yield lambda _table, _done, _total: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of about {task.total:,.0f} rows"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        tasks = {}

        def tell(table: str, done: int, total: int) -> None:
            if table not in tasks:
                tasks[table] = bar.add_task(table)
            bar.update(tasks[table], completed=done, total=total)

        yield tell


def _show(outcomes: list[Outcome]) -> None:
    names = ("table", "target", *(name.replace("_", " ") for name in _COUNTS), "s", "")
    rows = [
        [o.source, o.target, *(f"{getattr(o, name):,}" for name in _COUNTS), o.seconds, o.state]
        for o in outcomes
    ]
    print_rows(names, rows)
    for outcome in outcomes:
        if outcome.reason:
            print(f"\n{outcome.source} {outcome.state}: {outcome.reason}")
            if outcome.hint:
                print(f"  hint: {outcome.hint}")
        if outcome.differences:
            _show_differences(outcome)


def _show_differences(outcome: Outcome) -> None:
    print(f"\n{outcome.source} → {outcome.target}")
    for shown in outcome.differences:
        key = ", ".join(f"{name}={cell}" for name, cell in shown.key.items())
        said = "; ".join(
            f"{name}: source {ours!r}, target {theirs!r}"
            for name, (ours, theirs) in shown.columns.items()
        )
        print(f"  {shown.kind}  {key}  {said or shown.reason}".rstrip())
    if outcome.lost > NAMED:
        print(f"  … and {outcome.lost - NAMED:,} more")
