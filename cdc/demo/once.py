"""The bounded run: load, wait until quiet, compare row by row, say it in one table."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cdc.demo.compare import Comparison, compare_shop
from cdc.demo.load import Load
from cdc.demo.stage import Stage
from cdc.demo.trace import Tracer, percentile

__all__ = ["TAMPER", "Outcome", "as_json", "run_once", "show"]

SETTLE_S = 120.0
_CALM_S = 4.0
_CALM_PER_S = 400

TAMPER: Mapping[str, str] = {
    "flip": "update orders set status = 'flipped' where id = (select min(id) from orders)",
    "remove": "delete from order_items where (order_id, line) ="
    " (select order_id, line from order_items order by 1, 2 limit 1)",
    "add": "insert into inventory (sku, on_hand, reserved) values ('NOT-IN-SHOP', 1, 0)",
}
"""One change to the mirror that the comparison must find, by name."""


class Outcome(msgspec.Struct):
    """What a bounded run did and found. Seconds and ms as named."""

    changes: dict[str, int]
    comparison: Comparison
    load_s: float
    settle_s: float
    latency_ms: dict[str, float]

    @property
    def equal(self) -> bool:
        """Whether both targets equal the source and every kind of change took place."""
        happened = all(self.changes.get(kind, 0) > 0 for kind in _KINDS)
        return happened and self.comparison.equal and all(self.comparison.rows.values())


_KINDS = ("insert", "update", "delete", "key change")


def run_once(stage: Stage, wanted: int, console: Console, tamper: str = "") -> Outcome:
    """Load at least `wanted` changes, settle, compare. `tamper` is a key of TAMPER, or empty.

    The load runs as fast as the source takes it, from the first second, while the snapshot is
    being taken; latency is measured afterwards, at an even pace.
    """
    engine, urls = stage.pair.source, stage.urls
    with engine.session(urls.source) as session:
        load = Load(engine, session, stage.random)
        started = time.monotonic()
        _drive(stage, load, wanted, console)
        loaded = time.monotonic() - started
        console.print("waiting until everything has arrived")
        settled = stage.settle(SETTLE_S)
        console.print(f"following single changes at {_CALM_PER_S} changes/s")
        times = _calm(stage, load)
    stage.settle(SETTLE_S)
    if tamper:
        with stage.pair.target.session(urls.mirror, autocommit=True) as mirror:
            mirror.execute(TAMPER[tamper])
    return Outcome(
        changes=dict(load.done),
        comparison=compare_shop(stage.pair, urls.source, urls.mirror, urls.crm),
        load_s=loaded,
        settle_s=settled,
        latency_ms={"p50": percentile(times, 0.5), "p99": percentile(times, 0.99)},
    )


def _calm(stage: Stage, load: Load) -> list[float]:
    """Keep an even pace for a while and return the followed changes' latencies, ms."""
    tracer = Tracer(stage)
    tracer.start()
    due = started = time.monotonic()
    while time.monotonic() - started < _CALM_S and tracer.failure is None:
        before = load.changes
        load.act()
        due += (load.changes - before) / _CALM_PER_S
        time.sleep(max(0.0, due - time.monotonic()))
    tracer.end()
    if tracer.failure is not None:
        raise tracer.failure
    return [trace.in_target_ms for trace in tracer.traces]


def _drive(stage: Stage, load: Load, wanted: int, console: Console) -> None:
    columns = (TextColumn("keeping the shop busy"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("", total=wanted)
        while load.changes < wanted or not all(load.done[kind] for kind in _KINDS):
            load.act()
            progress.update(task, completed=min(load.changes, wanted))
            if load.changes % 500 < 5:
                stage.check()


def show(outcome: Outcome, console: Console) -> None:
    """Print what was done, what was compared, and every difference by name."""
    table = Table(title="Source and targets, row by row", title_justify="left")
    table.add_column("what")
    table.add_column("count", justify="right")
    for kind in _KINDS:
        table.add_row(f"{kind}s", f"{outcome.changes.get(kind, 0):,}")
    for name, rows in outcome.comparison.rows.items():
        table.add_row(f"rows compared in {name}", f"{rows:,}")
    table.add_row("differences", f"{outcome.comparison.different:,}")
    console.print(table)
    total = sum(outcome.changes.values())
    console.print(
        f"{total:,} changes; the load took {outcome.load_s:.1f} s, everything had arrived "
        f"{outcome.settle_s:.1f} s after it\n"
        f"commit to visible in the target at {_CALM_PER_S} changes/s: p50 "
        f"{outcome.latency_ms['p50']:.0f} ms, p99 {outcome.latency_ms['p99']:.0f} ms"
    )
    for found in outcome.comparison.differences:
        console.print(f"[red]different[/red] {found.table} {found.key}: {found.problem}")
    hidden = outcome.comparison.different - len(outcome.comparison.differences)
    if hidden:
        console.print(f"… and {hidden:,} more")
    verdict = "[green]equal[/green]" if outcome.equal else "[red]not equal[/red]"
    console.print(f"source and targets are {verdict}")


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Return the outcome for `--json`."""
    return {
        "equal": outcome.equal,
        "changes": outcome.changes,
        "rows_compared": outcome.comparison.rows,
        "different": outcome.comparison.different,
        "differences": [msgspec.structs.asdict(d) for d in outcome.comparison.differences],
        "load_s": round(outcome.load_s, 3),
        "settle_s": round(outcome.settle_s, 3),
        "latency_ms": outcome.latency_ms,
    }
