"""What is made of the measurements: one file, one table on the terminal, one in the README.

A figure is the median of a side's runs, and a ratio one of medians. A ratio is `invalid` where the
peer ran below 0.7 of what it is known to do on such a machine: then something was wrong with it,
and winning against it means nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table

from bench.measure import Measured

KNOWN = {"stream": 13_600.0, "snapshot": 19_400.0, "sink": 20_700.0, "maria-stream": 19_900.0}
HEALTHY = 0.7
NONE = "—"


class PathResult(msgspec.Struct):
    """All runs of one path; `differs` is what reading back found, `load` the averages before."""

    date: str
    commit: str
    load: list[float]
    rows: int
    runs: list[Measured] = []
    differs: list[str] = []
    failed: str = ""
    seconds: float = 0.0

    @property
    def wrong(self) -> bool:
        """Whether it has no result that counts."""
        return bool(self.failed or self.differs)

    @property
    def sides(self) -> list[str]:
        """Who was measured, in the order of the first run."""
        return list(dict.fromkeys(one.side for one in self.runs))

    def of(self, side: str) -> list[Measured]:
        """The runs of one side."""
        return [one for one in self.runs if one.side == side]


class Results(msgspec.Struct):
    """What lies in build/bench.json."""

    machine: dict[str, str] = {}
    versions: dict[str, str] = {}
    paths: dict[str, PathResult] = {}


class Line(NamedTuple):
    """A line of the table, as text."""

    what: str
    ours: str = NONE
    peer: str = NONE
    ratio: str = NONE
    bar: str = NONE
    met: str = NONE
    limit: str = NONE


HEADS = ("", "Tailrace", "Debezium", "ratio", "bar (stretch)", "", "the servers alone")


class Filled(NamedTuple):
    """A line of the table of targets, as text: one sink worker of ours."""

    target: str
    rate: str = NONE
    cpu: str = NONE
    memory: str = NONE
    alone: str = NONE


TARGET_HEADS = (
    "topic → target", "rows/s", "CPU-seconds per million rows", "MB", "the target alone, rows/s",
)  # fmt: skip
TARGETS = {
    "sink": "PostgreSQL table",
    "mariadb": "MariaDB table",
    "sqlite": "SQLite file",
    "duckdb": "DuckDB file",
    "kafka": "Kafka topic, JSON",
    "files": "Parquet files",
    "http": "HTTP endpoint, 500 rows a request",
}


class Bar(NamedTuple):
    """What has to be reached, and what would be better; `least` where smaller is better."""

    bar: float
    stretch: float
    least: bool = False

    def judge(self, value: float) -> str:
        """How a value stands."""
        reached = [value <= one if self.least else value >= one for one in self[:2]]
        return "stretch" if reached[1] else "met" if reached[0] else "missed"


def load(path: Path) -> Results:
    """What was kept so far; nothing where there is no file."""
    return msgspec.json.decode(path.read_bytes(), type=Results) if path.exists() else Results()


def write(results: Results, path: Path) -> None:
    """Keep results, in a form that diffs well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")


def _median(runs: Sequence[Measured], name: str) -> float:
    """The median of an attribute or of one of the values; 0 without runs."""
    found = [
        one.values[name] if name in one.values else float(getattr(one, name, 0.0)) for one in runs
    ]
    return statistics.median(found) if found else 0.0


def _known(results: Results, path: str) -> str:
    """ "" where the peer runs as it is known to, else what to print instead of a ratio."""
    found = results.paths.get(path)
    peer = _median(found.of("debezium"), "rate") if found else 0.0
    if not peer:
        return NONE
    return "" if peer >= HEALTHY * KNOWN.get(path, 0.0) else "invalid"


def _rate(
    results: Results, path: str, what: str, bar: Bar | None = None, side: str = "tailrace"
) -> Line:
    """A line of rows per second against the peer."""
    found = results.paths.get(path)
    if found is None or found.failed or not found.of(side):
        return Line(what, "failed" if found and found.failed else NONE)
    ours, peer = _median(found.of(side), "rate"), _median(found.of("debezium"), "rate")
    limits = [f"{_median(found.of(one), 'rate'):,.0f}" for one in ("limit", "consume")]
    limit = " / ".join(one for one in limits if one != "0") or NONE
    texts = (what, f"{ours:,.0f}", f"{peer:,.0f}" if peer else NONE)
    wanted = f"≥ {bar.bar:g} x ({bar.stretch:g} x)" if bar else NONE
    if unknown := _known(results, path):
        return Line(*texts, unknown, wanted, limit=limit)
    ratio = ours / peer
    met = "differs" if found.differs else bar.judge(ratio) if bar else NONE
    return Line(*texts, f"{ratio:.1f} x", wanted, met, limit)


def _cpu(results: Results, bar: Bar) -> Line:
    """CPU of the stream, as a fraction of the peer's."""
    what = "the same: CPU-seconds per million rows"
    found = results.paths.get("stream")
    if found is None or found.failed:
        return Line(what)
    ours = _median(found.of("tailrace"), "cpu_per_million")
    peer = _median(found.of("debezium"), "cpu_per_million")
    texts = (what, f"{ours:.1f}", f"{peer:.0f}" if peer else NONE)
    wanted = f"≤ 1/{bar.bar:g} (1/{bar.stretch:g})"
    if unknown := _known(results, "stream"):
        return Line(*texts, unknown, wanted)
    return Line(*texts, f"1/{peer / ours:.1f}", wanted, bar.judge(peer / ours))


