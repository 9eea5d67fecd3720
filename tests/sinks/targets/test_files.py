"""Files hold every change once, whatever happens between two of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cdc.errors import StateError, TopicChanged
from fix_files import PLACE, Files, items, journal, offsets, row, steps
from schemas.change import Stamp
from schemas.table import Column, Type
from sinks.files.names import Name, chains
from sinks.target import Cursor, CursorMoved, Span, TopicPartition
from sinks.targets.files import FilesTarget
from sinks.testing import SECOND, span

# The chain of names


def test_rows_lie_in_a_file_named_by_their_offsets_and_the_cursor_is_read_from_it(
    store: Files,
) -> None:
    store.open().apply(items(3, 5), [span(None, 7)])
    zeros, seven = "0" * 20, f"{7:020d}"
    stamp = span(None, 7).end.stamp
    assert stamp is not None
    told = ".".join(f"{number:x}" for number in stamp)
    name = f"shop.items/shop.public.items@topic-1-0-{zeros}-{seven}-{told}-1of1.parquet"
    assert store.names() == [name]
    assert [(found["id"], found["name"], found["cdc_op"]) for found in store.rows()] == [
        (3, "item 3", "u"),
        (5, "item 5", "u"),
    ]
    assert store.open().cursors([PLACE, SECOND]) == {PLACE: span(None, 7).end, SECOND: None}


def test_a_batch_that_was_applied_is_not_applied_again(store: Files) -> None:
    target = store.open()
    target.apply(items(1), [span(None, 3)])
    for start in (None, 2):
        with pytest.raises(CursorMoved):
            target.apply(items(1), [span(start, 3)])
    target.apply(items(4), [span(3, 6)])
    assert offsets(store) == [1, 4]


def test_a_range_without_rows_is_kept_by_one_mark_and_joined_to_the_next(store: Files) -> None:
    target = store.open()
    target.apply(items(1), [span(None, 3)])
    for start, end in ((3, 5), (5, 9)):
        target.apply([], [span(start, end)])
        assert store.open().cursors([PLACE]) == {PLACE: span(None, end).end}
    assert [name for name in store.names() if name.endswith(".cursor")] == store.names()[1:]
    store.open().apply(items(10), [span(9, 12)])
    assert [name for name in store.names() if name.endswith(".cursor")] == []
    assert store.open().cursors([PLACE]) == {PLACE: span(None, 12).end}


def test_a_table_whose_columns_changed_in_a_batch_has_a_file_of_each(store: Files) -> None:
    wider = journal(Column("id", Type("int64")), Column("size", Type("float64")))
    both = [*items(1), *steps(row(2, b"2", b"1.5"), schema=wider)]
    store.open().apply(both, [span(None, 3)])
    assert [name.rpartition("-")[2] for name in store.names()] == ["1of2.parquet", "2of2.parquet"]
    assert [found.get("size") for found in store.rows()] == [None, 1.5]


A, B, C = (Name(PLACE, start, Cursor(start + 5), 1, 1, "csv") for start in (0, 5, 10))


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([A, C], "a gap from offset 5 to 10"),
        ([A, B, Name(PLACE, 5, Cursor(12), 1, 1, "csv")], "two files for 5"),
        ([A, Name(PLACE, 0, Cursor(4), 1, 2, "csv")], "not all parts of the range from offset 0"),
        ([Name(PLACE, 0, Cursor(5), 2, 2, "csv"), B, Name(PLACE, 9, Cursor(12), 1, 1, "csv")], "9"),
    ],
)
def test_a_gap_or_an_overlap_of_files_stops_the_sink(names: list[Name], told: str) -> None:
    with pytest.raises(StateError, match=told):
        chains(f"any/folder/{name}" for name in names)


def test_older_files_may_be_taken_away_and_files_of_others_lie_beside(store: Files) -> None:
    found = chains(["x/readme.md", f"x/{C}", f"y/{B}", "notes-0-late-00000000000000000003.csv"])
    assert found[PLACE].cursor == Cursor(15)
    assert [start for start, _ in found[PLACE].files] == [5, 10]


@pytest.mark.parametrize("topic_id", ["q-_8aZ09", "Ni3neGApTIy/ag3wULXQFw", "a+b/@-0=="])
def test_every_name_is_read_as_it_was_written(topic_id: str) -> None:
    topic = TopicPartition("my-shop.public.a_b-1", topic_id, 12)
    for stamp in (None, Stamp(3, 0x16B374D848, 12, 0)):
        name = Name(topic, 2**40, Cursor(2**41, stamp), 3, 11, "parquet")
        assert Name.read(str(name)) == name
        assert "/" not in str(name)


def test_files_of_a_topic_that_was_made_anew_stop_the_sink(store: Files) -> None:
    store.open().apply(items(1), [span(None, 3)])
    anew = TopicPartition(PLACE.topic, "topic-2", 0)
    with pytest.raises(TopicChanged, match="recreated"):
        store.open().cursors([anew])


# Killed on the way

WORKER = """
import json, sys
sys.path.insert(0, "tests")
from fix_files import Files, items
from sinks.testing import SECOND, span

