"""The short forms of `make size`: the same measures, small enough for every run of the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from size.measures import foreign_log, large_transaction, many_tables, zigzag
from size.worker import Place


@pytest.fixture
def place(kafka: Any, registry: Any, pg_database: str, tmp_path: Path) -> Place:
    return Place(kafka.bootstrap, registry.url, pg_database, tmp_path)


def test_a_large_transaction_spills_before_its_commit_and_is_resumed_inside(place: Place) -> None:
    with psycopg.connect(place.url, autocommit=True) as db:
        name = db.info.dbname
        db.execute(f'alter database "{name}" set logical_decoding_work_mem = 1024')
    seen = large_transaction(place, 100_000, 500, ", memory: 4194304")
    assert seen.wrong == ""
    assert seen.spilled_before_commit > 10 << 20
    assert seen.written_before_commit == 0
    assert 0 < seen.written_at_kill < 100_000
    assert seen.peak_mb < 150


def test_tables_that_are_not_captured_do_not_hold_the_log(place: Place) -> None:
    seen = foreign_log(place, 100, 20.0, 64.0)
    assert seen.samples >= 80
    assert seen.most_unconfirmed <= 64
    assert seen.settled_s <= 30


def test_a_thousand_tables_start_in_seconds(place: Place) -> None:
    seen = many_tables(place, 1_000)
    assert seen.start_s <= 20
    assert seen.restart_s <= 20
    assert seen.peak_mb <= 150


@pytest.mark.parametrize(
    ("number", "bytes_"),
    [(0, b"\0"), (-1, b"\1"), (1, b"\2"), (64, b"\x80\1"), (8191, b"\xfe\x7f")],
)
def test_a_key_is_read_as_avro_writes_it(number: int, bytes_: bytes) -> None:
    assert zigzag(number) == bytes_
