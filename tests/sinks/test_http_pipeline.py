"""The worker of a sink into an HTTP endpoint, from Kafka to requests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import count
from random import Random
from typing import Any

import pytest

from cdc.publish import Publisher
from fix_http import Answer, Asked, Receiver, Watch
from fix_pipeline import Pipeline, wait_until
from fix_sink import Running, changes, commit, delete, insert, piece, update
from schemas.change import ABSENT, Change, Op
from sinks.letters import LetterTopic
from sinks.targets import http


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


class History:
    """What happens to a dozen rows, and what an endpoint that refuses `bad` names ends with."""

    def __init__(self, seed: int) -> None:
        self._chance = Random(seed)  # noqa: S311 - the same history every time
        self._rows: set[int] = set()
        self.documents: dict[str, dict[str, Any]] = {}
        self.refused = 0

    def change(self, number: int) -> Change:
        """Return the next change; `number` is its own."""
        name = "bad" if self._chance.random() < 0.04 else f"v{number}"
        identity = self._chance.randrange(12)
        if identity not in self._rows:
            self._keep(identity, name)
            return insert(b"%d" % identity, name.encode())
        what = self._chance.choice("uuudm")
        if what == "u":
            self._keep(identity, name)
            return update(b"%d" % identity, name.encode())
        self._rows.discard(identity)
        self.documents.pop(f"/api/items/{identity}", None)
        if what == "d" or len(self._rows) == 11:
            return delete(b"%d" % identity, None)
        other = next(n for n in range(12) if n not in self._rows and n != identity)
        self._keep(other, name)
        return Change(Op.UPDATE, (b"%d" % identity, b"old"), (b"%d" % other, name.encode()))

    def _keep(self, identity: int, name: str) -> None:
        self._rows.add(identity)
        if name == "bad":
            self.refused += 1
        else:
            self.documents[f"/api/items/{identity}"] = {"id": identity, "name": name}


def test_a_worker_with_requests_under_way_ends_as_one_without(
    run: Callable[..., Running],
    make_publisher: Callable[..., Publisher],
    receiver: Receiver,
    pipeline: Pipeline,
) -> None:
    """Keys come again and move, over three partitions, with refusals, outages and lost answers."""
    history, numbers = History(11), count()
    publisher = make_publisher(partitions={"public.items": 3})
    for number in range(1, 26):
        rows = changes(number, *(history.change(next(numbers)) for _ in range(10)))
        commit(publisher, piece(number, rows))
    faults: dict[int, Answer] = {
        40: (503, {}, b""),
        90: (429, {"Retry-After": "1"}, b""),
        150: (500, {}, b""),
    }
    asked = count()
    receiver.judge = watch = Watch(
        lambda _: 0.003, lambda one: faults.get(next(asked)) or no_bad_names(one)
    )
    running = run(concurrency=8)
    commit(publisher, piece(26, changes(26, insert(b"99", b"last"))))
    wanted = history.documents | {"/api/items/99": {"id": 99, "name": "last"}}

    def done() -> bool:
        running.check()
        return receiver.documents == wanted

    wait_until(done, "every change is sent")
    running.stop()
    assert receiver.documents == wanted
    assert watch.most > 1
    assert running.told.states.count("retrying") >= len(faults)
    letters = LetterTopic(pipeline.kafka, pipeline.name)
    assert len(letters.ledger("crm").open()) == history.refused > 0
    letters.close()
    assert all(found == sorted(found) for found in first_places(receiver).values())


def first_places(receiver: Receiver) -> dict[str, list[list[int]]]:
    """Return the places of the changes of each row, in the order in which they first came."""
    first: dict[str, Asked] = {}
    for one in receiver.asked:
        first.setdefault(one.key, one)
    places = defaultdict(list)
    for name, one in first.items():
        places[one.path].append([int(number) for number in name.rpartition(":")[2].split("-")])
    return places
