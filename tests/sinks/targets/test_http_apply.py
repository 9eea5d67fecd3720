"""An HTTP endpoint and its cursors: what a kill, an outage, a refusal and a second worker leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from cdc.connector import Context
from cdc.errors import TargetUnavailable
from cdc.publish import Publisher
from fix_http import Answer, Asked, Endpoint, Receiver
from fix_pipeline import Pipeline, wait_until
from fix_sink import Running, changes, commit, delete, insert, piece, update
from schemas.change import ABSENT, Change, Op
from sinks.letters import LetterTopic
from sinks.target import TopicPartition
from sinks.targets import http
from sinks.testing import PLACE, span
from sinks.testing_changes import CHANGES, changed, told

Make = Callable[..., Endpoint]

# A worker that applies twice and is killed on the way.
WORKER = """
import sys
from cdc.connector import Context
from cdc.kafka import KafkaConfig
from sinks.targets.http import Config, create
from sinks.testing import span
from sinks.testing_changes import CHANGES, changed, told

url, bootstrap, pipeline = sys.argv[1:]
kafka = KafkaConfig.model_validate({"bootstrap": bootstrap, "registry": "http://127.0.0.1:1"})
target = create(Context(pipeline, "crm", kafka), Config.model_validate({"url": url, "tables": []}))
target.open()
target.prepare(CHANGES)
target.apply(told(changed(0, b"1", b"pen", None)), [span(None, 1)])
target.apply(told(changed(1, b"1", b"cup", None), changed(2, b"2", b"jar", None)), [span(1, 3)])
"""
POINTS = {
    "sink.before_stage": (1, 1),
    "sink.before_cursor": (1, 3),
    "sink.before_commit": (1, 3),
    "sink.after_commit": (3, 3),
}
"""Failpoint → the cursor it leaves, and how many changes were sent by then."""


def test_a_worker_killed_anywhere_repeats_its_requests_with_the_same_keys(
    pipeline: Pipeline,
) -> None:
    with ExitStack() as stack:
        receivers = {point: Receiver() for point in POINTS}
        for receiver in receivers.values():
            stack.callback(receiver.close)
        workers = [
            _killed(stack, f"{point}=kill:2", receivers[point], pipeline) for point in POINTS
        ]
        for worker in workers:
            _, said = worker.communicate(timeout=60)
            assert worker.returncode == -signal.SIGKILL, said
        for (point, (cursor, sent)), receiver in zip(
            POINTS.items(), receivers.values(), strict=True
        ):
            endpoint = Endpoint(receiver, pipeline)
            endpoint.context = Context(_name(pipeline, point), "crm", pipeline.kafka)
            stack.callback(endpoint.close)
            assert len(receiver.asked) == sent
            target = endpoint.open(CHANGES)
            stored = target.cursors([PLACE])[PLACE]
            assert stored is not None
            assert stored.offset == cursor
            if cursor == 1:
                rows = (changed(1, b"1", b"cup", None), changed(2, b"2", b"jar", None))
                target.apply(told(*rows), [span(1, 3)])
            assert len(receiver.known) == 3
            assert endpoint.rows(CHANGES.table) == [(b"1", b"cup", None), (b"2", b"jar", None)]


def _name(pipeline: Pipeline, point: str) -> str:
    return f"{pipeline.name}-{point.replace('.', '-')}"


def _killed(
    stack: ExitStack, failpoint: str, receiver: Receiver, pipeline: Pipeline
) -> subprocess.Popen[str]:
    name = _name(pipeline, failpoint.partition("=")[0])
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, receiver.url, pipeline.kafka.bootstrap, name],
        env={**os.environ, "CDC_FAILPOINTS": failpoint, "PYTHONPATH": "."},
        stderr=subprocess.PIPE,
        text=True,
    )
    stack.callback(process.kill)
    return process


def test_after_an_outage_the_rest_of_a_cut_is_sent(make_endpoint: Make, receiver: Receiver) -> None:
    endpoint = make_endpoint()
    target = endpoint.open(CHANGES)
    receiver.faults.extend([(200, {}, b""), (503, {"Retry-After": "60"}, b"")])
    rows = [changed(n, b"%d" % n, b"pen", None) for n in range(3)]
    with pytest.raises(TargetUnavailable, match="503"):
        target.apply(told(*rows), [span(None, 3)])
    stored = target.cursors([PLACE])[PLACE]
    assert stored is not None
    assert stored.offset == 1
    with pytest.raises(TargetUnavailable, match="503") as caught:
        endpoint.open()  # the next session: the circuit is open still
    assert "60 s" in caught.value.hint or "59 s" in caught.value.hint
    assert len(receiver.asked) == 2


def test_a_request_whose_answer_was_lost_has_its_effect_once(
    make_endpoint: Make, receiver: Receiver
) -> None:
    endpoint = make_endpoint()
    receiver.faults.append("cut after")
    row = changed(0, b"1", b"pen", None)
    with pytest.raises(TargetUnavailable):
        endpoint.open(CHANGES).apply(told(row), [span(None, 1)])
    again = Endpoint(receiver, _like(endpoint))
    try:
        again.open(CHANGES).apply(told(row), [span(None, 1)])
    finally:
        again.close()
    assert len(receiver.asked) == 2
    assert len(receiver.known) == 1


def _like(endpoint: Endpoint) -> Any:
    class Same:
        name, kafka = endpoint.context.pipeline, endpoint.context.kafka

    return Same()


def test_a_topic_made_anew_is_not_read_on_at_its_old_cursor(make_endpoint: Make) -> None:
    endpoint = make_endpoint()
    target = endpoint.open(CHANGES)
    target.apply([], [span(None, 1)])
    other = TopicPartition(PLACE.topic, "recreated", PLACE.partition)
    with pytest.raises(Exception, match="was recreated") as caught:
        target.cursors([other])
    assert "rewind crm" in getattr(caught.value, "hint", "")


def test_dropping_a_sink_forgets_its_cursors_and_asks_the_endpoint_nothing(
    make_endpoint: Make, receiver: Receiver
) -> None:
    endpoint = make_endpoint()
    target = endpoint.open(CHANGES)
    target.apply([], [span(None, 1)])
    said = list(http.drop(endpoint.context, endpoint.config, dry_run=False))
    assert said == [f"cursors of sink crm in {endpoint.context.pipeline}.cursors"]
    assert endpoint.open(CHANGES).cursors([PLACE]) == {PLACE: None}
    assert receiver.asked == []


@pytest.fixture
def run(receiver: Receiver, run_into: Callable[..., Running]) -> Callable[..., Running]:
    """Start a sink into the endpoint."""
    return partial(run_into, http, url=receiver.url)


def no_bad_names(asked: Asked) -> Answer | None:
    bad = isinstance(asked.body, dict) and asked.body.get("name") == "bad"
    return (422, {}, b"no such name") if bad else None


def test_a_worker_sends_every_change_and_puts_aside_what_is_refused(
    run: Callable[..., Running], publisher: Publisher, receiver: Receiver, pipeline: Pipeline
) -> None:
    receiver.judge = no_bad_names
    receiver.faults.append((500, {}, b""))  # and again after the pause
    first = changes(1, insert(b"1", b"pen"), insert(b"2", b"bad"), insert(b"3", b"cup"))
    second = changes(2, update(b"1", b"pencil"), delete(b"3", None), update(b"1", ABSENT))
    moved = Change(Op.UPDATE, (b"1", b"pencil"), (b"9", b"pencil"))
    third = changes(3, moved)
    left = changes(4, insert(b"5", b"draft"), update(b"2", b"draft"), Change(Op.TRUNCATE))
    for number, rows in enumerate((first, second, third, left), 1):
        commit(publisher, piece(number, rows))
    running = run(
        tables={f"{pipeline.source}.*": {"where": "id == 1 || name != 'draft'"}},
        truncate={"method": "POST", "path": "/{$table}/clear"},
        partial="skip",
    )

    def done() -> bool:
        running.check()
        return bool(receiver.asked) and receiver.asked[-1].path.endswith("/clear")

    wait_until(done, "every change is sent")
    running.stop()
    went = [(one.method, one.path.removeprefix("/api")) for one in receiver.asked[1:]]
    assert went == [
        ("PUT", "/items/1"),
        ("PUT", "/items/2"),
        ("PUT", "/items/3"),
        ("PUT", "/items/1"),
        ("DELETE", "/items/3"),
        ("DELETE", "/items/1"),
        ("PUT", "/items/9"),
        ("DELETE", "/items/2"),
        ("POST", "/items/clear"),
    ]
    assert "retrying" in running.told.states
    letters = LetterTopic(pipeline.kafka, pipeline.name)
    assert ["no such name" in letter.reason for letter in letters.ledger("crm").open()] == [True]
    letters.close()
