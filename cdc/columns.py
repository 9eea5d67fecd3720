"""What of a table leaves the source: columns left out, masked, hashed or cut before Kafka.

Rules are YAML under `columns:`, keyed by `schema.table.column` globs:

    columns:
      public.customers.id:    {keep: true}
      public.customers.email: {hash: "${PEPPER}"}
      public.*.note:          {truncate: 200}
      public.customers.*:     {drop: true}
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Self

import msgspec
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from cdc.errors import ConfigError
from schemas.table import Column, TableSchema, Type

__all__ = ["ColumnRule", "Mask", "project"]

Mask = Callable[[bytes], bytes]


class ColumnRule(BaseModel):
    """What happens to the columns a glob selects; exactly one of the options."""

    model_config = ConfigDict(extra="forbid")

    keep: bool = Field(
        default=False, description="Publish the column as it is, whatever a later glob says"
    )
    drop: bool = Field(default=False, description="Leave the column out")
    mask: str | None = Field(default=None, description="Replace every value by this text")
    hash: SecretStr | None = Field(
        default=None, description="Replace every value by its HMAC-SHA-256 with this key, in hex"
    )
    truncate: int | None = Field(
        default=None, ge=0, description="Keep this many characters of a text"
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [self.keep, self.drop, self.mask is not None, self.hash is not None]
        if sum([*given, self.truncate is not None]) != 1:
            raise ValueError("give exactly one of keep, drop, mask, hash, truncate")
        return self

    def function(self) -> Mask:
        """Return the rule as text → text. NULL never reaches it."""
        if self.mask is not None:
            fixed = self.mask.encode()
            return lambda _: fixed
        if self.hash is not None:
            pepper = self.hash.get_secret_value().encode()
            return lambda cell: hmac.new(pepper, _text(cell), hashlib.sha256).hexdigest().encode()
        kept = self.truncate or 0
        return lambda cell: cell.decode()[:kept].encode()


def _text(cell: bytes) -> bytes:
    """Refuse what is no text (`ValueError`): its hash would be of no value the source has."""
    return cell if cell.isascii() else cell.decode().encode()


def _rule_for(
    schema: TableSchema, column: Column, rules: Mapping[str, ColumnRule]
) -> ColumnRule | None:
    path = f"{schema.table}.{column.name}"
    return next((rule for glob, rule in rules.items() if fnmatchcase(path, glob)), None)


def project(
    schema: TableSchema, rules: Mapping[str, ColumnRule]
) -> tuple[TableSchema, dict[str, Mask]]:
    """Return the table as consumers see it, and the mask of each changed column.

    The first glob that matches decides. Raises `errors.ConfigError` when a rule would drop or
    constantly mask a key column: records would lose their identity.
    """
    kept: list[Column] = []
    masks: dict[str, Mask] = {}
    for column in schema.columns:
        rule = _rule_for(schema, column, rules)
        if rule is None or rule.keep:
            kept.append(column)
            continue
        if column.name in schema.key and rule.hash is None:
            raise ConfigError(
                f"columns: a rule would take away key column {schema.table}.{column.name}",
                hint="Use `hash`, which keeps keys apart, or narrow the glob.",
            )
        if not rule.drop:
            masks[column.name] = rule.function()
            kept.append(msgspec.structs.replace(column, type=Type("string"), default=None))
    return msgspec.structs.replace(schema, columns=tuple(kept)), masks
