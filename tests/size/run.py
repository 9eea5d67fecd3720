"""`make size`: one huge transaction, gigabytes of foreign log, 10,000 tables; each with its bar.

    python tests/size/run.py                       everything, about ten minutes
    python tests/size/run.py tables --scale 0.1    one of them, a tenth of the size

Prints what was measured beside what it must be, writes `build/size.json`, and exits 1 when a bar
is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from rich.console import Console
from rich.table import Table

from cdc.local import LocalStack
from size.measures import foreign_log, large_transaction, many_tables
from size.worker import Place

OUT = Path("build/size.json")


class Bar(NamedTuple):
    """One figure and what it must be."""

    what: str
    seen: float
    must: str
    held: bool


def at_most(what: str, seen: float, most: float) -> Bar:
    return Bar(what, seen, f"≤ {most:g}", seen <= most)


def exactly(what: str, seen: float, wanted: float) -> Bar:
    return Bar(what, seen, f"= {wanted:g}", seen == wanted)


def transaction(place: Place, scale: float) -> tuple[Any, list[Bar]]:
    rows = int(2_000_000 * scale)
    seen = large_transaction(place, rows, 512)
    name = f"one transaction, {rows:,} rows, {seen.mib:,.0f} MiB"
    inside = 0 < seen.written_at_kill < rows
    return seen, [
        at_most(f"{name}: peak memory, MB", seen.peak_mb, 300),
        Bar(
            "spilled before its commit, MB",
            seen.spilled_before_commit / 1e6,
            "> 0",
            seen.spilled_before_commit > 0,
        ),
        exactly("rows in Kafka before its commit", seen.written_before_commit, 0),
        Bar("rows in Kafka at SIGKILL", seen.written_at_kill, "inside", inside),
        exactly(f"rows lost, repeated or aborted {seen.wrong}", float(bool(seen.wrong)), 0),
    ]


def log(place: Place, scale: float) -> tuple[Any, list[Bar]]:
    seen = foreign_log(place, int(2048 * scale), 20.0, 64.0)
    name = f"{seen.mib:,.0f} MiB of foreign log at {seen.rate:.0f} MiB/s"
    return seen, [
        at_most(f"{name}: unconfirmed, MiB, any of {seen.samples}", seen.most_unconfirmed, 64),
        at_most("seconds after its end to ≤ 64 MiB kept", seen.settled_s, 30),
        at_most("peak memory, MB", seen.peak_mb, 150),
    ]


def tables(place: Place, scale: float) -> tuple[Any, list[Bar]]:
    count = int(10_000 * scale)
    seen = many_tables(place, count)
    return seen, [
        at_most(f"{count:,} tables: first change in Kafka after, s", seen.start_s, 60),
        at_most("the same after a restart, s", seen.restart_s, 60),
        at_most("peak memory, MB", seen.peak_mb, 300),
    ]


MEASURES: dict[str, Callable[[Place, float], tuple[Any, list[Bar]]]] = {
    "transaction": transaction,
    "log": log,
    "tables": tables,
}


def measured(names: list[str], scale: float) -> Iterator[tuple[str, Any, list[Bar]]]:
    """Measure one after the other, each on a database of its own."""
    with tempfile.TemporaryDirectory(prefix="tailrace-size-") as folder, LocalStack() as stack:
        for name in names:
            url = stack.postgres.create_database(name)
            place = Place(stack.kafka.bootstrap, stack.registry.url, url, Path(folder))
            yield name, *MEASURES[name](place, scale)
            stack.postgres.drop_database(name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measure", nargs="*", default=list(MEASURES), metavar="MEASURE")
    parser.add_argument("--scale", type=float, default=1.0)
    given = parser.parse_args()
    console, facts, held = Console(width=100), {}, True
    shown = Table("measured", "is", "must be", "")
    for name, seen, bars in measured(given.measure, given.scale):
        facts[name] = asdict(seen)
        for bar in bars:
            console.print(f"{bar.what}: {bar.seen:,.1f} ({bar.must})")
            shown.add_row(bar.what, f"{bar.seen:,.1f}", bar.must, "held" if bar.held else "MISSED")
            held = held and bar.held
    console.print(shown)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_bytes(orjson.dumps({"scale": given.scale, **facts}, option=orjson.OPT_INDENT_2))
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
