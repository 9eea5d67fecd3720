"""`cdc status`: how every worker of a pipeline stands, from any machine that reaches Kafka."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import typer
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from cdc.cli.shared import DEFAULT_FILE, ConfigFile, Json, console, outline_of, print_json
from cdc.config import Pipeline
from cdc.status import Heartbeat, StatusReader
from cdc.supervisor import seats_of

__all__ = ["status"]

_WATCH_S = 1.0
_UNHEALTHY = 3
_GOOD = ("streaming", "snapshot", "running", "paused", "stopped")
_STEPS = (("s", 1), ("min", 60), ("h", 3600), ("d", 86_400))


def status(
    config: ConfigFile = DEFAULT_FILE,
    json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Show how every worker stands; exit code 3 when one has failed or is silent.

    Example: cdc status --watch
    """
    pipeline = outline_of(config)
    reader = StatusReader(pipeline.kafka, pipeline.name)
    try:
        if watch:
            _watch(pipeline, reader, as_json=json)
            return
        found = _complete(pipeline, reader.read())
    finally:
        reader.close()
    if json:
        print_json(_as_json(pipeline, found))
    else:
        console().print(_table(pipeline, found))
    if not all(_is_well(beat) for beat in found.values()):
        raise typer.Exit(_UNHEALTHY)


def _watch(pipeline: Pipeline, reader: StatusReader, *, as_json: bool) -> None:
    if as_json:
        while True:
            print_json(_as_json(pipeline, _complete(pipeline, reader.read())))
            time.sleep(_WATCH_S)
    with Live(console=console(), auto_refresh=False) as live:
        while True:
            live.update(_table(pipeline, _complete(pipeline, reader.read())), refresh=True)
            time.sleep(_WATCH_S)


def _complete(pipeline: Pipeline, found: Mapping[str, Heartbeat]) -> dict[str, Heartbeat]:
    """Return the workers the file asks for, "absent" where none ever ran, and others that live.

    What is left of a unit that was removed, or of workers a sink no longer has, is passed over.
    """
    seats = [seat.name for seat in seats_of(pipeline)]
    wanted = {name: found.get(name, Heartbeat(name, "absent")) for name in seats}
    others = {key: beat for key, beat in found.items() if key not in wanted and beat.is_live()}
    return {**wanted, **others}


def shown_state(heartbeat: Heartbeat) -> str:
    """Return the state; "silent" when the heartbeat is old though it did not end."""
    if heartbeat.state in {"stopped", "failed", "absent", "unreadable"} or heartbeat.is_live():
        return heartbeat.state
    return "silent"


def _is_well(heartbeat: Heartbeat) -> bool:
    return shown_state(heartbeat) not in {"failed", "silent", "unreadable"}


def _as_json(pipeline: Pipeline, found: Mapping[str, Heartbeat]) -> dict[str, Any]:
    workers = {
        key: {**msgspec.to_builtins(beat), "state": shown_state(beat), "age_s": _age(beat)}
        for key, beat in found.items()
    }
    return {"pipeline": pipeline.name, "workers": workers}


def _age(heartbeat: Heartbeat) -> float | None:
    return round(heartbeat.age_s(), 1) if heartbeat.ts_ms else None


def _table(pipeline: Pipeline, found: Mapping[str, Heartbeat]) -> Table:
    table = Table(title=f"pipeline {pipeline.name}", title_justify="left", box=None, pad_edge=False)
    for name in ("unit", "state", "rows/s", "rows", "lag", "log kept", "dead", "host", ""):
        table.add_column(name, justify="right" if name in {"rows/s", "rows"} else "left")
    for key, beat in found.items():
        state = shown_state(beat)
        colour = "green" if state in _GOOD else "yellow"
        colour = "red" if state in {"failed", "silent"} else colour
        table.add_row(
            key,
            f"[{colour}]{state}[/]",
            f"{beat.rows_per_second:,.0f}",
            f"{beat.rows:,}",
            _lag(beat),
            _size(beat.retained_bytes),
            str(beat.dead_letters or ""),
            f"{beat.host}:{beat.pid}" if beat.pid else "",
            escape(_remark(beat, state)),
        )
    return table


def _remark(beat: Heartbeat, state: str) -> str:
    parts = [f"{table} {done:,} of ~{rows:,}" for table, (done, rows) in beat.snapshots.items()]
    if state == "silent":
        parts.append(f"last heard of {_time(beat.age_s())} ago as {beat.state}")
    parts += filter(None, (beat.waiting, beat.error, beat.hint))
    return "; ".join(" ".join(part.split()) for part in parts)


def _lag(beat: Heartbeat) -> str:
    parts = (
        _time(beat.lag_seconds) if beat.lag_seconds is not None else "",
        f"{beat.lag_rows:,} rows" if beat.lag_rows is not None else "",
        _size(beat.lag_bytes),
    )
    return " ".join(filter(None, parts))


def _size(size: int | None) -> str:
    if size is None:
        return ""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}"
        size //= 1024
    return f"{size:,} TiB"


def _time(seconds: float) -> str:
    unit, length = next((u, n) for u, n in reversed(_STEPS) if seconds >= n or n == 1)
    return f"{seconds / length:.1f} {unit}"
