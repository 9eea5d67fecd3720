"""The README's section about speed, made of tests/bench/results.json.

python tests/bench/section.py build/bench.json     # keep what was measured, as results.json
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from bench.report import HEADS, Results, lines, load, write

COMPARED = ("stream", "snapshot", "sink")
KEPT = Path(__file__).with_name("results.json")


def markdown(kept: Path = KEPT) -> str:
    """The whole section: what was measured on what, the table, and how to repeat it."""
    results = load(kept)
    if not results.paths:
        return "Nothing was measured yet: `make bench`.\n"
    parts = [_wrapped(_on_what(results)), "", *_table(results), "", _wrapped(_how(results)), ""]
    return "\n".join(parts)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def _table(results: Results) -> list[str]:
    heads = (HEADS[0], *HEADS[1:5], "reached", HEADS[6])
    rows = [heads, ("---", *["---:"] * 6), *lines(results)]
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
    return (
        f"Measured {_between([one.date[:10] for one in taken])} on {on['cores']} cores "
        f"({on['processor']}), {on['memory']}, {on['system']}, all on loopback: brokers, databases "
        f"and both sides share the cores. PostgreSQL {of['postgres']}, Kafka {of['kafka']}, "
        f"Python {of['python']} ({of['executor']} executor); "
        f"Debezium {of['debezium-connector-postgres']} and its JDBC sink "
        f"{of['debezium-connector-jdbc']} on Kafka Connect {of['connect-runtime']}, "
        f"Java {of['java']} with 1 GB of heap, warm, Avro. "
        f"Commit {', '.join(dict.fromkeys(one.commit for one in taken))}; load before the paths "
        f"{min(one.load[0] for one in taken):.1f} to {max(one.load[0] for one in taken):.1f}."
    )


def _how(results: Results) -> str:
    wrong = {name: one for name, one in results.paths.items() if one.wrong}
    said = [f"{name}: {one.failed or one.differs[0]}" for name, one in wrong.items()]
    alone = [name for name in COMPARED if not _has_peer(results, name)]
    said += [f"no peer ran beside {name}" for name in alone]
    back = "; ".join(said) or "counts and 1,000 sampled rows were equal in every run"
    rows = " or ".join(dict.fromkeys(f"{one.rows:,}" for one in results.paths.values()))
    runs = min(
        (len(one.of(side)) for one in results.paths.values() for side in one.sides), default=0
    )
    return (
        f"Medians of at least {runs} runs of {rows} rows of 10 columns, about 200 bytes each, "
        "sides taking turns in each run; the clock starts at the first hundred rows. Tailrace is "
        "exactly once on every line, Debezium as configured at least once. "
        f"Both topics were read back: {back}. A ratio is `invalid` where the peer ran below 0.7 of "
        "what it is known to do on two cores. The servers alone: the walsender, one COPY, the "
        "merge of staged rows and one consumer, each without anything of ours. Repeat it with "
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
