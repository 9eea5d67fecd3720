"""The options of a sink into MariaDB or MySQL; type and URL are those of the one it is."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from sinks.options import BUFFER_BYTES, BufferBytes, Changes, Topics
from sinks.policy import needs_one_worker

__all__ = ["Options"]


class Options(BaseModel):
    """What both have."""

    model_config = ConfigDict(extra="forbid")

    type: str
    url: SecretStr
    tables: Topics
    schema_changes: Changes
    workers: int = Field(
        default=1, ge=1, description="Processes that share the topics; 1 keeps consistent cuts"
    )
    buffer_bytes: BufferBytes = BUFFER_BYTES

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        needs_one_worker(self.schema_changes, self.workers)
        return self
