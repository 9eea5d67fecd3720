"""The parts of a snapshot that need no server: who sees what, what is remembered, what is left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.postgres.chunks import Snapshot
from cdc.snapshot import Job, Jobs, Touched, mark_of
from schemas.table import TableId

ITEM, OTHER = TableId("public", "item"), TableId("public", "other")
EPOCH = 1 << 32


@pytest.mark.parametrize(
    ("text", "xid", "seen"),
    [
        ("100:110:105", 99, True),
        ("100:110:105", 104, True),
        ("100:110:105", 105, False),
        ("100:110:105", 110, False),
        ("100:100:", 99, True),
        (f"{EPOCH + 5}:{EPOCH + 9}:", EPOCH - 3, True),
        (f"{EPOCH + 5}:{EPOCH + 9}:{EPOCH + 7}", 7, False),
        (f"{EPOCH + 5}:{EPOCH + 9}:", 6, True),
        (f"{EPOCH - 4}:{EPOCH - 2}:", 3, False),
    ],
)
def test_a_snapshot_sees_what_postgres_says_it_sees(
    text: str,
    xid: int,
    seen: bool,  # noqa: FBT001 - the expected answer
) -> None:
    assert Snapshot.parse(text).sees(xid & 0xFFFFFFFF) is seen


@given(st.integers(1 << 20, 1 << 50), st.integers(-(1 << 30), 1 << 30))
def test_an_xid_finds_its_epoch_wherever_the_counter_stands(xmax: int, distance: int) -> None:
    full = xmax + distance
    if full > 2:
        snapshot = Snapshot(xmax, xmax, frozenset())
        assert snapshot.sees(full & 0xFFFFFFFF) is (full < xmax)


def below(limit: int) -> Snapshot:
    return Snapshot(limit, limit, frozenset())


def test_a_key_is_stale_until_its_last_toucher_is_visible() -> None:
    touched = Touched()
    touched.watch(ITEM)
    touched.touch(ITEM, [(b"1",), (b"2",)], 10)
    touched.touch(ITEM, [(b"2",)], 20)
    assert touched.stale(ITEM, below(15).sees) == {(b"2",)}
    touched.forget(below(15).sees)
    assert touched.stale(ITEM, below(0).sees) == {(b"2",)}
    assert touched.stale(ITEM, below(21).sees) == set()


def test_an_unseen_truncation_makes_everything_stale() -> None:
    touched = Touched()
    touched.watch(ITEM)
    touched.touch_all(ITEM, 10)
    assert touched.stale(ITEM, below(10).sees) is None
    assert touched.stale(ITEM, below(11).sees) == set()


def test_what_was_delivered_before_the_watch_must_be_visible_first() -> None:
    touched = Touched()
    touched.delivered(10)
    touched.watch(ITEM)
    touched.delivered(30)
    assert not touched.settled(ITEM, below(10).sees)
    assert touched.settled(ITEM, below(20).sees)
    touched.watch(OTHER)
    assert not touched.settled(OTHER, below(20).sees)


def test_jobs_come_back_as_they_were_stored() -> None:
    jobs = Jobs()
    jobs.add(Job(ITEM, where="id > 3", after=("3", "x"), done=4, estimate=9, settle=True))
    jobs.add(Job(OTHER))
    [first, second] = jobs.progress
    assert list(Jobs([first, second])) == list(jobs)
    job = jobs.get(ITEM)
    assert job is not None
    jobs.finish(job)
    assert jobs.progress[-1].value is None
    assert [left.table for left in jobs] == [OTHER]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"null", b"\xff", b'{"other": 1}'])
def test_a_message_that_is_no_watermark_is_none(content: bytes) -> None:
    assert mark_of(content) is None
