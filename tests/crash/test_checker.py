"""The checker finds each broken invariant, by its name, and nothing where all is well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from crash.checker import CHECKS, check
from crash.evidence import (
    CutSample,
    Dead,
    Effect,
    Entry,
    Evidence,
    Floor,
    Flow,
    Record,
    SlotSample,
    Stand,
    Stored,
)

ACCOUNTS = {str(n): (n, 1000) for n in range(1, 51)}
ROW = {"id": "1", "big": "x", "small": "1", "version": "100"}


def entry(number: int, key: str, version: int | None, op: str, **facts: Any) -> Entry:
    row = {**ROW, "id": key, "version": str(version)} if version is not None else None
    given = {"table": "toasted", "xid": number, "row": row, "pair": None, "kept": False, **facts}
    return Entry(number=number, key=key, version=version, op=op, **given)


def record(offset: int, key: str, version: int | None, op: str, **facts: Any) -> Record:
    row = {**ROW, "id": key, "version": str(version)} if version is not None else None
    place = (1, 1000 + offset, 0, 0) if op else None
    given = {"table": "toasted", "xid": 0, "place": place, "row": row, "absent": (), **facts}
    return Record(
        partition=0, offset=offset, op=op, raw_key=key.encode(), key=key, version=version, **given
    )


def evidence() -> Evidence:
    """A row created, changed without its large value, given another key, and the bank."""
    moved = (1, 2000, 0)
    flow = Flow(
        name="bank",
        floor=Floor(1, 1, frozenset()),
        tables=("toasted", "accounts", "refused"),
        records=[
            record(0, "1", 100, "c", xid=1),
            record(1, "1", 101, "u", xid=2, absent=("big",), row={**ROW, "version": "101"}),
            record(2, "1", None, "d", xid=3, place=(*moved, 0)),
            record(3, "1", None, ""),
            record(4, "2", 102, "c", xid=3, place=(*moved, 2)),
            record(5, "2", 102, "r"),
            record(6, "9", 103, "c", xid=5, table="refused", row={"value": "poison"}),
            *(record(n - 1, str(n), n, "r", table="accounts", row=None) for n in range(1, 51)),
        ],
        positions=[Stored(1, 10, 0, 10), Stored(1, 20, 0, 20)],
        slots=[SlotSample(10, 20)],
        cuts=[CutSample({0: 50}, ACCOUNTS)],
        effects=[Effect("toasted", "1", 100, "i"), Effect("toasted", "2", 102, "i")],
        dead=[Dead("refused", "9", "poison")],
        source_rows={"toasted": {"2": Stand(102, "a")}},
        target_rows={"toasted": {"2": Stand(102, "a")}},
    )
    journal = [
        entry(1, "1", 100, "c"),
        entry(2, "1", 101, "u", kept=True),
        entry(3, "1", None, "d", pair=7),
        entry(4, "2", 102, "c", xid=3, pair=7),
        entry(5, "9", 103, "c", table="refused", row={"value": "poison"}),
        *(entry(n, str(n), n, "c", table="accounts", xid=0, row=None) for n in range(1, 51)),
    ]
    return Evidence(journal, [flow])


def change(at: int, **facts: Any) -> Callable[[Flow], None]:
    def spoil(flow: Flow) -> None:
        flow.records[at] = flow.records[at]._replace(**facts)

    return spoil


def setting(**facts: Any) -> Callable[[Flow], None]:
    def spoil(flow: Flow) -> None:
        for name, value in facts.items():
            setattr(flow, name, value)

    return spoil


def repeated(flow: Flow) -> None:
    flow.records.insert(5, flow.records[4]._replace(offset=5, place=(1, 3000, 0, 2)))


def reordered(flow: Flow) -> None:
    flow.records[0], flow.records[1] = flow.records[1], flow.records[0]


TORN = {**ACCOUNTS, "1": (1, 993)}
STALE = {**ACCOUNTS, "1": (77, 1000)}
SPOILED: list[tuple[str, Callable[[Flow], None]]] = [
    ("lost-write", lambda flow: flow.records.pop(0) and None),
    ("aborted-read", change(0, version=999)),
    ("aborted-read", change(5, version=999)),
    ("duplicate", repeated),
    ("key-order", reordered),
    ("key-change-order", change(4, place=(1, 2000, 1, 0))),
    ("key-change-order", change(2, place=(1, 2000, 0, 3))),
    ("nonmonotonic-send", change(1, place=(1, 1, 0, 0))),
    ("monotone-position", setting(positions=[Stored(1, 20, 0, 20), Stored(1, 10, 0, 20)])),
    ("confirmed-ahead", setting(slots=[SlotSample(21, 20)])),
    ("snapshot-cut", change(5, key="1", raw_key=b"1", version=100)),
    ("tombstones", lambda flow: flow.records.pop(3) and None),
    ("tombstones", change(3, raw_key=b"5")),
    ("value-fidelity", change(0, row={**ROW, "big": "y"})),
    ("value-fidelity", change(0, row={**ROW, "big": None})),
    ("value-fidelity", change(0, absent=("big",))),
    ("value-fidelity", change(1, absent=("small",))),
    ("value-fidelity", setting(target_rows={"toasted": {"2": Stand(102, "b")}})),
    ("convergence", setting(target_rows={"toasted": {}})),
    ("convergence", setting(source_rows={"toasted": {}})),
    ("convergence", setting(target_rows={"toasted": {"2": Stand(101, "a")}})),
    ("duplicate-effect", setting(effects=[Effect("toasted", "1", 100, "u")] * 2)),
    (
        "effect-order",
        setting(effects=[Effect("toasted", "1", 101, "i"), Effect("toasted", "1", 100, "u")]),
    ),
    ("offset-with-data", setting(cuts=[CutSample({0: 49}, ACCOUNTS)])),
    ("offset-with-data", setting(cuts=[CutSample({0: 50}, STALE)])),
    (
        "offset-with-data",
        setting(cuts=[CutSample({0: 50}, ACCOUNTS), CutSample({0: 3}, ACCOUNTS)]),
    ),
    ("consistent-cut", setting(cuts=[CutSample({0: 50}, TORN)])),
    ("poison-isolated", setting(dead=[])),
    ("poison-isolated", setting(dead=[Dead("refused", "9", "x"), Dead("whole", "1", "x")])),
    ("poison-isolated", setting(target_rows={"refused": {"9": Stand(103, "a")}})),
]


def test_a_clean_run_has_no_anomaly() -> None:
    assert check(evidence()) == []


@pytest.mark.parametrize(("name", "spoil"), SPOILED)
def test_what_is_broken_is_found_by_its_name(name: str, spoil: Callable[[Flow], None]) -> None:
    spoiled = evidence()
    spoil(spoiled.flows[0])
    assert name in {anomaly.invariant for anomaly in check(spoiled)}


def test_every_check_is_seen_to_fail() -> None:
    assert {name for name, _ in SPOILED} == {name for name, _ in CHECKS}
