"""A reader of the target only ever sees what was true in the source between two transactions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from cdc.publish import Publisher
from fix_pipeline import ITEMS, Pipeline, wait_until
from fix_sink import Sink, changes, commit, insert, piece, update
from schemas.change import Origin, Rows
from schemas.table import TableId, TableSchema
from sinks.applier import Applied, Applier, Cut
from sinks.session import Session

MakeSink = Callable[..., Sink]
MakePublisher = Callable[..., Publisher]

OTHERS = TableSchema(TableId("public", "others"), ITEMS.columns, ("id",))
BOTH = """SELECT (SELECT coalesce(sum(name::int), 0) FROM public.items),
                 (SELECT coalesce(sum(name::int), 0) FROM public.others)"""

NOTING = """CREATE TABLE public.items
            (id bigint PRIMARY KEY, name text, made_by xid8 DEFAULT pg_current_xact_id())"""


@contextmanager
def watching(sink: Sink, query: str) -> Iterator[set[tuple[object, ...]]]:
    """Read the target again and again; every state that was seen."""
    seen: set[tuple[object, ...]] = set()
    done = threading.Event()

    def watch() -> None:
        with psycopg.connect(sink.url, autocommit=True) as connection:
            while not done.is_set():
                try:
                    seen.update(connection.execute(query).fetchall())
                except psycopg.errors.UndefinedTable:
                    continue

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join(10)


def test_a_transaction_over_tables_and_partitions_is_seen_whole_or_not_at_all(
    make_publisher: MakePublisher, make_sink: MakeSink
) -> None:
    publisher = make_publisher(partitions={"public.*": 4})
    ids = [b"%d" % n for n in range(20)]
    first = [changes(1, *(insert(i, b"0") for i in ids), schema=s) for s in (ITEMS, OTHERS)]
    commit(publisher, piece(1, first[0], first[1]))
    sink = make_sink().start()
    sink.wait_for(BOTH, [(0, 0)])
    with watching(sink, BOTH) as seen:
        for number in range(2, 60):
            value = b"%d" % number
            one = changes(number, *(update(i, value) for i in ids))
            two = changes(number, *(update(i, value) for i in ids), schema=OTHERS, first=20)
            commit(publisher, piece(number - 1, one))
            commit(publisher, piece(number, two))
        sink.wait_for(BOTH, [(59 * 20, 59 * 20)])
    assert len(seen) > 1
    assert all(one == two and one % 20 == 0 for one, two in seen)  # type: ignore[operator]


def test_a_transaction_whose_end_is_not_published_is_held(
    publisher: Publisher, make_sink: MakeSink
) -> None:
    sink = make_sink().start()
    commit(publisher, piece(1, changes(1, insert(b"1", b"whole"))))
    commit(publisher, piece(1, changes(2, insert(b"2", b"half"))))
    with watching(sink, "SELECT count(*) FROM public.items") as seen:
        sink.wait_for("SELECT name FROM public.items", [("whole",)])
        commit(publisher, piece(1, changes(2, insert(b"3", b"half"), first=1)))
        commit(publisher, piece(2, changes(2, insert(b"4", b"half"), first=2)))
        sink.wait_for("SELECT count(*) FROM public.items", [(4,)])
    assert seen <= {(0,), (1,), (4,)}


def test_snapshot_rows_behind_a_boundary_that_was_reached_before_are_applied(
    publisher: Publisher, make_sink: MakeSink
) -> None:
    sink = make_sink().start()
    commit(publisher, piece(1, changes(1, insert(b"1", b"streamed"))))
    sink.wait_for("SELECT count(*) FROM public.items", [(1,)])
    origin = Origin(1, 1, 1_700_000_000_000_000, snapshot=True)
    rows = Rows(ITEMS, "copy", origin, [b"2\tread"], [1 << 40])
    commit(publisher, piece(1, rows))
    sink.wait_for("SELECT count(*) FROM public.items", [(2,)])


def test_a_transaction_larger_than_memory_is_one_transaction_of_the_target(
    publisher: Publisher, make_sink: MakeSink
) -> None:
    commit(publisher, piece(1, changes(1, insert(b"0", b"before"))))
    for first in range(0, 3000, 1000):
        rows = [insert(b"%d" % (first + n + 1), b"x" * 100) for n in range(1000)]
        boundary = 2 if first == 2000 else 1
        commit(publisher, piece(boundary, changes(2, *rows, first=first)))
    commit(publisher, piece(3, changes(3, insert(b"9999", b"after"))))
    sink = make_sink(buffer_bytes=200_000)
    with psycopg.connect(sink.url) as connection:
        connection.execute(NOTING)
    sink.start()
    sink.wait_for("SELECT count(*) FROM public.items", [(3002,)])
    big = "SELECT count(DISTINCT made_by) FROM public.items WHERE id BETWEEN 1 AND 3000"
    assert sink.query(big) == [(1,)]
    assert max(batch.rows for batch in sink.told.batches) >= 3000


def test_a_backlog_larger_than_memory_is_cut_between_transactions(
    make_publisher: MakePublisher, make_sink: MakeSink
) -> None:
    publisher = make_publisher(partitions={"public.items": 3})
    for number in range(1, 101):
        one = changes(number, *(insert(b"%d" % (number * 50 + n), b"1") for n in range(20)))
        two = changes(
            number, *(insert(b"%d" % (number * 50 + n), b"1") for n in range(20)), schema=OTHERS
        )
        publisher.add(piece(number, one, two))
    publisher.commit()
    sink = make_sink(buffer_bytes=300_000)
    with watching(sink, BOTH) as seen:
        sink.start()
        sink.wait_for(BOTH, [(2000, 2000)])
    assert len(sink.told.batches) > 2
    assert all(one == two and one % 20 == 0 for one, two in seen)  # type: ignore[operator]


def test_a_snapshot_larger_than_memory_is_applied_chunk_by_chunk(
    make_publisher: MakePublisher, make_sink: MakeSink
) -> None:
    """A sink that comes late finds all chunks behind one boundary, and must not hold them all."""
    publisher = make_publisher(partitions={"public.items": 2})
    for number in range(1, 101):
        origin = Origin(1, number, 1_700_000_000_000_000, snapshot=True)
        lines = [b"%d\t%s" % (number * 100 + n, b"x" * 200) for n in range(100)]
        publisher.add(piece(100, Rows(ITEMS, "copy", origin, lines, list(range(100)))))
    publisher.commit()
    sink = make_sink(buffer_bytes=200_000).start()
    sink.wait_for("SELECT count(*) FROM public.items", [(10_000,)])
    wait_until(lambda: sum(batch.rows for batch in sink.told.batches) == 10_000, "all is told")
    assert max(batch.rows for batch in sink.told.batches) < 2500


def test_a_refused_row_of_a_chunk_larger_than_memory_is_a_dead_letter(
    pipeline: Pipeline, publisher: Publisher, make_sink: MakeSink
) -> None:
    sink = make_sink(buffer_bytes=200_000)
    with psycopg.connect(sink.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE items (id bigint PRIMARY KEY, name text CHECK (id <> 7))")
    for first in range(0, 3000, 1000):
        origin = Origin(1, 2, 1_700_000_000_000_000, snapshot=True)
        lines = [b"%d\t%s" % (first + n, b"x" * 100) for n in range(1000)]
        publisher.add(piece(1, Rows(ITEMS, "copy", origin, lines, list(range(1000)))))
    publisher.commit()
    commit(publisher, piece(3, changes(3, insert(b"9999", b"after"))))
    sink.start().wait_for("SELECT count(*) FROM public.items", [(3000,)])
    assert len(pipeline.read(f"{pipeline.name}.dead")) == 1


def test_beside_a_cut_that_is_with_the_target_no_other_of_its_size_is_held(
    make_publisher: MakePublisher, make_sink: MakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two partitions hold more than the buffer before a cut is whole."""
    publisher = make_publisher(partitions={"public.items": 2})
    for number in range(1, 5):
        ids = range(number * 10_000, number * 10_000 + 4000)
        publisher.add(piece(number, changes(number, *(insert(b"%d" % n, b"x") for n in ids))))
        publisher.commit()
    buffer, waited, together = 2 * 1024 * 1024, threading.Event(), list[int]()
    apply, settle = Applier.apply, Session._settle

    def slow(self: Applier, cut: Cut) -> Applied:
        waited.wait(60)
        return apply(self, cut)

    def noted(self: Session) -> None:
        if self._pending is not None:
            together.append(self._intake.bytes + self._pending_bytes)
            waited.set()
        settle(self)

    monkeypatch.setattr(Applier, "apply", slow)
    monkeypatch.setattr(Session, "_settle", noted)
    sink = make_sink(buffer_bytes=buffer).start()
    sink.wait_for("SELECT count(*) FROM public.items", [(16_000,)])
    assert max(together) < 2.5 * buffer, "what is read at once comes on top"
