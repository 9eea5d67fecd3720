"""The frame in front of every payload."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.wire import FRAME_BYTES, frame, schema_id


@given(st.integers(0, 2**31 - 1), st.binary())
def test_the_id_in_front_of_a_payload_is_read_back(identity: int, payload: bytes) -> None:
    assert len(frame(identity)) == FRAME_BYTES
    assert schema_id(frame(identity) + payload) == identity


@pytest.mark.parametrize(
    "payload", [b"", b"\x00\x00\x00\x01", b"\x01\x00\x00\x00\x01rest", b'{"a":1}']
)
def test_what_has_no_frame_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match="no schema registry frame"):
        schema_id(payload)
