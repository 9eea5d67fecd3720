"""One column of the target: where it comes from, and how its text is made.

A column that one source column makes is a function of its text (`convert`), which never sees
NULL; any other is computed (`compute`) from the cells that it names. Both are made once per
version of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from cdc.errors import ConfigError, DataError
from schemas.change import ABSENT, Cell
from schemas.table import Column, Type
from sinks.cast import CASTS, Convert, cast, constant, json_path
from sinks.expression import Expression, check_syntax
from sinks.values import cast_named, text_of

__all__ = ["Cel", "Compute", "FieldEntry", "FieldMap", "MappedColumn", "field_column"]

Cel = Annotated[str, AfterValidator(check_syntax)]
"""An expression in a pipeline file: one that does not parse is refused where it stands."""
_ORIGINS = ("source", "path", "value", "expr")


class FieldMap(BaseModel):
    """Where one target column comes from: exactly one of `from`, `path`, `value` and `expr`."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    source: str | None = Field(default=None, alias="from", description="Source column")
    path: str | None = Field(
        default=None, description="Place inside a json column: `column.key.key`, digits for lists"
    )
    value: str | bool | int | float | None = Field(default=None, description="A constant")
    expr: Cel | None = Field(default=None, description="CEL over the source columns")
    as_: str | None = Field(default=None, alias="as", description=f"Cast: {', '.join(CASTS)}")

    @model_validator(mode="after")
    def _one_origin(self) -> FieldMap:
        if len(self.model_fields_set.intersection(_ORIGINS)) != 1:
            raise ValueError("a field needs exactly one of `from`, `path`, `value` and `expr`")
        if self.as_ is not None and self.as_ not in CASTS:
            raise ValueError(f"`as: {self.as_}` is not one of {', '.join(CASTS)}")
        return self


def _named(value: Any) -> Any:
    return {"from": value} if isinstance(value, str) else value


FieldEntry = Annotated[FieldMap, BeforeValidator(_named)]
"""A field as it is written: the name of a source column is enough."""


class Compute(msgspec.Struct, frozen=True):
    """A cell made of several: `columns` are the source columns it reads.

    `cell` may raise `errors.DataError` for a row it cannot be made of.
    """

    columns: tuple[str, ...]
    cell: Callable[[Mapping[str, Cell]], Cell]


class MappedColumn(msgspec.Struct, frozen=True):
    """One target column: the source column it is made of (None: a constant) and how."""

    column: Column
    source: Column | None
    convert: Convert | None = None
    compute: Compute | None = None


def field_column(name: str, field: FieldMap, source: Sequence[Column], place: str) -> MappedColumn:
    """Return the column `name` as `field`, at the YAML path `place`, says.

    Raises `errors.ConfigError` for a column that is not there.
    """
    if field.expr is not None:
        return _computed(name, Expression(field.expr, f"{place}.expr", source), field.as_)
    if field.source is None and field.path is None:
        kind, text = constant(field.value)
        kind, convert = cast(kind, field.as_)
        done = convert(text) if convert is not None and text is not None else text
        return MappedColumn(Column(name, kind), None, lambda _: done)
    wanted, *path = [field.source] if field.source is not None else (field.path or "").split(".")
    column = _column(wanted or "", source, place)
    if not path:
        kind, convert = cast(column.type, field.as_)
        return MappedColumn(Column(name, kind, column.nullable), column, convert)
    kind, convert = cast(Type("string", "postgres text"), field.as_)
    return MappedColumn(Column(name, kind), column, json_path(path, convert))


def _column(name: str, source: Sequence[Column], place: str) -> Column:
    found = next((column for column in source if column.name == name), None)
    if found is None:
        raise ConfigError(
            f"{place}: the topic has no column {name!r}",
            hint=f"Choose among {', '.join(column.name for column in source)}.",
        )
    return found


def _computed(name: str, expression: Expression, as_: str | None) -> MappedColumn:
    chosen = as_ or expression.kind
    if chosen is None:
        raise ConfigError(
            f"{expression.place}: nobody can tell the type of `{expression.text}` before a row",
            hint="Say it: `as: text`, `as: bigint`, …",
        )
    write = _writer(chosen)

    def cell(cells: Mapping[str, Cell]) -> Cell:
        value: object = expression.value(cells)
        if value is ABSENT:
            return ABSENT
        try:
            return write(value)
        except DataError as error:
            where = f"{expression.place}: `{expression.text}`"
            raise DataError(f"{where}: {error}", hint=error.hint) from error

    return MappedColumn(
        Column(name, CASTS[chosen]), None, compute=Compute(expression.columns, cell)
    )


def _writer(name: str) -> Callable[[Any], bytes | None]:
    """Return value → text of the type called `name`, whatever the value's own type is."""
    ways: dict[str, Convert | None] = {}

    def write(value: Any) -> bytes | None:
        text = text_of(value)
        if text is None:
            return None
        given = cast_named(value)
        if given not in ways:
            ways[given] = cast(CASTS[given], name)[1]
        convert = ways[given]
        return text if convert is None else convert(text)

    return write
