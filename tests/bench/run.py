"""`make bench`: ours, Debezium and the physical limit, side by side on the same servers and rows.

    python tests/bench/run.py                                    # every path
    python tests/bench/run.py --paths stream,sink --rows 1000000 --runs 5
    python tests/bench/run.py --paths targets                    # a family: all targets, and poison

What a path measured replaces what build/bench.json held of it; the other paths stay. Without the
peers' parts (no network, or --no-peers) ours and the limits are measured alone.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from bench import embedded, machine, mariadb, marialog, pace, paths, peers, targets
from bench.measure import Measured
from bench.paths import Bench
from bench.report import TARGETS, PathResult, Results, load, show, write
from bench.scene import Scene, Stack
from cdc.local import LocalStack
from cdc.local.errors import LocalStackError
from cdc.local.fetch import fetch

OUT = Path("build/bench.json")
SMOKE = Path("build/bench-smoke.json")
Run = Callable[[Bench, peers.Connect | None, int], tuple[list[Measured], str]]


class Route(NamedTuple):
    """A path: what one run does, the peer's plug-in, and how its JVM is warmed up.

    `share` of the rows is measured.
    """

    run: Run
    plugin: str = ""
    prepare: Callable[[Bench, peers.Connect | None], None] = lambda _bench, _connect: None
    share: float = 1.0


ROUTES: dict[str, Route] = {
    "stream": Route(paths.stream, "source", paths.warm_stream),
    "sink": Route(paths.sink, "sink", paths.warm_sink),  # reads what the stream left behind
    "rewrite": Route(paths.rewrite, "sink", paths.warm_sink),
    "snapshot": Route(paths.snapshot, "source", paths.warm_snapshot),
    "scaling": Route(paths.scaling),
    "sqlite": Route(embedded.sqlite),
    "mariadb": Route(mariadb.mariadb),
    **{name: Route(run) for name, run in targets.PATHS.items()},
    "maria-stream": Route(marialog.stream, "maria", marialog.warm, 0.4),
    "maria-snapshot": Route(marialog.snapshot, "maria", marialog.warm, 0.4),
    "latency": Route(pace.latency),
    "idle": Route(pace.idle),
}
FAMILIES = {
    "targets": (*TARGETS, "poison"),
    "maria": ("maria-stream", "maria-snapshot"),
}


def measure(bench: Bench, name: str, runs: int) -> PathResult:
    """Measure one path; what goes wrong is part of the result and ends only this path."""
    route = ROUTES[name]
    if route.share < 1:
        bench = Bench(bench.scene, int(bench.rows * route.share), bench.tell, peers=bench.peers)
    result = PathResult(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=machine.commit(),
        load=[round(one, 2) for one in os.getloadavg()],
        rows=bench.rows,
    )
    began = time.monotonic()
    try:
        if name in (*TARGETS, "rewrite") and bench.filled is None:
            paths.fill_topics(bench)
        with bench.connect(route.plugin) as connect:
            route.prepare(bench, connect)
            for number in range(runs):
                found, differs = route.run(bench, connect, number)
                result.runs += found
                if differs:
                    result.differs.append(f"run {number + 1}: {differs}")
    except Exception as error:  # noqa: BLE001 - the other paths are still worth measuring
        result.failed = f"{type(error).__name__}: {error}"
        bench.tell(traceback.format_exc())
    result.seconds = round(time.monotonic() - began, 1)
    return result


def peers_at_hand(console: Console) -> bool:
    """Fetch the peers' parts; say so where they cannot be had."""
    try:
        for family in ("connect", "source", "sink", "maria"):
            fetch(peers.parts(family))
    except LocalStackError as error:
        console.print(f"without the peers: {error}")
        return False
    return True


def run(stack: Stack, asked: argparse.Namespace, console: Console) -> Results:
    """Measure what was asked for on running servers, keep it in a file, and print it all."""
    results = load(asked.out)
    with tempfile.TemporaryDirectory(prefix="tailrace-bench-") as folder:

        def tell(what: object) -> None:
            console.print(f"[{time.strftime('%H:%M:%S')}] {what}", markup=False, highlight=False)

        bench = Bench(Scene(stack, Path(folder)), asked.rows, tell, peers=asked.peers)
        for name in asked.paths:
            tell(f"{name}: {asked.runs} runs of {asked.rows:,} rows, load {os.getloadavg()[0]:.2f}")
            results.paths[name] = measure(bench, name, asked.runs)
            results.machine, results.versions = machine.facts(), machine.versions(stack)
            write(results, asked.out)
    show(results, console)
    return results


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ", ".join([*ROUTES, *FAMILIES])
    parser.add_argument("--paths", default=",".join(ROUTES), help=f"of {known}")
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    parser.add_argument("--smoke", action="store_true", help="does it run: few rows, no peers")
    asked = parser.parse_args(given)
    if asked.smoke:
        asked.rows, asked.runs, asked.peers, asked.out = 3000, 1, False, SMOKE
        asked.paths = "stream,sink,rewrite,snapshot,sqlite,mariadb,maria-stream,duckdb,http,poison"
    named = asked.paths.split(",")
    asked.paths = [path for name in named for path in FAMILIES.get(name, (name,))]
    if unknown := set(asked.paths) - set(ROUTES):
        parser.error(f"there is no path {', '.join(sorted(unknown))}")
    return asked


def main() -> int:
    """Run on servers of our own; 1 when a path failed or two sides differ."""
    asked, console = arguments(), Console(width=130)
    if asked.peers:
        asked.peers = peers_at_hand(console)
    with LocalStack() as stack:
        results = run(stack, asked, console)
    return int(any(results.paths[name].wrong for name in asked.paths))


if __name__ == "__main__":
    sys.exit(main())
