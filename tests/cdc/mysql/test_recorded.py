"""What a real MySQL 9.7.4 logged, read from its own files, is what its SELECT gave.

`recorded/` was made by `record.py`; `make mysql` compares with a server that runs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.decode import binlog
from cdc.decode import mysqlvalues as values
from cdc.decode.binlogevents import Payload, PreviousGtids, RowsEvent
from cdc.decode.binlogmysql import encoded
from cdc.decode.binlogmysql import events_of as payload_events
from cdc.decode.gtid import Intervals
from cdc.decode.mysqljson import changed, json_text
from cdc.decode.mysqltypes import KINDS, text
from cdc.errors import UnknownEvent
from cdc.mariadb.partial import packed_partly
from cdc.mysql.documents import UNTOLD
from fix_capture import Event, Model
from mysql_recording import Recording, wanted
from mysql_values import VALUES

LONGEST = 1_000


def shortened(cell: Any) -> Any:
    if cell is None or len(cell) <= LONGEST:
        return cell
    return b"sha256 " + hashlib.sha256(cell).hexdigest().encode()


@pytest.mark.parametrize("name", ["types", "documents", "transactions"])
def test_what_is_read_from_the_log_is_what_select_gave(name: str) -> None:
    recording = Recording(name)
    events, position = recording.read()
    model, columns = Model(), recording.columns()
    for event in events:
        model.apply(event)
    compared = 0
    for table, told in recording.told["tables"].items():
        if table not in columns:
            assert told["rows"] == []
            continue
        makes = [text(column) for column in columns[table]]
        assert [column.name for column in columns[table]] == told["columns"]
        rows = [tuple(map(wanted, row, makes)) for row in told["rows"]]
        found = [tuple(row.values()) for row in model.tables.get(f"shop.{table}", {}).values()]
        short = [tuple(map(shortened, row)) for row in found]
        assert sorted(short, key=repr) == sorted(
            [tuple(map(shortened, row)) for row in rows], key=repr
        ), table
        compared += len(rows)
    assert compared >= 6
    executed = Intervals.parse(recording.told["gtid_executed"])
    assert Intervals.parse(position.gtid) == executed
    assert recording.told["server"].startswith("9.7.4")


def equal(recording: Recording, events: Sequence[Event], table: str) -> bool:
    """Whether a consumer of these events has the rows that SELECT gave."""
    model = Model()
    for event in events:
        model.apply(event)
    makes = [text(column) for column in recording.columns()[table]]
    rows = [tuple(map(wanted, row, makes)) for row in recording.told["tables"][table]["rows"]]
    found = [tuple(row.values()) for row in model.tables[f"shop.{table}"].values()]
    return sorted(found, key=repr) == sorted(rows, key=repr)


def absent(events: Sequence[Event], table: str, op: str) -> list[set[str]]:
    """The absent columns of the new row of each event of a table that is an `op`."""
    return [event.absent() for event in events if (event.table, event.op) == (f"shop.{table}", op)]


WHOLE: set[str] = set()
LOST = {"note", "other", "facts"}


@pytest.mark.parametrize(
    ("table", "updates"),
    [
        ("minimal", [LOST, {"n", "twice", "other"}, WHOLE, LOST, WHOLE, WHOLE]),
        ("noblob", [{"note"}, WHOLE, WHOLE, {"note"}, {"note"}, WHOLE]),
    ],
)
def test_what_an_update_leaves_alone_is_absent_and_the_rest_is_read_again(
    table: str, updates: list[set[str]]
) -> None:
    """The fourth has changes of a document; the key of its row was changed before we looked."""
    recording = Recording("images", asked=True)
    events = recording.read()[0]
    assert absent(events, table, "u") == updates
    assert absent(events, table, "c")[-1] == WHOLE
    assert equal(recording, events, table)


def test_rows_that_are_gone_lack_what_was_not_logged() -> None:
    events = Recording("images").read()[0]
    assert absent(events, "minimal", "c")[-1] == {"n", *LOST}
    moved = {"n", "twice", *LOST}
    assert absent(events, "minimal", "u")[2:] == [moved, LOST, LOST, moved]
    assert all(UNTOLD not in (event.after or ()) for event in events)


def test_every_type_of_mysql_is_recorded() -> None:
    tried = {re.split(r"[ (]", kind)[0] for kind in VALUES}
    another_name, mariadb = {"geomcollection"}, {"uuid", "inet4", "inet6"}
    assert tried == set(KINDS) - another_name - mariadb
    assert len(VALUES) == len(Recording("types").told["tables"]["every"]["columns"]) - 1


def test_a_transaction_read_in_pieces_of_memory_is_the_same() -> None:
    whole, small = Recording("transactions").read(), Recording("transactions").read(memory=0)
    assert whole == small


def test_each_event_carries_the_transaction_it_was_committed_in() -> None:
    recording = Recording("transactions")
    transactions = recording.transactions()
    while transactions.advance():
        pass
    runs = transactions.take()
    tagged = [run for run in runs if ":blue:" in run.origin.txid]
    assert [len(run.items) for run in tagged] == [1]
    executed = Intervals.parse(recording.told["gtid_executed"])
    assert all(executed.names(run.origin.txid) for run in runs)


def test_a_transaction_without_an_id_stops_by_name() -> None:
    with pytest.raises(UnknownEvent, match="has no global id"):
        Recording("nameless").read()


def test_a_set_is_sent_in_the_form_in_which_a_log_begins_with_it() -> None:
    """The second file of the log begins with what the first one has, a tag among it."""
    read = [binlog.decode(data, checksum=True)[1] for data in Recording("transactions").logged()]
    before, behind = (event.gtids for event in read if isinstance(event, PreviousGtids))
    assert not before
    assert any(tag for (_, tag), _ in behind.parts())
    logged = next(data for data in reversed(Recording("transactions").logged()) if data[4] == 35)
    assert encoded(behind) == logged[19:-4]
    assert encoded(before) == bytes(8)


@pytest.mark.parametrize("name", ["documents", "transactions"])
def test_a_payload_that_was_damaged_is_refused(name: str) -> None:
    found = []
    for data in Recording(name).logged():
        payload = binlog.decode(data, checksum=True)[1]
        if isinstance(payload, Payload):
            found.append(payload)
    assert found
    for payload in found:
        assert payload.compressed
        cut = msgspec.structs.replace(payload, data=payload.data[:-9])
        larger = msgspec.structs.replace(payload, size=payload.size + 1)
        for damaged in (cut, larger):
            with pytest.raises(ValueError, match="payload"):
                list(payload_events(damaged, checksum=True))


def test_a_document_that_is_cut_is_one_clear_error() -> None:
    whole = b"\0\1\0\x0c\0\x0b\0\1\0\5\1\0a"
    assert json_text(whole) == b'{"a": 1}'
    for end in range(1, len(whole)):
        with pytest.raises(ValueError, match="is cut"):
            json_text(whole[:end])


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_any_bytes_are_a_document_or_a_value_error(document: bytes, changes: bytes) -> None:
    with suppress(ValueError):
        json_text(document)
    with suppress(ValueError):
        changed(document, changes)


@given(st.binary(max_size=80), st.sampled_from([b"\1", b"\3"]))
def test_any_bytes_of_changed_documents_are_rows_or_a_value_error(
    data: bytes, before: bytes
) -> None:
    readers = (values.integer(4, unsigned=False), values.prefixed(4, json_text))
    event = RowsEvent(b"U", 1, 2, before, b"\3", data, ends=True, parts=True)
    with suppress(ValueError):
        packed_partly(event, readers, (0,), frozenset({1}))