def _memory(results: Results, what: str, paths: Sequence[str]) -> Line:
    """The highest high-water mark of a worker under full load."""
    found = [results.paths[path] for path in paths if path in results.paths]
    peaks = [
        max((one.peak_mb for path in found for one in path.of(side)), default=0.0)
        for side in ("tailrace", "debezium")
    ]
    if not peaks[0]:
        return Line(what)
    ratio = f"1/{peaks[1] / peaks[0]:.0f}" if peaks[1] else NONE
    bar = Bar(150, 100, least=True)
    peer = f"{peaks[1]:,.0f}" if peaks[1] else NONE
    return Line(what, f"{peaks[0]:.0f}", peer, ratio, "≤ 150 (100)", bar.judge(peaks[0]))


def _latency(results: Results) -> list[Line]:
    """Commit to visible, the median over runs of each percentile."""
    whats = ("commit → visible at 500 tx/s, p50, ms", "the same, p99, ms")
    found = results.paths.get("latency")
    if found is None or not found.runs:
        return [Line(what) for what in whats]
    p50, p99 = (_median(found.runs, name) for name in ("p50 ms", "p99 ms"))
    return [
        Line(whats[0], f"{p50:.1f}", bar="≤ 20 (10)", met=Bar(20, 10, least=True).judge(p50)),
        Line(whats[1], f"{p99:.1f}", bar="≤ 100", met=Bar(100, -1, least=True).judge(p99)),
    ]


def _scaling(results: Results) -> Line:
    """Two workers against one."""
    what = "topic → table, 4 partitions: 1 worker, 2 workers"
    found = results.paths.get("scaling")
    if found is None or not found.of("2 workers"):
        return Line(what)
    one, two = (_median(found.of(side), "rate") for side in ("1 workers", "2 workers"))
    if not one:  # all rows came at once: there is no rate
        return Line(what, f"{NONE}, {two:,.0f}")
    ratio = two / one
    met = Bar(1.0, float("inf")).judge(ratio)
    return Line(what, f"{one:,.0f}, {two:,.0f}", NONE, f"{ratio:.2f} x", "no slower", met)


def _poison(results: Results) -> Line:
    """What is left of the rate where one row of a hundred becomes a dead letter."""
    what = "topic → table, 1 % dead letters, and none"
    found = results.paths.get("poison")
    if found is None or found.failed or not found.of("poison"):
        return Line(what, "failed" if found and found.failed else NONE)
    bad, sound = (_median(found.of(side), "rate") for side in ("poison", "sound"))
    if not sound:  # all rows came at once: there is no rate
        return Line(what, f"{bad:,.0f}, {NONE}")
    met = "differs" if found.differs else Bar(0.8, 1.0).judge(bad / sound)
    return Line(what, f"{bad:,.0f}, {sound:,.0f}", NONE, f"{bad / sound:.0%}", "≥ 80 %", met)


def _idle(results: Results) -> Line:
    """What waiting costs."""
    what = "idle source, idle sink: % of a core"
    found = results.paths.get("idle")
    if found is None or not found.runs:
        return Line(what)
    shares = [_median(found.of(side), "% of a core") for side in ("source", "sink")]
    return Line(what, ", ".join(f"{one:.1f}" for one in shares))


def lines(results: Results) -> list[Line]:
    """The whole table."""
    return [
        _rate(results, "stream", "log → topic, rows/s", Bar(5, 8)),
        _cpu(results, Bar(12, 20)),
        _rate(results, "stream", "the same, plain Python executor", Bar(1.3, 2), "plain"),
        _rate(results, "snapshot", "table → topic, rows/s", Bar(12, 18)),
        _rate(results, "sink", "topic → table, upsert, rows/s", Bar(5, 6)),
        _rate(results, "rewrite", "the same, into rows that are there already"),
        _rate(results, "maria-stream", "MariaDB log → topic, rows/s", Bar(5, 8)),
        _rate(results, "maria-snapshot", "MariaDB table → topic, rows/s", Bar(5, 8)),
        *_latency(results),
        _memory(results, "source worker under full load, MB", ("stream", "snapshot")),
        _memory(results, "sink worker under full load, MB", ("sink",)),
        _scaling(results),
        _poison(results),
        _idle(results),
    ]


def filled(results: Results) -> list[Filled]:
    """The table of targets."""
    return [_filled(results.paths.get(path), target) for path, target in TARGETS.items()]


def _filled(found: PathResult | None, target: str) -> Filled:
    if found is None or found.failed or not found.of("tailrace"):
        return Filled(target, "failed" if found and found.failed else NONE)
    ours = found.of("tailrace")
    rate, cpu, peak = (_median(ours, name) for name in ("rate", "cpu_per_million", "peak_mb"))
    alone = _median(found.of("limit"), "rate")
    limit = f"{alone:,.0f}" if alone else NONE
    return Filled(target, f"{rate:,.0f}", f"{cpu:.1f}", f"{peak:.0f}", limit)


def show(results: Results, console: Console) -> None:
    """Print the table, and what was wrong."""
    title = "medians of rows of 10 columns, about 200 bytes"
    for heads, rows in ((HEADS, lines(results)), (TARGET_HEADS, filled(results))):
        table = Table(title=title, title_justify="left")
        for number, head in enumerate(heads):
            table.add_column(head, justify="right" if number else "left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for name, path in results.paths.items():
        runs = len(path.of("tailrace")) or len(path.runs) // 2
        back = "; ".join(path.differs) or "read back equal"
        said = path.failed or (back if path.of("debezium") else "no peer ran")
        load_was = "/".join(map(str, path.load))
        console.print(
            f"{name}: {runs} runs of {path.rows:,} rows, {path.date}, {path.commit}, "
            f"load {load_was}, {path.seconds:.0f} s; {said}",
            markup=False,
            highlight=False,
        )
