"""The proof's section of the README, made of the soak's sums: `make readme`.

python tests/crash/section.py build/soak.json      # keep what was counted, as soak.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SUMS = Path(__file__).with_name("soak.json")
ROWS = (
    ("lost-write, aborted-read, duplicate", "lost-write aborted-read duplicate"),
    ("order of a key, of a key change, of the log", "key-order key-change-order nonmonotonic-send"),
    ("positions: monotone, slot never ahead", "monotone-position confirmed-ahead"),
    ("snapshot and stream meet in one cut", "snapshot-cut"),
    ("tombstones; every value of every event", "tombstones value-fidelity"),
    ("effects: none twice, none out of order", "duplicate-effect effect-order"),
    ("rows and offsets move together", "offset-with-data"),
    ("the bank's sum, read while all died", "consistent-cut"),
    ("poison isolated; a frozen owner fenced", "poison-isolated fencing"),
    ("all rows equal in the end, with no help; log bounded", "convergence bounded-wal fail-closed"),
)


def markdown(kept_in: Path = SUMS) -> str:
    """Return the section as it stands for the sums kept here."""
    if not kept_in.exists():
        return "Nothing was counted yet: `make soak`.\n"
    kept = json.loads(kept_in.read_text("utf-8"))
    return "\n".join([*_broken(kept), "", *_pace(kept), ""])


def _broken(kept: dict[str, Any]) -> list[str]:
    told = (
        f"{kept['kills']:,} processes killed over {kept['events']:,} events, {kept['measured']}: "
        f"{kept['looks']:,} looks at the targets, {kept['slot_samples']:,} at the slots. "
        "`make soak` repeats it."
    )
    lines = [told, "", "| what must hold | found broken |", "|---|---|"]
    verdicts = kept["verdicts"]
    for text, names in ROWS:
        lines.append(f"| {text} | {sum(verdicts.get(name, 0) for name in names.split())} |")
    return lines


def _pace(kept: dict[str, Any]) -> list[str]:
    lines = ["| recovery, seconds to the next committed effect | median | p99 | bar |"]
    lines.append("|---|---|---|---|")
    for what, found in kept["recovery"].items():
        numbers = f"{found['median']} | {found['p99']} | {found['bar']:.0f}"
        lines.append(f"| {what} ({found['times']} times) | {numbers} |")
    lines += ["", "| memory of a worker | MB per million events | peak, MB |", "|---|---|---|"]
    for name, found in kept["memory"].items():
        lines.append(f"| {name.partition('/')[0]} | {found['slope']} | {found['peak']} |")
    return lines


def main() -> int:
    """Keep the sums of a soak beside this file, without what was broken in full."""
    kept = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    del kept["broken"]
    SUMS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
