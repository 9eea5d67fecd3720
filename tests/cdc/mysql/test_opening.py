"""What a stored position is compared with; the answers are like those of a real server."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cdc.decode.gtid import Intervals
from cdc.errors import GapError, PreflightFailed
from cdc.mysql.opening import first_position, guarded
from cdc.mysql.position import Position
from cdc.mysql.server import MySQL

OURS, OTHER = "6b6b6b6b-0000-0000-0000-000000000001", "6b6b6b6b-0000-0000-0000-000000000002"
STORED = Position(3, f"{OURS}:1-9", OURS, "binlog.000002", 500, 4, 2, 4)


class Answers:
    """A catalogue whose answers a test gives."""

    dialect = MySQL()

    def __init__(self, **changed: str) -> None:
        self.next = f"SET @@SESSION.GTID_NEXT= '{OURS}:10'"
        self.version = "9.7.4"
        self.known = {
            "log_bin": "1",
            "binlog_format": "ROW",
            "binlog_row_metadata": "FULL",
            "gtid_mode": "ON",
            "gtid_executed": f"{OURS}:1-12",
            "gtid_purged": f"{OURS}:1-3",
            "server_uuid": OURS,
            **changed,
        }

    def value(self, _: str) -> str:
        return self.version

    def variable(self, name: str) -> str:
        return self.known[name]

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        if query == "SHOW BINARY LOGS":
            return [("binlog.000001", "900", "No"), ("binlog.000002", "800", "No")]
        return [("binlog.000002", "500", "Gtid", "1", "580", self.next)]


def opened(answers: Answers, stored: Position = STORED) -> Position:
    found: Any = guarded(answers, stored)  # type: ignore[arg-type]
    return found


def test_a_position_whose_rest_is_in_the_log_is_gone_on_from() -> None:
    assert opened(Answers()) == STORED


def test_a_log_purged_beyond_it_is_a_gap() -> None:
    with pytest.raises(GapError, match="the log was purged up to"):
        opened(Answers(gtid_purged=f"{OURS}:1-10"))


def test_a_server_that_lacks_what_we_have_is_a_gap() -> None:
    with pytest.raises(GapError, match="has executed"):
        opened(Answers(gtid_executed=f"{OURS}:1-8"))
    with pytest.raises(GapError, match=f"of server {OURS}"):
        opened(Answers(gtid_executed=f"{OTHER}:1-80", server_uuid=OTHER, gtid_purged=""))


def test_a_tag_counts_apart() -> None:
    stored = msgspec.structs.replace(STORED, gtid=f"{OURS}:1-9:blue:1-2")
    with pytest.raises(GapError, match="has executed"):
        opened(Answers(), stored)
    assert opened(Answers(gtid_executed=f"{OURS}:1-12:blue:1-2"), stored) == stored


def test_ids_that_were_given_again_after_a_reset_are_told_by_the_place() -> None:
    answers = Answers()
    answers.next = f"SET @@SESSION.GTID_NEXT= '{OURS}:7'"
    with pytest.raises(GapError, match="does not go on behind"):
        opened(answers)


def test_a_replica_that_has_all_is_gone_on_from_between_transactions() -> None:
    answers = Answers(server_uuid=OTHER)
    found = opened(answers)
    assert (found.server, found.file, found.gtid) == (OTHER, "", STORED.gtid)
    assert found.covers(STORED)
    inside = msgspec.structs.replace(STORED, commit=5)
    with pytest.raises(GapError, match="inside a transaction of server"):
        opened(answers, inside)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("binlog_format", "MIXED"),
        ("binlog_row_metadata", "MINIMAL"),
        ("gtid_mode", "OFF"),
    ],
)
def test_a_server_that_logs_too_little_is_refused_with_the_repair(name: str, value: str) -> None:
    with pytest.raises(PreflightFailed, match=f"{name} is {value}") as found:
        opened(Answers(**{name: value}))
    assert name in found.value.hint


def test_a_mariadb_and_a_server_without_a_log_are_refused() -> None:
    answers = Answers(log_bin="0")
    with pytest.raises(PreflightFailed, match="writes no binary log"):
        first_position(answers)  # type: ignore[arg-type]
    answers.version = "11.4.5-MariaDB"
    with pytest.raises(PreflightFailed, match="reads the log of MySQL"):
        first_position(answers)  # type: ignore[arg-type]


def test_a_position_is_stored_and_read_again() -> None:
    assert Position.decode(STORED.encode()) == STORED
    assert STORED.gtids() == Intervals.parse(STORED.gtid)
