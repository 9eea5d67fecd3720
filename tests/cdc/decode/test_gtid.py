"""Global transaction ids: what is printed is read again, and sets know what is in them."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.decode.gtid import Domains, Gtid, Interval, Intervals, MysqlGtid

U32 = st.integers(0, 2**32 - 1)
GTIDS = st.builds(Gtid, st.integers(0, 5), U32, st.integers(0, 2**64 - 1))
DOMAINS = st.lists(GTIDS, max_size=6).map(Domains)
OWNERS = st.tuples(st.uuids(), st.sampled_from(["", "blue", "green_2"]))
INTERVAL = st.tuples(st.integers(1, 50), st.integers(0, 20)).map(
    lambda pair: Interval(pair[0], sum(pair))
)
SETS = st.dictionaries(OWNERS, st.lists(INTERVAL, max_size=5), max_size=4)
SERVER = UUID("3e11fa47-71ca-11e1-9e33-c80aa9429562")


@given(DOMAINS)
def test_a_mariadb_position_is_read_as_it_is_printed(domains: Domains) -> None:
    assert Domains.parse(str(domains)) == domains


@given(DOMAINS, GTIDS)
def test_a_mariadb_position_has_what_it_was_advanced_by(domains: Domains, gtid: Gtid) -> None:
    if domains.contains(gtid):
        with pytest.raises(ValueError, match="comes at or before"):
            domains.advanced(gtid)
        return
    further = domains.advanced(gtid)
    assert further.contains(gtid)
    assert further.covers(domains)
    assert not domains.covers(further)


def test_a_domain_is_one_stream_whoever_writes_it() -> None:
    domains = Domains.parse("0-1-5,7-2-3")
    assert domains.contains(Gtid(0, 9, 5))
    assert not domains.contains(Gtid(0, 1, 6))
    assert not domains.contains(Gtid(1, 1, 1))
    assert str(domains.advanced(Gtid(0, 2, 6))) == "0-2-6,7-2-3"
    assert not Domains.parse(" ")


@pytest.mark.parametrize(
    "text", ["0-1", "0-1-x", "0-1-5,0-2-6", "4294967296-1-1", "-1-1-1", "0-1-5,"]
)
def test_what_is_no_mariadb_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"global transaction id|names a domain twice"):
        Domains.parse(text)


@given(SETS)
def test_a_mysql_set_is_read_as_it_is_printed(sets: dict[tuple[UUID, str], list[Interval]]) -> None:
    found = Intervals(sets)
    assert Intervals.parse(str(found)) == found
    for (server, tag), intervals in sets.items():
        for first, last in intervals:
            assert found.contains(MysqlGtid(server, tag, first))
            assert found.names(f"{server}:{tag}:{last}" if tag else f"{server}:{last}")


@given(SETS, OWNERS, st.integers(1, 80))
def test_a_mysql_set_has_what_it_was_advanced_by(
    sets: dict[tuple[UUID, str], list[Interval]], owner: tuple[UUID, str], number: int
) -> None:
    before = Intervals(sets)
    gtid = MysqlGtid(*owner, number)
    if not before.contains(gtid):
        after = before.advanced(gtid)
        assert after.contains(gtid)
        assert after.covers(before)
        assert not before.covers(after)


def test_a_mysql_set_joins_what_touches_and_keeps_tags_apart() -> None:
    found = Intervals.parse(f"{SERVER}:1-3:4:7:blue:2-5,{SERVER}:Blue:6")
    assert str(found) == f"{SERVER}:1-4:7:blue:2-6"
    assert not found.contains(MysqlGtid(SERVER, "", 5))
    assert found.contains(MysqlGtid.parse(f"{SERVER}:Blue:5"))


@given(SETS, OWNERS, st.integers(1, 80))
def test_the_way_back_to_a_transaction_of_mysql_is_all_but_itself(
    sets: dict[tuple[UUID, str], list[Interval]], owner: tuple[UUID, str], number: int
) -> None:
    gtid = MysqlGtid(*owner, number)
    before = Intervals(sets)
    now = before if before.contains(gtid) else before.advanced(gtid)
    start = now.way_back(str(gtid), before.noted())
    assert not start.contains(gtid)
    assert start.advanced(gtid) == now


def test_the_way_back_to_a_transaction_of_mariadb_was_noted() -> None:
    before = Domains.parse("0-1-5,7-2-3")
    now = before.advanced(Gtid(0, 1, 6)).advanced(Gtid(7, 2, 4))
    assert now.way_back("0-1-6", before.noted()) == before
    assert now.names("0-1-6")
    assert not before.names("0-1-6")


@pytest.mark.parametrize(
    "text", ["x:1", f"{SERVER}", f"{SERVER}:0", f"{SERVER}:5-1", f"{SERVER}:blue"]
)
def test_what_is_no_mysql_set_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"badly formed|names no|is no"):
        Intervals.parse(text)