store = Files(sys.argv[1], by_time="hour", storage=json.loads(sys.argv[2]))
target = store.open()
target.apply(items(1), [span(None, 3)])
spans = [span(3, 8), span(None, 4, SECOND)]
target.apply([*items(3, 4, 5), *items(2, partition=SECOND)], spans)
"""


@pytest.mark.parametrize(
    ("point", "visible", "reached"),
    [
        ("sink.before_stage=kill:2", [1], (3, None)),
        ("sink.before_cursor=kill:2", [1], (3, None)),
        ("sink.before_commit=kill:3", [1], (3, None)),
        ("sink.before_commit=kill:4", [1, 3], (3, None)),
        ("sink.before_commit=kill:6", [1, 3, 4, 5], (8, None)),
        ("sink.after_commit=kill:2", [1, 2, 3, 4, 5], (8, 4)),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_worker_killed_between_two_files_leaves_nothing_twice_and_nothing_out(
    request: pytest.FixtureRequest,
    kind: str,
    point: str,
    visible: list[int],
    reached: tuple[int, int | None],
) -> None:
    store: Files = request.getfixturevalue(kind)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            WORKER,
            store.path,
            json.dumps(store.config.storage.get_secret_value()),
        ],
        env={**os.environ, "CDC_FAILPOINTS": point, "PYTHONPATH": "."},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert offsets(store) == visible
    target = store.open()
    found = target.cursors([PLACE, SECOND])
    assert tuple(c and c.offset for c in found.values()) == reached
    # What follows is cut elsewhere than what was lost.
    first = [n for n in (3, 4, 5, 8, 9) if n >= reached[0]]
    spans = [span(reached[0], 11), span(reached[1], 6, SECOND)]
    second = [] if reached[1] else items(2, partition=SECOND)
    target.apply([*items(*first), *second], spans)
    assert offsets(store) == [1, 2, 3, 4, 5, 8, 9]
    assert [name for name in store.names() if name.endswith(".unfinished")] == []
    store.open()


# Cursors that an operator moves


def test_a_rewind_puts_files_aside_and_goes_on_where_one_begins(store: Files) -> None:
    target = store.open()
    for start, end in ((None, 3), (3, 6), (6, 9)):
        target.apply(items(end - 1), [span(start, end)])
    target.place({PLACE: Cursor(5)})
    assert offsets(store) == [2]
    assert target.cursors([PLACE]) == {PLACE: span(None, 3).end}
    target.apply(items(3, 8), [span(3, 10)])
    assert offsets(store) == [2, 3, 8]
    assert len([name for name in store.names() if name.startswith("_aside/")]) == 2
    target.place({PLACE: None})
    assert target.cursors([PLACE]) == {PLACE: None}
    assert offsets(store) == []


def test_a_rewind_before_the_oldest_file_does_not_begin_at_the_topics_start(store: Files) -> None:
    target = store.open()
    target.place({PLACE: Cursor(100)})
    target.apply(items(104), [Span(PLACE, Cursor(100), Cursor(109))])
    target.place({PLACE: Cursor(105)})
    assert target.cursors([PLACE]) == {PLACE: Cursor(100)}
    assert offsets(store) == []


def test_a_cursor_is_forgotten_wherever_it_was_put_before(store: Files) -> None:
    target = store.open()
    for place in (9, 50, 20):
        target.place({PLACE: Cursor(place)})
        assert store.open().cursors([PLACE]) == {PLACE: Cursor(place)}
    target.apply(items(25), [Span(PLACE, Cursor(20), Cursor(30))])
    target.place({PLACE: Cursor(28)})
    assert target.cursors([PLACE]) == {PLACE: Cursor(9)}
    target.place({PLACE: Cursor(40)})
    target.place({PLACE: None})
    assert store.open().cursors([PLACE]) == {PLACE: None}
    target.apply(items(1), [span(None, 3)])
    assert offsets(store) == [1]


def test_offsets_an_operator_passes_over_are_no_gap(store: Files) -> None:
    target = store.open()
    target.apply(items(1), [span(None, 3)])
    target.place({PLACE: Cursor(50)})
    assert store.open().cursors([PLACE]) == {PLACE: Cursor(50)}
    target.apply(items(60), [Span(PLACE, Cursor(50), Cursor(70))])
    assert offsets(store) == [1, 60]
    assert store.open().cursors([PLACE]) == {PLACE: Cursor(70)}


def test_a_worker_learns_that_another_wrote_and_goes_on_behind_it(store: Files) -> None:
    first, second = store.open(), store.open()
    first.apply(items(1), [span(None, 3)])
    with pytest.raises(CursorMoved):
        second.apply(items(1, 4), [span(None, 6)])
    second.apply(items(4), [span(3, 6)])
    with pytest.raises(CursorMoved):
        first.apply(items(4, 7), [span(3, 9)])
    assert offsets(store) == [1, 4]
    assert store.open().cursors([PLACE]) == {PLACE: span(None, 6).end}


def test_a_worker_that_stood_still_while_another_wrote_adds_nothing(
    store: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen, successor = store.open(), store.open()
    encoded = FilesTarget._encoded

    def late(self: FilesTarget, *given: Any) -> Any:
        files = encoded(self, *given)
        if self is frozen:
            successor.apply(items(1, 4), [span(None, 6)])
        return files

    monkeypatch.setattr(FilesTarget, "_encoded", late)
    with pytest.raises(CursorMoved):
        frozen.apply(items(1), [span(None, 3)])
    assert offsets(store) == [1, 4]
    assert store.open().cursors([PLACE]) == {PLACE: span(None, 6).end}


def test_a_worker_learns_that_it_was_rewound(store: Files) -> None:
    target = store.open()
    target.apply(items(1), [span(None, 3)])
    store.open().place({PLACE: Cursor(1)})
    with pytest.raises(CursorMoved):
        target.apply(items(4), [span(3, 6)])
    assert offsets(store) == []


def test_a_replayed_letter_is_one_file_however_often_it_is_written(store: Files) -> None:
    target = store.open()
    target.apply(items(4), [span(None, 6)])
    for _ in range(2):
        target.apply(items(2), [span(6, 6)])
    assert offsets(store) == [2, 4]
    assert store.open().cursors([PLACE]) == {PLACE: span(None, 6).end}


@pytest.mark.parametrize(("limit", "value"), [("_MANY", 2), ("_LARGE", 1)])
def test_a_sink_that_is_behind_does_not_wait_for_larger_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("sinks.targets.files.time.sleep", lambda s: waits.append(round(s)))
    target = Files(str(tmp_path), every=5).open()
    target.apply(items(1), [span(None, 3)])
    target.apply(items(4), [span(3, 6)])
    assert waits == [0, 5]
    monkeypatch.setattr(f"sinks.targets.files.{limit}", value)
    target.apply(items(7, 8), [span(6, 9)])
    target.apply(items(10), [span(9, 12)])
    assert waits == [0, 5, 5, 0]
    target.close()
