"""What becomes of a target's table when its topic's schema changes: one decision, for every target.

    a version of a table      what the target has
            └──────────┬──────────────┘
                   changes     what the version asks of the target, one by one
                       │
      rules ────▶    plan      stop ─ nothing is done, the sink stops and shows the statements
                       ├────── first ─ before the first row of the version
                       ├────── left ─ nothing is done, the sink goes on
                       └────── behind ─ once the first rows of the version are committed

Why a drop comes behind: rows of the version before, which still have the column, may lie in the
same target transaction, and a crash in between only means that it comes with the next row.

Why a column of somebody else is never touched: only what an earlier version of the topic had is
dropped or retyped (`TableSchema.former`), and retyped only where the column still is of the very
type this target makes for that version. Everything else there is somebody's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, Protocol

import msgspec
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cdc.errors import SchemaIncompatible
from schemas.evolution import widens
from schemas.table import Column, TableSchema, Type

__all__ = [
    "ALONE",
    "Change",
    "Declared",
    "Kind",
    "Lineage",
    "Plan",
    "Rule",
    "SchemaChanges",
    "changes",
    "former_columns",
    "needs_one_worker",
    "plan",
    "stopped",
]

Kind = Literal["create", "add", "widen", "rename", "drop", "retype", "key", "nullability"]
Rule = Literal["apply", "ignore", "stop"]
_EitherWay = Literal["apply", "stop"]

_PRESETS: dict[str, dict[Kind, Rule]] = {
    "additive": {
        "create": "apply",
        "add": "apply",
        "widen": "apply",
        "nullability": "apply",
        "rename": "ignore",
        "drop": "ignore",
        "retype": "stop",
        "key": "stop",
    },
    "mirror": {
        "create": "apply",
        "add": "apply",
        "widen": "apply",
        "nullability": "apply",
        "rename": "ignore",
        "drop": "apply",
        "retype": "apply",
        "key": "stop",
    },
    "frozen": {
        "create": "stop",
        "add": "stop",
        "widen": "stop",
        "nullability": "stop",
        "rename": "stop",
        "drop": "stop",
        "retype": "stop",
        "key": "stop",
    },
}


class SchemaChanges(BaseModel):
    """The rules of a sink: a preset, and what differs from it; a bare word is a preset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Literal["additive", "mirror", "frozen"] = Field(
        default="additive", description="The rule of every kind that has none of its own"
    )
    create: _EitherWay | None = Field(default=None, description="A table that is missing")
    add: Rule | None = Field(default=None, description="A column that is missing")
    widen: Rule | None = Field(
        default=None, description="A type that holds every value of the one before"
    )
    retype: Rule | None = Field(default=None, description="Any other change of a type")
    nullability: Rule | None = Field(
        default=None, description="A column that demands a value and no longer gets one always"
    )
    drop: Rule | None = Field(default=None, description="A column that is no longer written")
    rename: Literal["ignore", "stop"] | None = Field(
        default=None, description="A column that may be a dropped one by another name"
    )
    key: Literal["stop"] | None = Field(default=None, description="Another key")

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: Any) -> Any:
        return {"preset": value} if isinstance(value, str) else value

    def rule(self, kind: Kind) -> Rule:
        """Return what is done about a change of `kind`."""
        own: Rule | None = getattr(self, kind)
        return own or _PRESETS[self.preset][kind]

    @property
    def creates(self) -> bool:
        """Whether a missing table is made."""
        return self.rule("create") == "apply"


class Declared(Protocol):
    """A column as a target has it. `required`: it takes no NULL."""

    @property
    def name(self) -> str:
        """As the target spells it."""
        ...

    @property
    def type(self) -> str:
        """As the target spells it."""
        ...

    @property
    def required(self) -> bool:
        """Whether it takes no NULL."""
        ...


class Change(msgspec.Struct, frozen=True):
    """One thing a version asks of the target. `was` and `now` are columns of the versions.

    `there` is how the target spells the column; `passing`: the newest version has it no more.
    """

    kind: Kind
    there: str
    sentence: str
    was: Column | None = None
    now: Column | None = None
    passing: bool = False


class Plan(msgspec.Struct, frozen=True):
    """What is done: `first`, `behind` the first rows, not (`left`), and what stops the sink."""

    first: Sequence[Change]
    behind: Sequence[Change]
    left: Sequence[Change]
    stop: Sequence[Change]


_Find = Callable[[str], Declared | None]
_Declares = Callable[[Declared, Column], bool]


class Lineage(msgspec.Struct, frozen=True):
    """The versions of a table around one: those before it, newest first, and the newest of all."""

    earlier: Sequence[TableSchema] = ()
    newest: TableSchema | None = None

    def told(
        self, schema: TableSchema, mapped: Callable[[TableSchema], TableSchema | None], mode: str
    ) -> TableSchema:
        """Return `schema` with what it needs to know of the others.

        `mapped` returns a version as the target has it, None for one it never had. The columns of
        a journal or a history are never dropped: older rows hold their values.
        """
        former = [table for table in map(mapped, self.earlier) if table is not None]
        newest = None if self.newest is None else mapped(self.newest)
        columns = former_columns(schema, former)
        if mode != "mirror":
            names = {column.name for column in schema.columns}
            columns, newest = tuple(c for c in columns if c.name in names), None
        passing = () if newest is None else _passing(schema, newest)
        return msgspec.structs.replace(schema, former=columns, passing=passing)


