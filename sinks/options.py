"""The options that every target has, with their meaning and bounds; defaults are the target's."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sinks.mapping import Tables
from sinks.policy import SchemaChanges

__all__ = ["BUFFER_BYTES", "BufferBytes", "Changes", "Topics"]

BUFFER_BYTES = 20 * 1024 * 1024

Topics = Annotated[
    Tables,
    Field(
        description="Topics to take: a list of globs, or glob → mapping, or → a list of mappings, "
        "each into a table of its own; `!glob` leaves out"
    ),
]
Changes = Annotated[
    SchemaChanges,
    Field(
        default_factory=SchemaChanges,
        description="What becomes of a table whose schema changes: a preset, or a block of rules",
    ),
]
BufferBytes = Annotated[int, Field(ge=1024, description="Bytes held in memory before a cut")]
