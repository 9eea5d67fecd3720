"""A migration's statements → what each does to the tables it names.

sqlglot reads the dialect. What it cannot read, and what it reads and nobody here knows, is named
and never taken for harmless. A type becomes what the sources themselves make of it
(`cdc.decode.pgtypes`, `cdc.decode.mysqltypes`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import sqlglot
from msgspec.structs import replace
from sqlglot import exp
from sqlglot.errors import SqlglotError, TokenError

from cdc.cli.ddltypes import mysql_type, postgres_type
from schemas.table import Column, TableId, TableSchema, Type

__all__ = ["Deed", "Statement", "Unread", "read_migration"]

Deed = Callable[[TableSchema], TableSchema]
"""A version of a table → the next one. Raises `Unread` for a column that is not there."""


class Unread(Exception):
    """A part of a statement whose effect nobody here knows."""


class Statement(msgspec.Struct, frozen=True):
    """One statement and the line it begins at. `unread` says why its effect is not known.

    `table` is what it changes by `deeds`, in their order; `ends` says that the table is dropped
    or called otherwise afterwards.
    """

    line: int
    text: str
    table: TableId | None = None
    deeds: Sequence[Deed] = ()
    ends: bool = False
    unread: str = ""


logging.getLogger("sqlglot").setLevel(logging.ERROR)  # what it gives up on is a finding of ours

_HARMLESS = (
    exp.Analyze,
    exp.Comment,
    exp.Commit,
    exp.Delete,
    exp.Grant,
    exp.Insert,
    exp.Revoke,
    exp.Rollback,
    exp.Select,
    exp.Transaction,
    exp.TruncateTable,
    exp.Update,
)
"""Statements that change no columns: the rows they write travel as all rows do."""
_NO_COLUMNS = ("INDEX", "VIEW", "SEQUENCE")
"""What CREATE and DROP may make and drop without one either."""
_HARMLESS_TEXT = re.compile(
    r"(vacuum|analyze|lock table|create (extension|sequence|trigger|function|role|user|schema)"
    r"|alter (sequence|index|role|user|function|extension)"
    r"|alter table (only )?\S+ (owner to|cluster on|validate constraint|set tablespace)) ",
    re.IGNORECASE,
)
"""The same among what sqlglot does not take apart."""


def read_migration(text: str, dialect: str, schema: str) -> Iterator[Statement]:
    """Yield the statements of `text`, whose tables are of `schema` unless they say another.

    `dialect` is a source's type: `postgres` or `mariadb`.
    """
    reader = _Reader(dialect, schema)
    try:
        tokens = sqlglot.tokenize(text, read=reader.language)
    except TokenError as error:
        yield Statement(1, text.strip(), unread=_said(error))
        return
    first = None
    for token in tokens:
        if token.token_type.name != "SEMICOLON":
            first = first or token
        elif first is not None:
            yield reader.read(first.line, text[first.start : token.start].strip())
            first = None
    if first is not None:
        yield reader.read(first.line, text[first.start :].strip())


def _said(error: SqlglotError) -> str:
    return re.sub(r"\x1b\[\d+m", "", str(error)).splitlines()[0]


class _Reader:
    """Takes statements of one dialect apart."""

    def __init__(self, dialect: str, schema: str) -> None:
        self.language = "mysql" if dialect == "mariadb" else dialect
        self._type = mysql_type if dialect == "mariadb" else postgres_type
        self._schema = schema
        self._actions: dict[type[exp.Expression], Callable[[Any], Iterator[Deed]]] = {
            exp.ColumnDef: self._add,
            exp.Drop: self._drop,
            exp.DropPrimaryKey: lambda _: iter([_keyed(())]),
            exp.AddConstraint: self._constrain,
            exp.RenameColumn: self._rename,
            exp.ModifyColumn: self._modify,
            exp.AlterColumn: self._alter,
        }

    def read(self, line: int, text: str) -> Statement:
        """Return what a statement does, or why that is not known."""
        try:
            tree = sqlglot.parse_one(text, read=self.language)
            if self._is_harmless(tree, text):
                return Statement(line, text)
            return self._changed(line, text, tree)
        except SqlglotError as error:
            return Statement(line, text, unread=_said(error))
        except (Unread, ValueError) as error:
            return Statement(line, text, unread=str(error))

    def _is_harmless(self, tree: exp.Expr, text: str) -> bool:
        if isinstance(tree, exp.Command):
            return _HARMLESS_TEXT.match(" ".join(text.split()) + " ") is not None
        if isinstance(tree, exp.Create):
            return tree.kind in (*_NO_COLUMNS, "TABLE")
        if isinstance(tree, exp.Drop):
            return tree.args["kind"] in _NO_COLUMNS
        return isinstance(tree, _HARMLESS)

    def _changed(self, line: int, text: str, tree: exp.Expr) -> Statement:
        if isinstance(tree, exp.Drop) and tree.args["kind"] == "TABLE":
            [table] = tree.args["tables"]
            return Statement(line, text, self._table(table), ends=True)
        if not isinstance(tree, exp.Alter) or tree.args["kind"] != "TABLE":
            raise Unread("what it does to a table is not known")
        actions = tree.args.get("actions") or []
        options = tree.args.get("options") or []
        if options and isinstance(options[0], exp.ToTableProperty):  # RENAME a TO b, of a column
            deeds = [_renamed(self._name(actions[0].this), self._name(options[0].this))]
            return Statement(line, text, self._table(tree.this), deeds)
        for option in options:
            if not isinstance(option, exp.EngineProperty):
                raise Unread(f"what {option.sql(dialect=self.language)} does is not known")
        ends = any(isinstance(action, exp.AlterRename) for action in actions)
        deeds = [] if ends else [deed for action in actions for deed in self._deeds(action)]
        return Statement(line, text, self._table(tree.this), deeds, ends)

    def _deeds(self, action: exp.Expression) -> Iterator[Deed]:
        found = self._actions.get(type(action))
        if found is None:
            raise Unread(f"what {action.sql(dialect=self.language)} does to a table is not known")
        return found(action)

    def _name(self, tree: exp.Expression) -> str:
        """Return a name as the database keeps it: PostgreSQL folds one without quotes."""
        identifier = tree if isinstance(tree, exp.Identifier) else tree.this
        folds = self.language == "postgres" and not identifier.args.get("quoted")
        name: str = identifier.name
        return name.lower() if folds else name

    def _table(self, tree: exp.Expression) -> TableId:
        schema = tree.args.get("db")
        return TableId(self._name(schema) if schema else self._schema, self._name(tree))

    def _column(self, tree: exp.ColumnDef) -> Column:
        kinds = [constraint.args["kind"] for constraint in tree.args.get("constraints") or []]
        required = any(
            isinstance(kind, exp.PrimaryKeyColumnConstraint)
            or (isinstance(kind, exp.NotNullColumnConstraint) and not kind.args.get("allow_null"))
            for kind in kinds
        )
        return Column(self._name(tree), self._spelled(tree.args["kind"]), nullable=not required)

    def _spelled(self, kind: exp.DataType) -> Type:
        return self._type(kind.sql(dialect=self.language))

    def _add(self, tree: exp.ColumnDef) -> Iterator[Deed]:
        column = self._column(tree)
        yield lambda table: replace(table, columns=(*_others(table, column.name), column))
        if tree.find(exp.PrimaryKeyColumnConstraint) is not None:
            yield _keyed((column.name,))

    def _drop(self, tree: exp.Drop) -> Iterator[Deed]:
        kind, names = tree.args["kind"], [self._name(one) for one in tree.args["tables"]]
        if kind == "COLUMN":
            yield from (_without(name) for name in names)
        elif kind == "CONSTRAINT":
            # PostgreSQL calls a primary key so unless it was named; others are no columns' affair.
            yield from (_keyed(()) for name in names if name.endswith("_pkey"))
        elif kind != "INDEX":
            raise Unread(f"what DROP {kind} does to a table is not known")

    def _constrain(self, tree: exp.AddConstraint) -> Iterator[Deed]:
        for key in tree.find_all(exp.PrimaryKey):
            yield _keyed(tuple(self._name(column) for column in key.expressions))

    def _rename(self, tree: exp.RenameColumn) -> Iterator[Deed]:
        yield _renamed(self._name(tree.this), self._name(tree.args["to"]))

    def _modify(self, tree: exp.ModifyColumn) -> Iterator[Deed]:
        column, before = self._column(tree.this), tree.args.get("rename_from")
        if before is not None:
            yield _renamed(self._name(before), column.name)
        yield _altered(column.name, type=column.type, nullable=column.nullable)

    def _alter(self, tree: exp.AlterColumn) -> Iterator[Deed]:
        name, kind = self._name(tree), tree.args.get("dtype")
        if kind is not None:
            yield _altered(name, type=self._spelled(kind))
        elif tree.args.get("allow_null") is not None:
            yield _altered(name, nullable=tree.args["allow_null"])


def _others(table: TableSchema, name: str) -> Iterator[Column]:
    return (column for column in table.columns if column.name != name)


def _known(table: TableSchema, name: str) -> Column:
    try:
        return table.column(name)
    except KeyError:
        raise Unread(f"{table.table} has no column {name} in the registry") from None


def _without(name: str) -> Deed:
    def deed(table: TableSchema) -> TableSchema:
        _known(table, name)
        key = () if name in table.key else table.key
        return replace(table, columns=tuple(_others(table, name)), key=key)

    return deed


def _altered(name: str, **facts: Any) -> Deed:
    def deed(table: TableSchema) -> TableSchema:
        column = replace(_known(table, name), **facts)
        return replace(table, columns=tuple(column if c.name == name else c for c in table.columns))

    return deed


def _renamed(before: str, after: str) -> Deed:
    def deed(table: TableSchema) -> TableSchema:
        key = tuple(after if name == before else name for name in table.key)
        moved = replace(_known(table, before), name=after)
        columns = tuple(moved if c.name == before else c for c in table.columns)
        return replace(table, columns=columns, key=key)

    return deed


def _keyed(key: tuple[str, ...]) -> Deed:
    return lambda table: replace(table, key=key)
