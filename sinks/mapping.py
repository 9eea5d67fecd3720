"""Which topics a sink takes, and what becomes of their columns on the way to the target.

    tables: ["shopdb.public.*", "!shopdb.public.audit_*"]          as they are
    tables:
      shopdb.public.customers:
        to: crm.clients                                            another table
        key: [client_id]                                           another key
        fields:                                                    a selection, renamed
          client_id: id
          signed_up: {from: created_at, as: date}                  a cast
          sku: {path: attrs.sku}                                   a place inside json
          tenant: {value: acme}                                    a constant
          total: {expr: price * double(quantity)}                  CEL over the row
        where: status != 'draft'                                   only some rows
      shopdb.public.orders:                                        several tables, each by a mapping
      - {to: crm.orders}
      - {to: crm.paid, where: status == 'paid'}

An exact name wins over a glob, a glob written earlier over a later one, an exclusion over all.
A mapping is compiled once per version of a table: what is left per row is one function a column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    model_validator,
)

from schemas.table import TableId
from sinks.debezium_schema import declared
from sinks.fields import Cel, FieldEntry, FieldMap
from sinks.lookup import Lookup
from sinks.rules import OnInvalid, Rule

__all__ = [
    "FieldMap",
    "Lookup",
    "Rule",
    "Selection",
    "TableMap",
    "Tables",
    "Way",
    "entries",
    "fixed_targets",
]


_NO_TABLE = re.compile(r"[^.]+\.(transaction|message)|__debezium-heartbeat\..+")
"""Topics a source, or Debezium, writes beside those of its tables; only their exact name takes
them."""


def _declared(text: str) -> str:
    declared(text)
    return text


Mode = Literal["mirror", "append", "history"]
"""What a table is: the source's, a journal of its changes, or all versions of its rows."""

Way = Literal[Mode, "changes"]
"""The modes, and what a target that keeps no rows takes: each change alone (`sinks/changes.py`)."""


class TableMap(BaseModel):
    """What becomes of one topic, or of each topic a glob matches."""

    model_config = ConfigDict(extra="forbid")

    to: str = Field(
        default="{schema}.{table}",
        description="Target table as `schema.table`; may use {source}, {schema} and {table}",
    )
    key: list[str] = Field(
        default_factory=list, description="Target columns of the key; empty: those of the topic"
    )
    format: Literal["auto", "tailrace", "debezium"] = Field(
        default="auto", description="Who wrote the topic; `auto` tells by the record"
    )
    columns: dict[str, Annotated[str, AfterValidator(_declared)]] = Field(
        default_factory=dict,
        description="Types in the source, as `numeric(12,2)`, for JSON that has no schema",
    )
    fields: dict[str, FieldEntry] = Field(
        default_factory=dict, description="Target column → source column; empty: all, as they are"
    )
    rest: bool = Field(default=False, description="Also every column that no field takes, as it is")
    rename: dict[str, str] = Field(
        default_factory=dict, description="Source column → target column, among the rest"
    )
    drop: list[str] = Field(
        default_factory=list, description="Globs of source columns left out of the rest"
    )
    flatten: dict[str, list[str]] = Field(
        default_factory=dict,
        description="json or composite column → places in it, in its stead: `attrs: [sku]` is "
        "`attrs_sku`",
    )
    where: Cel | None = Field(
        default=None, description="CEL: which rows the target has; one that leaves is deleted"
    )
    mode: Mode = Field(
        default="mirror",
        description="Keep the table equal to the source, append a row for each change, or keep a "
        "history with a row for each version",
    )
    soft_delete: str | None = Field(
        default=None, description="Column that takes the time of a delete; the row stays"
    )
    rules: list[Rule] = Field(
        default_factory=list, description="What a row must be like to be applied"
    )
    on_invalid: OnInvalid = Field(
        default="dead_letter", description="What becomes of a row that breaks a rule"
    )
    _part: int | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _go_together(self) -> TableMap:
        if self.mode != "mirror" and (self.key or self.soft_delete):
            raise ValueError(f"`mode: {self.mode}` has a key of its own, and deletes nothing")
        if self.where and (self.soft_delete or self.mode == "history"):
            kept = "soft_delete" if self.soft_delete else "mode: history"
            raise ValueError(
                f"`{kept}` and `where` do not go together: of a row that was never in the filter "
                "there is nothing to keep"
            )
        return self

    @property
    def way(self) -> Way:
        """How changes become rows."""
        return self.mode

    @property
    def is_part(self) -> bool:
        """Whether the topic goes to other tables as well."""
        return self._part is not None

    def place(self, topic: str) -> str:
        """Return where the mapping of `topic` stands in the pipeline file, below the sink."""
        return f"tables.{topic}" if self._part is None else f"tables.{topic}[{self._part}]"

    def numbered(self, part: int | None) -> Self:
        """Return the mapping as one of several of a topic, from 0; None: the only one."""
        self._part = part
        return self


def _listed(value: Any) -> Any:
    tables = value if isinstance(value, list) else [value]
    return [{} if table is None else table for table in tables]


def _told_apart(tables: list[TableMap]) -> list[TableMap]:
    """Number the mappings of a topic that has several. Raises `ValueError`."""
    if not tables:
        raise ValueError("names no table; leave the topic out with `!topic`")
    if len(tables) == 1:
        return tables
    names = [table.to for table in tables]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"`to: {twice}` is there twice: each mapping has a table of its own")
    if len({table.format for table in tables}) > 1:
        raise ValueError("`format` tells who wrote the topic, and is the same in each mapping")
    return [table.numbered(part) for part, table in enumerate(tables)]


Tables = (
    list[str]
    | dict[str, Annotated[list[TableMap], BeforeValidator(_listed), AfterValidator(_told_apart)]]
)
"""The `tables:` of a sink: globs over topics, or glob → mapping, or a list of such where a topic
goes to several tables; `!glob` leaves out."""


def entries(tables: Tables) -> Iterator[tuple[str, TableMap]]:
    """Yield each glob with each of its mappings; what is left out has an empty one."""
    if isinstance(tables, list):
        yield from ((glob, TableMap()) for glob in dict.fromkeys(tables))
    else:
        yield from ((glob, table) for glob, several in tables.items() for table in several)


class Selection:
    """Which topics are taken, and by which mappings."""

    def __init__(self, tables: Tables) -> None:
        self._without: list[str] = []
        self._with: dict[str, list[TableMap]] = {}
        for glob, table in entries(tables):
            if glob.startswith("!"):
                self._without.append(glob[1:])
            else:
                self._with.setdefault(glob, []).append(table)

    def takes(self, topic: str) -> bool:
        """Tell whether `topic` is taken."""
        return bool(self.mappings(topic))

    def mappings(self, topic: str) -> Sequence[TableMap]:
        """Return the mappings of `topic`, one for each table; none when it is not taken."""
        if any(fnmatchcase(topic, glob) for glob in self._without):
            return ()
        if topic in self._with:
            return self._with[topic]
        if _NO_TABLE.fullmatch(topic):
            return ()
        return next((m for glob, m in self._with.items() if fnmatchcase(topic, glob)), ())


def fixed_targets(tables: Tables) -> list[TableId]:
    """Return the target tables that are known before any topic is: those with a plain `to:`."""
    named = [_placed(table.to) for glob, table in entries(tables) if not glob.startswith("!")]
    return [table for table in named if "{" not in str(table)]


def _placed(name: str) -> TableId:
    schema, dot, rest = name.partition(".")
    return TableId(schema, rest) if dot else TableId("public", name)
