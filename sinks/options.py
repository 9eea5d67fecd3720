"""The options that every target has, with their meaning and bounds; defaults are the target's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sinks.mapping import Tables

__all__ = ["BUFFER_BYTES", "BufferBytes", "Policy", "Topics"]

BUFFER_BYTES = 20 * 1024 * 1024

Topics = Annotated[
    Tables,
    Field(description="Topics to take: a list of globs, or glob → mapping; `!glob` leaves out"),
]
Policy = Annotated[
    Literal["create+add", "strict"],
    Field(description="Make missing tables and columns, or stop at them"),
]
BufferBytes = Annotated[int, Field(ge=1024, description="Bytes held in memory before a cut")]
