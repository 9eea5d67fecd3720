"""A position's tails stand in for the ends of topics, as long as none is missing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import sinks.cut
from cdc.kafka import KafkaConfig
from cdc.positions import PositionsTopic, Tails
from cdc.source import Batch
from envelopes import envelope_reader, read
from fix_pipeline import ITEMS, At
from schemas.change import Change, Op, Origin, Rows, Stamp
from schemas.plan import Plan, SourceName
from schemas.registry import RegistryConfig
from sinks.checkpoint import BEFORE_ALL, Lane
from sinks.cut import Cuts
from sinks.decode import SKIP, UPSERT, Event
from sinks.target import TopicPartition

ORDERS = TopicPartition("shop.public.orders", "a", 0)
HERE = {ORDERS.topic}
NO_MESSAGE: Any = None


def told(commit: int, number: int, tails: Tails | None) -> Any:
    """A record of the positions topic, as the client gives it."""
    batch = Batch([], At(commit), Stamp(1, commit))
    topic = PositionsTopic(
        KafkaConfig(bootstrap="nowhere:9092", registry=RegistryConfig(url="http://nowhere")), "p"
    )
    [record] = topic.records("shop", batch, 0, (number, tails))
    asked = {"topic": topic.name, **record}
    return SimpleNamespace(**{name: lambda found=found: found for name, found in asked.items()})


def row(lane: Lane, commit: int, ordinal: int = 1) -> None:
    """One row of the log arrives."""
    lane.admit(Event(UPSERT, None, Stamp(1, commit, ordinal), snapshot=False, message=NO_MESSAGE))


def is_new(topic: str) -> bool:
    return topic not in HERE


def cuts_at(commit: int) -> Cuts:
    """Cuts that have looked at the ends once."""
    cuts = Cuts()
    cuts.take_position(told(commit, 1, {}))
    assert cuts.follow(is_new)
    cuts.aim(cuts.news(), {})
    assert cuts.ready([Lane(ORDERS, None)], full=False) == {"shop": (1, commit + 1)}
    return cuts


def test_rows_up_to_the_tail_are_all_there_is_and_nobody_is_asked() -> None:
    cuts, lane = cuts_at(10), Lane(ORDERS, None)
    cuts.take_position(told(20, 2, {ORDERS.topic: Stamp(1, 20, 2)}))
    assert not cuts.follow(is_new)
    row(lane, 20, 1)
    assert cuts.ready([lane], full=False) == {"shop": BEFORE_ALL}
    row(lane, 20, 2)
    assert cuts.ready([lane], full=False) == {"shop": (1, 21)}


def test_a_tail_that_does_nothing_to_the_target_is_there_too() -> None:
    cuts, lane = cuts_at(10), Lane(ORDERS, None)
    cuts.take_position(told(20, 2, {ORDERS.topic: Stamp(1, 20, 2)}))
    assert not cuts.follow(is_new)
    row(lane, 20, 1)
    lane.pass_over(Event(SKIP, None, Stamp(1, 20, 2), snapshot=False, message=NO_MESSAGE))
    assert cuts.ready([lane], full=False) == {"shop": (1, 21)}
    assert len(lane.take((1, 21))) == 1


@pytest.mark.parametrize(
    ("number", "tails"),
    [
        (3, {ORDERS.topic: Stamp(1, 20, 2)}),
        (2, None),
        (2, {ORDERS.topic: None}),
        (2, {"shop.public.made_since": Stamp(1, 20, 2)}),
    ],
    ids=["a position was missed", "too many topics", "a tail that proves nothing", "a new topic"],
)
def test_otherwise_the_ends_are_asked_for(number: int, tails: Tails | None) -> None:
    cuts = cuts_at(10)
    cuts.take_position(told(20, number, tails))
    assert cuts.follow(is_new)
    assert cuts.news() == {"shop"}


def test_a_tail_that_does_not_come_is_given_up_for_the_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuts, lane = cuts_at(10), Lane(ORDERS, None)
    cuts.take_position(told(20, 2, {ORDERS.topic: Stamp(1, 20, 2)}))
    assert not cuts.follow(is_new)
    monkeypatch.setattr(sinks.cut, "_TAILS_S", -1.0)
    assert cuts.follow(is_new)
    cuts.aim(cuts.news(), {ORDERS: 5})
    lane.next = 5
    assert cuts.ready([lane], full=False) == {"shop": (1, 21)}


def test_what_one_goal_waits_for_does_not_grow_with_later_positions() -> None:
    cuts, lane = cuts_at(10), Lane(ORDERS, None)
    for number, commit in ((2, 20), (3, 30)):
        cuts.take_position(told(commit, number, {ORDERS.topic: Stamp(1, commit)}))
        assert not cuts.follow(is_new)
    row(lane, 20)
    assert cuts.ready([lane], full=False) == {"shop": (1, 21)}
    assert not cuts.follow(is_new)
    assert cuts.ready([lane], full=False) == {"shop": BEFORE_ALL}
    row(lane, 30)
    assert cuts.ready([lane], full=False) == {"shop": (1, 31)}


@pytest.mark.parametrize(
    "newest",
    [
        Change(Op.CREATE, None, (b"1", b"a")),
        Change(Op.UPDATE, (b"1", b"a"), (b"1", b"b")),
        Change(Op.UPDATE, (b"1", b"a"), (b"2", b"a")),
        Change(Op.DELETE, (b"1", b"a"), None),
        Change(Op.TRUNCATE, None, None),
    ],
    ids=lambda change: change.op.name,
)
def test_the_tail_of_a_run_is_the_stamp_of_its_last_record(newest: Change) -> None:
    plan = Plan(ITEMS, ITEMS, SourceName("1", "postgres", "shop"), (1, 2))
    items = [Change(Op.CREATE, None, (b"1", b"a")), newest]
    run = Rows(ITEMS, "changes", Origin(1, 30, 0), items, [4, 7])
    values = [record.value for record in plan.records(run, 0) if record.value is not None]
    source = read(envelope_reader(ITEMS), values[-1])["source"]
    assert plan.last(run) == tuple(source[name] for name in Stamp._fields)
