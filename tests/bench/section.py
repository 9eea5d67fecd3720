"""The README's section about speed, made of tests/bench/results.json.

python tests/bench/section.py build/bench.json     # keep what was measured, as results.json
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from bench.report import HEADS, TARGET_HEADS, Results, filled, lines, load, write

COMPARED = ("stream", "snapshot", "sink", "rewrite", "maria-stream", "maria-snapshot")
TARGETS = (
    "Each target by one sink worker, the same rows upserted, or appended where nothing can be "
    "replaced; what the server of a target uses is not in the worker's CPU. The endpoint is on "
    "loopback and answers at once."
)
KEPT = Path(__file__).with_name("results.json")


def markdown(kept: Path = KEPT) -> str:
    """The whole section: what was measured on what, the table, and how to repeat it."""
    results = load(kept)
    if not results.paths:
        return "Nothing was measured yet: `make bench`.\n"
    heads = (HEADS[0], *HEADS[1:5], "reached", HEADS[6])
    compared, targets = _table(heads, lines(results)), _table(TARGET_HEADS, filled(results))
    parts = [_wrapped(_on_what(results)), "", *compared, "", _wrapped(TARGETS), "", *targets]
    return "\n".join([*parts, "", _wrapped(_how(results)), ""])


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def _table(heads: Sequence[str], lines_of: Sequence[Sequence[str]]) -> list[str]:
    rows = [heads, ("---", *["---:"] * (len(heads) - 1)), *lines_of]
    return [f"| {' | '.join(row)} |" for row in rows]


def _has_peer(results: Results, path: str) -> bool:
    return path in results.paths and bool(results.paths[path].of("debezium"))


def _between(values: Sequence[str]) -> str:
    """One value, or the first and the last of several."""
    found = sorted(set(values))
    return found[0] if len(found) == 1 else f"{found[0]} to {found[-1]}"


def _on_what(results: Results) -> str:
    of, on = results.versions, results.machine
    taken = results.paths.values()
    version = of.get("debezium-connector-mariadb")
    maria = f" and its MariaDB source {version}" if version else ""
    return (
        f"Measured {_between([one.date[:10] for one in taken])} on {on['cores']} cores "
        f"({on['processor']}), {on['memory']}, {on['system']}, all on loopback: brokers, databases "
        f"and both sides share the cores. PostgreSQL {of['postgres']}, Kafka {of['kafka']}, "
        f"Python {of['python']} ({of['executor']} executor); "
        f"Debezium {of['debezium-connector-postgres']}, its JDBC sink "
        f"{of['debezium-connector-jdbc']}{maria} on Kafka Connect {of['connect-runtime']}, "
        f"Java {of['java']} with 1 GB of heap, warm, Avro. "
        f"Commit {', '.join(dict.fromkeys(one.commit for one in taken))}; load before the paths "
        f"{min(one.load[0] for one in taken):.1f} to {max(one.load[0] for one in taken):.1f}."
    )


def _how(results: Results) -> str:
    wrong = {name: one for name, one in results.paths.items() if one.wrong}
    said = [f"{name}: {one.failed or one.differs[0]}" for name, one in wrong.items()]
    measured = [name for name in COMPARED if name in results.paths or name in COMPARED[:3]]
    alone = [name for name in measured if not _has_peer(results, name)]
    said += [f"no peer ran beside {name}" for name in alone]
    back = "; ".join(said) or "counts and 1,000 sampled rows were equal in every run"
    rows = " or ".join(dict.fromkeys(f"{one.rows:,}" for one in results.paths.values()))
    runs = min(
        (len(one.of(side)) for one in results.paths.values() for side in one.sides), default=0
    )
    return (
        f"Medians of at least {runs} runs of {rows} rows of 10 columns, about 200 bytes each, "
        "sides taking turns in each run; the clock starts at the first hundred rows. The rows are "
        "new at the source, and in the target but for the line that says so. Tailrace is "
        "exactly once on every line, Debezium as configured at least once. "
        f"Both topics were read back: {back}. A ratio is `invalid` where the peer ran below 0.7 of "
        "what it is known to do on two cores. The servers alone: the walsender, one COPY, the "
        "merge of staged rows and one consumer, MariaDB's log as one client receives it and its "
        "export of a table, each without anything of ours. Repeat it with "
        "`make bench`, and write this section with `make readme`."
    )


def main() -> int:
    """Keep a file of measurements."""
    found = load(Path(sys.argv[1]))
    if not found.paths:
        print(f"{sys.argv[1]} holds no measurements", file=sys.stderr)  # noqa: T201
        return 1
    kept = load(KEPT)
    kept.paths |= found.paths
    kept.machine, kept.versions = found.machine, found.versions
    write(kept, KEPT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
