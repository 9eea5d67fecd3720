"""Where a topic that Debezium wrote is cut into target transactions changes nothing.

A recorded topic is applied record by record, and in pieces of every small length: the halves of a
key change, and values that were not sent, then lie in different cuts again and again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message

from cdc.connector import Context
from interchange.forms import mapping
from interchange.recording import Recording, load
from sinks.applier import Applier, Cut
from sinks.checkpoint import Lane
from sinks.cut import EVERYTHING
from sinks.decode import SKIP, Event
from sinks.mapping import Selection
from sinks.routes import Routes
from sinks.target import TopicPartition
from sinks.targets.sqlite import Config, create


class NoLetters:
    """Fails where a record would become a dead letter."""

    def sift(self, events: Sequence[Event]) -> Sequence[Event]:
        assert [event.error for event in events if event.error] == []
        return events

    def aside(self, _events: Sequence[Event], bad: Sequence[Event]) -> Sequence[Event]:
        raise AssertionError([str(event.error) for event in bad])

    def write(self, events: Sequence[Event]) -> None:
        raise AssertionError([str(event.error) for event in events])


class OnePartition:
    """How the topic is spread."""

    def partitions(self, _topic: str) -> int:
        return 1

    def writers(self, _topic: str) -> int:
        return 1


def applied(
    folder: Path, recording: Recording, form: str, table: str, length: int
) -> list[tuple[Any, ...]]:
    """Apply a recorded topic, looking after each `length` records whether there is a cut."""
    source = recording.provenance["name"]
    topic, path = f"{source}.public.{table}", folder / f"{table}{length}.db"
    tables = mapping(form, source)
    config = Config.model_validate({"path": path, "tables": tables})
    target = create(Context("p", "cuts"), config)
    target.open()
    routes = Routes(Selection(config.tables), recording, OnePartition())
    letters: Any = NoLetters()
    applier = Applier(target, letters, routes.tables, lambda _: True)
    lane = Lane(TopicPartition(topic, "id", 0), None)
    try:
        for offset, one in enumerate(recording.topics[table]):
            message = Message(topic, 0, offset, one.key, one.value, one.headers, timestamp=(1, 0))
            event = routes.bury(message) if one.value is None else routes.read(message, one.value)
            lane.next = offset + 1
            if event is not None and event.kind != SKIP:
                lane.admit(event)
            if lane.next % length == 0:
                cut(applier, lane)
        cut(applier, lane)
    finally:
        target.close()
    with closing(sqlite3.connect(path)) as db:
        return db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()


def cut(applier: Applier, lane: Lane) -> None:
    """As the session does with a lane whose source writes no boundaries."""
    events = lane.take(EVERYTHING, but_last=lane.awaits_create())
    span = lane.span()
    if span is not None:
        applier.apply(Cut([events], [span]))
        lane.cursor = span.end


@pytest.mark.parametrize(
    ("form", "table"),
    [("json", "moves"), ("json", "whole"), ("avro", "moves"), ("unwrapped", "moves")],
)
def test_a_cut_behind_no_matter_which_record_changes_nothing(
    form: str, table: str, tmp_path: Path
) -> None:
    recording = load(form)
    whole = applied(tmp_path, recording, form, table, 1_000)
    assert len(whole) == len(recording.rows[table])
    for length in (1, 2, 3):
        assert applied(tmp_path, recording, form, table, length) == whole, length
