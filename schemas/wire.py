"""The 5-byte frame in front of every Avro payload: magic 0, then the schema id, big-endian.

Source: Confluent Schema Registry, "Wire format".
"""

from __future__ import annotations

__all__ = ["FRAME_BYTES", "frame", "schema_id"]

FRAME_BYTES = 5


def frame(identity: int) -> bytes:
    """Return the frame for the schema registered as `identity`."""
    return b"\x00" + identity.to_bytes(4, "big")


def schema_id(payload: bytes) -> int:
    """Return the schema id in front of `payload`. Raises `ValueError` when there is no frame."""
    if len(payload) < FRAME_BYTES or payload[0]:
        raise ValueError(f"no schema registry frame in front of {payload[:8]!r}")
    return int.from_bytes(payload[1:5], "big")
