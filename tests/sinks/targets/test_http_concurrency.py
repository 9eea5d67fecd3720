"""Several requests under way at once: whose order is kept, and what an error leaves."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from itertools import combinations
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.errors import ConfigError, TargetUnavailable
from fix_http import Answer, Asked, Bench, Receiver, Watch
from fix_pipeline import wait_until
from schemas.change import ABSENT, Cell, Stamp
from schemas.table import TableSchema
from sinks.http.schedule import Schedule
from sinks.journal import ROW_KEY
from sinks.target import RowsRefused
from sinks.testing import span
from sinks.testing_changes import CHANGES, changed

Make = Callable[..., Bench]
CLEAR = {"method": "POST", "path": "/{$table}/clear"}
_DEADLINE_S = 10.0


def rows(count: int, first: int = 0) -> list[Sequence[Cell]]:
    """Return changes of as many rows."""
    return [changed(n, b"%d" % n, b"pen %d" % n, None) for n in range(first, first + count)]


def named(place: int) -> str:
    """Return the name of the change at an offset."""
    return f"shop.public.items:1-100-{place}-0"


# Order


class Deed(NamedTuple):
    """A change as the test knows it: `event` is shared by the records of one event."""

    row: Sequence[Cell]
    name: str
    identity: int
    event: int
    is_truncate: bool = False


@st.composite
def histories(draw: st.DrawFn) -> list[Deed]:
    """Draw what happens to four rows: also deleted and made anew, moved, and all emptied."""
    out: list[Deed] = []

    def tell(op: str, identity: int, event: int, sub: int = 0) -> None:
        at, text = Stamp(1, 100, event, sub), b"v%d" % len(out)
        cells: tuple[Cell, ...] = {"d": (ABSENT, ABSENT), "t": (None, None)}.get(op, (text, None))
        key = None if op == "t" else b"%d" % identity
        row = changed(len(out), key, *cells, op=op, at=at)
        out.append(
            Deed(row, f"shop.public.items:{'-'.join(map(str, at))}", identity, event, op == "t")
        )

    identities = st.integers(0, 3)
    for event in range(draw(st.integers(5, 30))):
        what = draw(st.sampled_from("uuuudmmt"))
        identity = draw(identities)
        if what == "m":
            tell("d", identity, event)
            tell("c", draw(identities), event, 1)
        else:
            tell(what, identity, event)
    return out


def in_order(one: Deed, other: Deed) -> bool:
    """Tell whether `other`, which is later, must wait for `one`."""
    return (
        one.identity == other.identity
        or one.event == other.event
        or one.is_truncate
        or other.is_truncate
    )


LIST = {
    "upsert": {"method": "POST", "path": "/list"},
    "delete": {"method": "POST", "path": "/gone"},
}
OPTIONS = st.fixed_dictionaries(
    {"concurrency": st.sampled_from([2, 5, 16]), "batch": st.sampled_from([1, 3])}
)


@settings(max_examples=40)
@given(histories(), OPTIONS, st.sampled_from([{}, LIST]), st.integers(0, 2**32))
def test_what_depends_on_a_change_is_sent_when_that_is_answered(
    history: list[Deed], options: dict[str, Any], forms: dict[str, Any], seed: int
) -> None:
    chance = Random(seed)  # noqa: S311 - an example must repeat
    with closing(Receiver()) as receiver:
        receiver.judge = watch = Watch(lambda _: chance.random() * 0.004)
        options = {**options, **forms, "truncate": CLEAR}
        with closing(Bench(receiver, CHANGES, **options)) as bench:
            bench.send(*(deed.row for deed in history))
        for one, other in combinations(history, 2):
            if in_order(one, other):
                assert watch.is_before(one.name, other.name), (one, other)
        assert sorted(receiver.names()) == sorted(deed.name for deed in history)


def test_a_change_that_waits_holds_up_no_other_row(bench: Make, receiver: Receiver) -> None:
    meeting = threading.Barrier(3)

    def judge(asked: Asked) -> None:
        if asked.body["name"] != "again":
            meeting.wait(_DEADLINE_S)  # the other two rows come while this one is under way

    receiver.judge = judge
    again = [changed(n, b"1", b"again", None) for n in (1, 2, 3)]
    later = [changed(n, b"%d" % n, b"other", None) for n in (4, 5)]
    bench(concurrency=3).send(changed(0, b"1", b"first", None), *again, *later)
    assert len(receiver.asked) == 6


def test_of_what_may_begin_the_oldest_does() -> None:
    began: list[int] = []
    added = threading.Event()

    def work(number: int) -> None:
        began.append(number)
        if number == 0:
            assert added.wait(_DEADLINE_S)
        elif number == 2:
            wait_until(lambda: len(began) > 2, "the place of the first is taken", _DEADLINE_S)

    schedule = Schedule(2, lambda: 2)
    with closing(schedule), schedule:
        for number, lock in enumerate([0, 0, 1, 2, 3]):
            schedule.add(partial(work, number), {lock})
        added.set()
    assert began[2] == 1


def test_rows_that_go_to_one_place_keep_their_order(bench: Make, receiver: Receiver) -> None:
    meeting = threading.Barrier(2)

    def meet(asked: Asked) -> None:
        if asked.key in (named(0), named(1)):
            meeting.wait(_DEADLINE_S)

    receiver.judge = watch = Watch(lambda _: 0.02, meet)
    one = bench(concurrency=4, upsert={"method": "PUT", "path": "/people/{name}"})
    one.send(*(changed(n, b"%d" % n, text, None) for n, text in enumerate([b"a", b"b", b"a"])))
    assert watch.is_before(named(0), named(2))


def test_rows_that_all_go_to_the_path_of_their_table_are_under_way_at_once(
    bench: Make, receiver: Receiver
) -> None:
    meeting = threading.Barrier(2)

    def judge(_: Asked) -> None:
        meeting.wait(_DEADLINE_S)

    receiver.judge = judge
    bench(concurrency=2, upsert={"method": "POST", "path": "/{$table}"}).send(*rows(2))
    assert len(receiver.asked) == 2


def test_changes_whose_row_nobody_knows_go_one_after_the_other(
    bench: Make, receiver: Receiver
) -> None:
    receiver.judge = watch = Watch(lambda _: 0.005)
    keyless = TableSchema(CHANGES.table, CHANGES.columns, CHANGES.key, ((ROW_KEY, "[]"),))
    bench(concurrency=4, upsert={"method": "POST", "path": "/notes"}).send(*rows(5), schema=keyless)
    bench(concurrency=4).send(*([*row[:-1], None] for row in rows(5, 5)))  # no place in a source
    assert len(receiver.asked) == 10
    assert watch.most == 1


# What an error leaves


def failing(place: int, answer: Answer) -> Watch:
    """Answer the change at an offset by `answer`, when the one two behind it has its answer."""

    def then(asked: Asked) -> Answer | None:
        if asked.key != named(place):
            return None
        wait_until(lambda: named(place + 2) in watch.ended, "two more are answered", _DEADLINE_S)
        return answer

    watch = Watch(then=then)
    return watch


def test_an_error_with_others_under_way_skips_nothing(bench: Make, receiver: Receiver) -> None:
    receiver.judge = watch = failing(7, (503, {}, b""))
    one = bench(concurrency=4)
    one.delivery.begin([span(None, 20)])
    with pytest.raises(TargetUnavailable, match="503"):
        one.send(*rows(20))
    assert watch.began.keys() == watch.ended.keys()
    [moved] = one.delivery.progress()
    assert (moved.end.offset, moved.end.stamp) == (7, Stamp(1, 100, 6))
    before = receiver.names()
    assert set(before) >= {named(n) for n in range(10)}
    receiver.judge = lambda _: None
    again = bench(concurrency=4)
    again.send(*rows(13, 7))
    assert sorted(receiver.names()[len(before) :]) == sorted(named(n) for n in range(7, 20))
    assert sorted(receiver.known) == sorted(named(n) for n in range(20))


def test_what_is_known_as_done_is_not_sent_again_behind_a_refused_change(
    bench: Make, receiver: Receiver
) -> None:
    receiver.judge = failing(3, (422, {}, b"no such name"))
    one = bench(concurrency=4)
    one.delivery.begin([span(None, 20)])
    given_ = rows(20)
    with pytest.raises(RowsRefused, match="no such name") as caught:
        one.send(*given_)
    assert [key for _, key in caught.value.rows] == [tuple(given_[3][6:9])]
    assert {named(4), named(5)} <= set(receiver.names())
    one.delivery.begin([span(None, 20)])
    one.send(*given_[:3], *given_[4:])
    assert sorted(receiver.names()) == sorted(named(n) for n in range(20))
    [moved] = one.delivery.progress()
    assert moved.end.offset == 20


def test_rows_that_are_refused_together_are_named_together(bench: Make, receiver: Receiver) -> None:
    meeting = threading.Barrier(3)

    def judge(_: Asked) -> Answer:
        meeting.wait(_DEADLINE_S)
        return 422, {}, b"never"

    receiver.judge = judge
    given_ = rows(3)
    with pytest.raises(RowsRefused) as caught:
        bench(concurrency=3).send(*given_)
    assert {key for _, key in caught.value.rows} == {tuple(row[6:9]) for row in given_}


def test_a_refused_batch_is_halved_while_others_are_under_way(
    bench: Make, receiver: Receiver
) -> None:
    meeting = threading.Barrier(4)

    def judge(asked: Asked) -> Answer | None:
        if len(asked.body) == 4:
            meeting.wait(_DEADLINE_S)
        bad = any(item["body"]["name"] == "pen 5" for item in asked.body)
        return (422, {}, b"no such name") if bad else None

    receiver.judge = judge
    one = bench(concurrency=4, batch=4)
    given_ = rows(16)
    with pytest.raises(RowsRefused, match="no such name") as caught:
        one.send(*given_)
    assert [key for _, key in caught.value.rows] == [tuple(given_[5][6:9])]
    one.send(*given_[:5], *given_[6:])
    assert sorted(receiver.documents) == sorted(f"/api/items/{n}" for n in range(16) if n != 5)
    assert receiver.names().count(named(5)) == 3  # in its batch, in half of it, and alone
    assert receiver.names().count(named(8)) == 1


def test_requests_under_way_that_are_told_to_wait_are_one_failure(
    bench: Make, receiver: Receiver
) -> None:
    meeting = threading.Barrier(4)

    def judge(_: Asked) -> Answer:
        meeting.wait(_DEADLINE_S)
        return 429, {"Retry-After": "60"}, b""

    receiver.judge = judge
    one = bench(concurrency=4)
    with pytest.raises(TargetUnavailable, match="429") as caught:
        one.send(*rows(20))
    assert "times in a row" not in str(caught.value)
    assert "60 s" in caught.value.hint
    with pytest.raises(TargetUnavailable, match="429"):
        one.send(*rows(20))
    assert len(receiver.asked) == 4


def test_after_a_failure_one_request_alone_is_the_trial(bench: Make, receiver: Receiver) -> None:
    one = bench(concurrency=4)
    one.circuit.failed(one.circuit.check(), "down")
    one.circuit._until = 0.0  # the pause is over
    receiver.judge = watch = Watch(lambda _: 0.02)
    one.send(*rows(9))
    assert all(watch.is_before(named(0), named(n)) for n in range(1, 9))
    assert 2 <= watch.most <= 4


def test_a_slow_answer_holds_up_what_is_far_behind_it(bench: Make, receiver: Receiver) -> None:
    def judge(asked: Asked) -> Answer | None:
        if asked.key != named(0):
            return None
        wait_until(lambda: len(receiver.asked) == 32, "as many are sent as may be", _DEADLINE_S)
        time.sleep(0.1)  # further ones would come now
        return 503, {}, b""

    receiver.judge = judge
    with pytest.raises(TargetUnavailable, match="503"):
        bench(concurrency=2).send(*rows(100))
    assert len(receiver.asked) == 32


def test_of_errors_at_once_the_one_that_stops_the_sink_is_told() -> None:
    meeting = threading.Barrier(3)

    def work(error: Exception) -> None:
        meeting.wait(_DEADLINE_S)
        raise error

    errors = [
        TargetUnavailable("busy"),
        ConfigError("wrong"),
        RowsRefused({(CHANGES.table, ()): "no"}),
    ]
    schedule = Schedule(3, lambda: 3)
    with closing(schedule), pytest.raises(ConfigError, match="wrong"), schedule:  # noqa: PT012
        for error in errors:
            schedule.add(partial(work, error), set())
        schedule.drain()


# Who we are, and how fast


def oauth(receiver: Receiver) -> dict[str, str]:
    return {"token_url": f"{receiver.url}/token", "client_id": "me", "client_secret": "s3cret"}


def test_one_of_several_requests_asks_for_the_token(bench: Make, receiver: Receiver) -> None:
    refused = threading.Event()
    meeting = threading.Barrier(4, refused.set)

    def judge(asked: Asked) -> Answer | None:
        if asked.path == "/api/token":
            return 200, {}, b'{"access_token": "%s"}' % (b"new" if refused.is_set() else b"old")
        if asked.headers["Authorization"] == "Bearer old" and asked.body["name"] != "pen 0":
            meeting.wait(_DEADLINE_S)
            return 401, {}, b""
        return None

    receiver.judge = judge
    one = bench(concurrency=4, auth=oauth(receiver))
    one.send(*rows(1))
    one.send(*rows(4, 1))
    paths = [asked.path for asked in receiver.asked]
    assert paths.count("/api/token") == 2
    assert len(receiver.known) == 5


def test_a_token_that_is_not_given_is_asked_for_once(bench: Make, receiver: Receiver) -> None:
    receiver.judge = Watch(lambda _: 0.2, lambda _: (400, {}, b""))
    with pytest.raises(ConfigError, match="token endpoint"):
        bench(concurrency=8, auth=oauth(receiver)).send(*rows(8))
    assert [asked.path for asked in receiver.asked] == ["/api/token"]


def test_an_endpoint_that_takes_50_ms_is_sent_several_requests_at_once(
    bench: Make, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    most: dict[int, int] = {}
    for concurrency, first in ((1, 0), (16, 32)):
        receiver.judge = watch = Watch(lambda _: 0.05)
        started = time.monotonic()
        bench(concurrency=concurrency).send(*rows(32, first))
        seconds = time.monotonic() - started
        most[concurrency] = watch.most
        with capsys.disabled():
            sys.stdout.write(f"\n50 ms, concurrency {concurrency}: {32 / seconds:.0f} changes/s")
    assert most[1] == 1
    assert 2 <= most[16] <= 16
    assert len(receiver.known) == 64