ALONE = Lineage()


def former_columns(schema: TableSchema, earlier: Iterable[TableSchema]) -> tuple[Column, ...]:
    """Return the columns of earlier versions that are not so in `schema`, in their order."""
    known = {(c.name, c.type, c.nullable) for c in schema.columns}
    found: dict[tuple[str, Type, bool], Column] = {}
    for version in earlier:
        for column in version.columns:
            this = (column.name, column.type, column.nullable)
            if this not in known:
                found.setdefault(this, Column(column.name, column.type, column.nullable))
    return tuple(found.values())


def _passing(schema: TableSchema, newest: TableSchema) -> tuple[str, ...]:
    kept = {(column.name, column.type) for column in newest.columns}
    return tuple(c.name for c in schema.columns if (c.name, c.type) not in kept)


def changes(schema: TableSchema, find: _Find, declares: _Declares) -> list[Change]:
    """Return what `schema` asks of a table that is there.

    `find` returns the column the target means by a name, `declares` tells whether a column there
    is declared as the target would declare one of a version. What asks nothing of the target (an
    integer that grew, where it is a text) is no change.
    """
    added = [column for column in schema.columns if find(column.name) is None]
    gone = list(_gone(schema, find))
    out = list(_renamed(added, gone))
    for column in added:
        told = f"column {column.name} was added"
        passing = column.name in schema.passing
        out.append(Change("add", column.name, told, None, column, passing))
    for column in schema.columns:
        there = find(column.name)
        if there is not None:
            out.extend(_altered(schema, column, there, declares))
    for was, there in gone:
        told = f"column {there.name} was dropped"
        out.append(Change("drop", there.name, told, was))
    return out


def _gone(schema: TableSchema, find: _Find) -> Iterator[tuple[Column, Declared]]:
    """Yield former columns that no name of the version means any more, and are there."""
    found = [find(column.name) for column in schema.columns]
    taken = {there.name for there in found if there is not None}
    for was in schema.former:
        there = find(was.name)
        if there is not None and there.name not in taken:
            taken.add(there.name)
            yield was, there


def _renamed(added: Sequence[Column], gone: Sequence[tuple[Column, Declared]]) -> Iterator[Change]:
    """Yield pairs that may be one column: no log tells a rename from a drop and an add."""
    for now in added:
        for was, there in gone:
            if was.type == now.type:
                told = f"column {there.name} is gone and {now.name} came: renamed?"
                yield Change("rename", there.name, told, was, now)


def _altered(
    schema: TableSchema, column: Column, there: Declared, declares: _Declares
) -> Iterator[Change]:
    before = [former for former in schema.former if former.name == column.name]
    if not declares(there, column):
        was = next((former for former in before if declares(there, former)), None)
        if was is not None:
            kind: Kind = "widen" if widens(was.type, column.type) else "retype"
            told = f"column {there.name}, {there.type} here, {_CHANGED[kind]}"
            yield Change(kind, there.name, told, was, column)
    relaxed = column.nullable and any(not former.nullable for former in before)
    if there.required and relaxed and column.name not in schema.key:
        told = f"column {there.name} takes no NULL and became nullable"
        yield Change("nullability", there.name, told, None, column)


_CHANGED = {"widen": "was widened", "retype": "got another type"}


def plan(found: Iterable[Change], rules: SchemaChanges) -> Plan:
    """Return what `rules` make of `found`.

    A column that is passing is not made again, by an old row that is read once more, where the
    version that dropped it takes it away or was stopped at: it is written no more.
    """
    by_rule: dict[Rule, list[Change]] = {"apply": [], "ignore": [], "stop": []}
    for change in found:
        outlived = change.passing and rules.rule("drop") != "ignore"
        by_rule["ignore" if outlived else rules.rule(change.kind)].append(change)
    first = [change for change in by_rule["apply"] if change.kind != "drop"]
    behind = [change for change in by_rule["apply"] if change.kind == "drop"]
    return Plan(first, behind, by_rule["ignore"], by_rule["stop"])


def stopped(
    schema: TableSchema, found: Sequence[Change], statements: Sequence[str]
) -> SchemaIncompatible:
    """Return the error for changes that stop the sink; `statements` would make them."""
    kinds = ", ".join(dict.fromkeys(change.kind for change in found))
    told = "; ".join(change.sentence for change in found)
    return SchemaIncompatible(
        f"{schema.table}: {told}; `schema_changes` says stop ({kinds})",
        hint=";\n".join(statements) + ";" if statements else "",
    )


def needs_one_worker(rules: SchemaChanges, workers: int) -> None:
    """Raise `ValueError` where another worker may still write what this one takes away."""
    taking = [kind for kind in ("drop", "retype") if rules.rule(kind) == "apply"]
    if workers > 1 and taking:
        raise ValueError(
            f"`schema_changes` that apply a {' or a '.join(taking)} need `workers: 1`: another "
            "worker may still have rows of the version before"
        )
