"""Topic names: legal for Kafka, and reversible while they are short enough."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from cdc.topics import MAX_TOPIC, escape_part, topic_name, topic_parts
from schemas.table import TableId

IDENTIFIER = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=63)


@given(IDENTIFIER)
def test_an_escaped_part_is_legal_and_reads_back(name: str) -> None:
    escaped = escape_part(name)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", escaped)
    assert topic_parts(escaped) == [name]


@given(IDENTIFIER, IDENTIFIER, IDENTIFIER, IDENTIFIER)
def test_two_tables_never_share_a_topic(a: str, b: str, c: str, d: str) -> None:
    one, two = topic_name("src", TableId(a, b)), topic_name("src", TableId(c, d))
    assert (one == two) == ((a, b) == (c, d))
    assert len(one) <= MAX_TOPIC


def test_a_dot_inside_a_part_does_not_split_it() -> None:
    assert topic_parts(topic_name("s", TableId("a.b", "c"))) == ["s", "a.b", "c"]


def test_a_name_over_the_limit_ends_in_a_hash() -> None:
    long = topic_name("s", TableId("é" * 63, "ü" * 63))
    assert len(long) == MAX_TOPIC
    assert re.search(r"-[0-9a-f]{16}$", long)


def test_a_template_names_topics_its_own_way() -> None:
    assert topic_name("s", TableId("public", "t"), "cdc-{table}") == "cdc-t"
    assert topic_name("s", TableId("", "message")) == "s.message"
