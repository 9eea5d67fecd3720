"""The source loop against a source that is an in-memory log: what it confirms, and when."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from cdc.errors import CdcError, Fenced, GapError, SourceUnavailable
from cdc.positions import PositionsTopic
from cdc.publish import Committed
from cdc.source import Batch, Progress, SourceStatus
from cdc.worker import Command, SourceJob, run_source
from fix_pipeline import At, Pipeline, item_batch, wait_until


class Log:
    """A source system: transactions 10, 20, 30 …, each one row; survives its readers."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.confirmed: list[int] = []
        self.opened_after: list[int] = []
        self.commands: list[tuple[str, dict[str, Any]]] = []
        self.fail_at: dict[int, CdcError] = {}


class Reader:
    """`cdc.source.Source` over a `Log`."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.next = 0

    def open(self, after: dict[str, Any] | None, progress: Sequence[Progress]) -> None:
        self.next = (0 if after is None else after["number"]) + 10
        self.log.opened_after.append(self.next - 10)
        assert progress is not None

    def read(self, timeout: float) -> Batch | None:
        if self.next in self.log.fail_at:
            raise self.log.fail_at.pop(self.next)
        if self.next > self.log.length * 10:
            threading.Event().wait(min(timeout, 0.02))
            return None
        batch = item_batch(self.next, [self.next])
        self.next += 10
        return batch

    def confirm(self, upto: At) -> None:
        self.log.confirmed.append(upto.number)

    def command(self, name: str, arguments: dict[str, Any]) -> None:
        self.log.commands.append((name, arguments))

    def status(self) -> SourceStatus:
        return SourceStatus(state="streaming")

    def close(self) -> None:
        self.next = -1


class Desk:
    """Control and reporter of a test."""

    def __init__(self) -> None:
        self.requests: list[Command] = []
        self.states: list[str] = []
        self.commits: list[Committed] = []
        self.rewound = self.acknowledged = 0

    def poll(self) -> Sequence[Command]:
        out, self.requests = self.requests, []
        return out

    def rewind(self) -> None:
        self.rewound += 1

    def acknowledge(self) -> None:
        self.acknowledged += 1

    def published(self, committed: Committed) -> None:
        self.commits.append(committed)

    def beat(self, status: SourceStatus, error: CdcError | None) -> None:
        self.states.append(status.state if error is None else f"{status.state}: {error}")


class Running:
    """`run_source` in a thread of the test."""

    def __init__(self, pipeline: Pipeline, log: Log) -> None:
        self.desk = Desk()
        self.error: CdcError | None = None
        self._over = threading.Event()
        job = SourceJob(
            source=lambda: Reader(log),
            publisher=pipeline.publisher,
            control=self.desk,
            reporter=self.desk,
            stop=self._over.is_set,
            back_off=lambda _attempt: 0.05,
        )
        self._thread = threading.Thread(target=self._run, args=(job,))
        self._thread.start()

    def _run(self, job: SourceJob) -> None:
        try:
            run_source(job)
        except CdcError as error:
            self.error = error

    def end(self) -> None:
        self._over.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def start(pipeline: Pipeline) -> Any:
    started: list[Running] = []

    def begin(log: Log) -> Running:
        started.append(Running(pipeline, log))
        return started[-1]

    yield begin
    for running in started:
        running.end()


Start = Callable[[Log], Running]


def commits_of(pipeline: Pipeline) -> list[bytes]:
    return [message.key() or b"" for message in pipeline.read(pipeline.topic())]


def test_an_owner_whose_source_went_away_does_not_fence_its_successor(
    pipeline: Pipeline, start: Start
) -> None:
    """A successor ends the connection of whom it replaces: a frozen one first sees just that."""
    log = Log(2)
    running = start(log)
    wait_until(lambda: log.confirmed and log.confirmed[-1] == 20, "the last confirm")
    successor = pipeline.publisher()
    successor.acquire()
    log.fail_at[30] = SourceUnavailable("the connection was ended")
    wait_until(lambda: running.error is not None, "the replaced owner to end")
    assert isinstance(running.error, Fenced)
    successor.add(item_batch(30, [30]))
    assert successor.commit() is not None
    successor.close()


def test_everything_is_published_once_and_confirmed_after(pipeline: Pipeline, start: Start) -> None:
    log = Log(50)
    running = start(log)
    wait_until(lambda: log.confirmed and log.confirmed[-1] == 500, "the last confirm")
    running.end()
    found = commits_of(pipeline)
    assert len(found) == len(set(found)) == 50
    assert log.confirmed == sorted(log.confirmed)
    stored = PositionsTopic(pipeline.kafka, pipeline.name).read(pipeline.source)
    assert stored.position == {"version": 1, "number": 500}


def test_a_source_that_drops_the_connection_repeats_no_event(
    pipeline: Pipeline, start: Start
) -> None:
    log = Log(30)
    log.fail_at = {n: SourceUnavailable(f"gone at {n}") for n in (10, 50, 60, 290)}
    running = start(log)
    wait_until(lambda: log.confirmed and log.confirmed[-1] == 300, "the last confirm")
    running.end()
    found = commits_of(pipeline)
    assert len(found) == len(set(found)) == 30
    assert len(log.opened_after) == 5
    assert any("gone at 50" in state for state in running.desk.states)


def test_a_gap_stops_the_worker_by_name(start: Start) -> None:
    log = Log(3)
    log.fail_at = {20: GapError("the slot is lost", hint="drop it")}
    running = start(log)
    wait_until(lambda: running.error is not None, "the worker to stop")
    assert isinstance(running.error, GapError)


def test_paused_means_no_connection_and_resumed_means_no_loss(
    pipeline: Pipeline, start: Start
) -> None:
    log = Log(5)
    running = start(log)
    wait_until(lambda: 50 in log.confirmed, "the first five")
    running.desk.requests.append(Command("pause"))
    wait_until(lambda: running.desk.states[-1:] == ["paused"], "the pause")
    log.length = 8
    running.desk.requests.append(Command("resume"))
    wait_until(lambda: 80 in log.confirmed, "the rest")
    running.end()
    found = commits_of(pipeline)
    assert len(found) == len(set(found)) == 8


def test_a_command_of_the_source_reaches_it_between_two_reads(start: Start) -> None:
    log = Log(1)
    running = start(log)
    running.desk.requests.append(Command("backfill", {"table": "public.items"}))
    wait_until(lambda: log.commands, "the command")
    assert log.commands == [("backfill", {"table": "public.items"})]


def test_a_command_is_acknowledged_only_after_a_commit_that_followed_it(start: Start) -> None:
    log = Log(1)
    running = start(log)
    wait_until(lambda: 10 in log.confirmed, "the first commit")
    running.desk.requests.append(Command("backfill", {"table": "public.items"}))
    wait_until(lambda: log.commands, "the command")
    assert running.desk.acknowledged == 0
    log.length = 2
    wait_until(lambda: running.desk.acknowledged == 1, "the acknowledgement")
    assert 20 in log.confirmed
