"""`cdc check`: every precondition of a pipeline, one line each, with what repairs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec
import typer
from rich.markup import escape
from rich.table import Table

from cdc.cli.mappings import mapping_findings
from cdc.cli.shared import DEFAULT_FILE, ConfigFile, Json, console, pipeline_of, print_json
from cdc.compacted import reach
from cdc.config import Pipeline, Unit
from cdc.connector import Finding
from cdc.errors import CdcError
from schemas.registry import Registry

__all__ = ["check", "findings"]

_FAILED = 3
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def check(
    units: Annotated[
        list[str] | None, typer.Argument(metavar="[UNIT]...", help="Only these; all when left out.")
    ] = None,
    config: ConfigFile = DEFAULT_FILE,
    json: Json = False,
) -> None:
    """Check the file, Kafka, the registry and every source and sink; change nothing.

    Exit code 0 when all is well or only warned of, 2 for a wrong file, 3 when something fails.

    Example: cdc check
    """
    pipeline = pipeline_of(config)
    chosen = [pipeline.unit(name) for name in units or pipeline.units()]
    found = [(place, finding) for place, finding in findings(pipeline, chosen)]
    failed = sum(finding.level == "fail" for _, finding in found)
    if json:
        rows = [{"unit": place, **msgspec.to_builtins(finding)} for place, finding in found]
        print_json({"pipeline": pipeline.name, "failed": failed, "findings": rows})
    else:
        _show(found, failed)
    if failed:
        raise typer.Exit(_FAILED)


def findings(pipeline: Pipeline, units: list[Unit]) -> Iterator[tuple[str, Finding]]:
    """Yield (place, finding): Kafka and registry first, then each unit's own."""
    yield "kafka", _kafka(pipeline)
    yield "registry", _registry(pipeline)
    for unit in units:
        for finding in _unit(unit):
            yield unit.address, finding
        if unit.kind == "target":
            for finding in mapping_findings(pipeline, unit):
                yield unit.address, finding


def _kafka(pipeline: Pipeline) -> Finding:
    bootstrap = pipeline.kafka.bootstrap
    try:
        topics = reach(pipeline.kafka, 5.0)
    except CdcError as error:
        return Finding("fail", bootstrap, str(error), error.hint)
    return Finding("ok", bootstrap, f"answers; {len(topics)} topics are visible")


def _registry(pipeline: Pipeline) -> Finding:
    config = pipeline.kafka.registry
    try:
        with Registry(config) as registry:
            registry.versions("tailrace-check")
    except CdcError as error:
        return Finding("fail", config.place, str(error), error.hint)
    return Finding("ok", config.place, "answers")


def _unit(unit: Unit) -> Iterator[Finding]:
    if not hasattr(unit.connector.module, "check"):
        yield Finding("warn", unit.connector.name, "this connector checks nothing")
        return
    try:
        yield from unit.connector.offer("check")(unit.context, unit.config)
    except CdcError as error:
        yield Finding("fail", unit.connector.name, str(error), error.hint)


def _show(found: list[tuple[str, Finding]], failed: int) -> None:
    table = Table("", "where", "what", "finding", box=None, pad_edge=False)
    for place, finding in found:
        colour = _COLOURS[finding.level]
        text = escape(finding.message)
        if finding.repair and finding.level != "ok":
            text += f"\n[bold]{escape(finding.repair)}[/]"
        table.add_row(f"[{colour}]{finding.level}[/]", place, escape(finding.subject), text)
    out = console()
    out.print(table)
    warned = sum(finding.level == "warn" for _, finding in found)
    out.print(f"{len(found)} checks, {failed} failed, {warned} warnings")
