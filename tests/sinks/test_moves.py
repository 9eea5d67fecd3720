"""A row whose key changes keeps the values that were not sent again (R6)."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from cdc.publish import Publisher
from fix_pipeline import wait_until
from fix_sink import Sink, both_apply, changes, commit, insert, piece, update
from schemas.change import ABSENT, Change, Op

MakeSink = Callable[..., Sink]
MakePublisher = Callable[..., Publisher]
ALL = "SELECT id, name FROM items ORDER BY id"


def move(old: int, new: int) -> Change:
    """A key change as it is read when the row was gone before it could be read again."""
    return Change(Op.UPDATE, (b"%d" % old, ABSENT), (b"%d" % new, ABSENT))


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_key_change_keeps_a_large_value_in_whatever_partition_the_new_key_is(
    make_publisher: MakePublisher, make_sink: MakeSink, partitions: int
) -> None:
    publisher = make_publisher(partitions={"public.items": partitions})
    commit(publisher, piece(1, changes(1, *(insert(b"%d" % n, b"v%d" % n) for n in range(10)))))
    sink = make_sink().start()
    sink.wait_for("SELECT count(*) FROM items", [(10,)])
    commit(publisher, piece(2, changes(2, *(move(n, n + 100) for n in range(10)))))
    sink.wait_for(ALL, [(n + 100, f"v{n}") for n in range(10)])
    twice = [move(100, 200), update(b"200", ABSENT), move(200, 300), insert(b"100", b"new")]
    commit(publisher, piece(3, changes(3, *twice)))
    rest = [(n + 100, f"v{n}") for n in range(1, 10)]
    sink.wait_for(ALL, [(100, "new"), *rest, (300, "v0")])
    assert sum(batch.dead for batch in sink.told.batches) == 0


def test_a_key_change_larger_than_memory_keeps_its_values(
    publisher: Publisher, make_sink: MakeSink
) -> None:
    rows = [insert(b"%d" % n, b"x" * 50) for n in range(1000)]
    commit(publisher, piece(1, changes(1, *rows)))
    commit(publisher, piece(2, changes(2, *(move(n, n + 5000) for n in range(1000)))))
    sink = make_sink(buffer_bytes=100_000).start()
    same = "SELECT count(*) FROM items WHERE id >= 5000 AND length(name) = 50"
    sink.wait_for(same, [(1000,)])
    assert max(batch.rows for batch in sink.told.batches) >= 2000


def test_of_a_refused_key_change_the_create_is_a_dead_letter_and_the_old_row_goes(
    publisher: Publisher, make_sink: MakeSink
) -> None:
    sink = make_sink()
    with psycopg.connect(sink.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE items (id bigint PRIMARY KEY CHECK (id < 100), name text)")
    commit(publisher, piece(1, changes(1, insert(b"1", b"one"), insert(b"2", b"two"))))
    sink.start()
    sink.wait_for(ALL, [(1, "one"), (2, "two")])
    commit(publisher, piece(2, changes(2, move(1, 500), move(2, 3))))
    sink.wait_for(ALL, [(3, "two")])
    [letter] = sink.pipeline.read(f"{sink.pipeline.name}.dead")
    reason = dict(letter.headers())["cdc.reason"].decode()
    assert "items_id_check" in reason


def test_shared_workers_move_each_row_whole_or_refuse_it_by_name(
    make_publisher: MakePublisher, make_sink: MakeSink
) -> None:
    publisher = make_publisher(partitions={"public.items": 2})
    workers = [make_sink(workers=2).start() for _ in range(2)]
    last = both_apply(publisher, workers)
    ids = range(10, last * 10 + 10)
    workers[0].wait_for("SELECT count(*) FROM items", [(len(ids),)])
    commit(publisher, piece(last + 1, changes(last + 1, *(move(n, n + 100_000) for n in ids))))
    workers[0].wait_for("SELECT count(*) FROM items WHERE id < 100000", [(0,)])
    pipeline = workers[0].pipeline

    def settled() -> list[tuple[int, str]]:
        """Each row was moved or became a dead letter."""
        rows = workers[0].query(ALL)
        letters = pipeline.read(f"{pipeline.name}.dead")
        reasons = [dict(letter.headers())["cdc.reason"].decode() for letter in letters]
        assert all("find no row" in reason for reason in reasons)
        return rows if len(rows) + len(letters) == len(ids) else []

    rows = wait_until(settled, "every row is settled")
    assert all(name == f"item {number - 100_000}" for number, name in rows)
