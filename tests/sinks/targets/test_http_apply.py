"""An HTTP endpoint and its cursors: what a kill, an outage, a refusal and a second worker leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from cdc.connector import Context
from cdc.errors import TargetUnavailable
from fix_http import Answer, Asked, Endpoint, Receiver
from fix_pipeline import Pipeline, wait_until
from schemas.change import Cell, Stamp
from sinks.target import Span, TopicPartition
from sinks.targets import http
from sinks.testing import PLACE, SECOND, span
from sinks.testing_changes import CHANGES, changed, told

Make = Callable[..., Endpoint]

# A worker that applies three times and is killed on the way.
WORKER = """
import json, sys
from cdc.connector import Context
from cdc.kafka import KafkaConfig
from sinks.targets.http import Config, create
from sinks.testing import span
from sinks.testing_changes import CHANGES, changed, told

bootstrap, pipeline, options = sys.argv[1:]
kafka = KafkaConfig.model_validate({"bootstrap": bootstrap, "registry": "http://127.0.0.1:1"})
config = Config.model_validate({"tables": [], **json.loads(options)})
target = create(Context(pipeline, "crm", kafka), config)
target.open()
target.prepare(CHANGES)
target.apply(told(changed(0, b"1", b"pen", None)), [span(None, 1)])
target.apply(told(changed(1, b"1", b"cup", None), changed(2, b"2", b"jar", None)), [span(1, 3)])
target.apply(told(*(changed(n, b"%d" % n, b"many", None) for n in range(3, 40))), [span(3, 40)])
"""
POINTS = {
    "sink.before_stage": (1, 1),
    "sink.before_cursor": (1, 3),
    "sink.before_commit": (1, 3),
    "sink.after_commit": (3, 3),
}
"""Failpoint → the cursor it leaves, and how many changes were sent by then."""


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_worker_killed_anywhere_repeats_its_requests_with_the_same_keys(
    pipeline: Pipeline, concurrency: int
) -> None:
    with ExitStack() as stack:
        receivers = {point: Receiver() for point in POINTS}
        for receiver in receivers.values():
            stack.callback(receiver.close)
        workers = [
            _started(
                stack,
                _name(pipeline, point),
                receivers[point],
                pipeline,
                concurrency=concurrency,
                failpoint=f"{point}=kill:2",
            )
            for point in POINTS
        ]
        for worker in workers:
            _, said = worker.communicate(timeout=60)
            assert worker.returncode == -signal.SIGKILL, said
        for (point, (cursor, sent)), receiver in zip(
            POINTS.items(), receivers.values(), strict=True
        ):
            endpoint = Endpoint(receiver, pipeline, concurrency=concurrency)
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


def _started(
    stack: ExitStack, name: str, receiver: Receiver, pipeline: Pipeline, **more: Any
) -> subprocess.Popen[str]:
    """Start the worker; `more` are its options, and the `failpoint` it dies at."""
    failpoint = more.pop("failpoint", "")
    options = json.dumps({"url": receiver.url, **more})
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, pipeline.kafka.bootstrap, name, options],
        env={**os.environ, "CDC_FAILPOINTS": failpoint, "PYTHONPATH": "."},
        stderr=subprocess.PIPE,
        text=True,
    )
    stack.callback(process.kill)
    return process


def test_a_worker_killed_with_requests_under_way_skips_nothing(
    pipeline: Pipeline, receiver: Receiver
) -> None:
    waiting, dead = threading.Semaphore(0), threading.Event()

    def judge(_: Asked) -> None:
        if len(receiver.asked) > 12 and not dead.is_set():
            waiting.release()
            dead.wait(60)

    receiver.judge = judge
    with ExitStack() as stack:
        stack.callback(dead.set)
        worker = _started(stack, pipeline.name, receiver, pipeline, concurrency=8)
        for _ in range(3):
            assert waiting.acquire(timeout=60)
        worker.kill()
        worker.communicate(timeout=60)
    before = receiver.names()
    target = Endpoint(receiver, pipeline, concurrency=8).open(CHANGES)
    stored = target.cursors([PLACE])[PLACE]
    assert stored is not None
    assert stored.offset == 3
    target.apply(told(*(changed(n, b"%d" % n, b"many", None) for n in range(3, 40))), [span(3, 40)])
    target.close()
    assert set(receiver.names()[len(before) :]) > set(before[3:])
    assert len(set(receiver.known)) == 40


def test_an_error_with_others_under_way_leaves_each_partition_where_it_is_answered(
    make_endpoint: Make, receiver: Receiver
) -> None:
    """Changes 0, 2, 4 … of a source are in one partition, 1, 3, 5 … in the other."""

    def of(place: int) -> Sequence[Cell]:
        row = list(changed(place // 2, b"%d" % place, b"pen", None, at=Stamp(1, 100, place)))
        row[7] = b"%d" % (place % 2)
        return row

    def judge(asked: Asked) -> Answer | None:
        if not asked.path.endswith("/7"):
            return None
        wait_until(lambda: len(receiver.known) >= 9, "those behind it are answered")
        return 503, {}, b""

    receiver.judge = judge
    endpoint = make_endpoint(concurrency=4)
    target = endpoint.open(CHANGES)
    steps = told(*(of(place) for place in range(20)))
    with pytest.raises(TargetUnavailable, match="503"):
        target.apply(steps, [span(None, 10), span(None, 10, SECOND)])
    stored = target.cursors([PLACE, SECOND])
    assert {p: (c.offset, c.stamp) for p, c in stored.items() if c is not None} == {
        PLACE: (4, Stamp(1, 100, 6)),
        SECOND: (3, Stamp(1, 100, 5)),
    }
    before = len(receiver.asked)
    receiver.judge = lambda _: None
    endpoint.config.circuit._until = 0.0  # the pause is over
    again = endpoint.open(CHANGES)
    spans = [Span(place, stored[place], span(None, 10).end) for place in (PLACE, SECOND)]
    again.apply(told(*(of(place) for place in range(7, 20))), spans)
    assert sorted(receiver.names()[before:]) == sorted(
        f"shop.public.items:1-100-{place}-0" for place in range(7, 20)
    )
    assert len(receiver.known) == len(set(receiver.known)) == 20
    assert {p: c.offset for p, c in again.cursors([PLACE, SECOND]).items() if c} == {
        PLACE: 10,
        SECOND: 10,
    }


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
