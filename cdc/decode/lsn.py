"""PostgreSQL's log sequence numbers: 64-bit byte offsets into the log, written "16/B374D848"."""

from __future__ import annotations

import re

__all__ = ["format_lsn", "parse_lsn"]

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


def parse_lsn(text: str) -> int:
    """Return the offset `text` names. Raises `ValueError` when it is no LSN."""
    found = _LSN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no log sequence number")
    return int(found[1], 16) << 32 | int(found[2], 16)


def format_lsn(lsn: int) -> str:
    """Return `lsn` as PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
