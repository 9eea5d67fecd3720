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
from sinks.composite import composite_path
from sinks.expression import Expression, check_syntax
from sinks.formats import NUMBERS, formatted, rounded, unit_converter
from sinks.function import Function, check_name
from sinks.lookup import Lookup, LookupEntry, finder
from sinks.values import cast_named, text_of

__all__ = ["Cel", "Compute", "FieldEntry", "FieldMap", "MappedColumn", "field_column"]

Cel = Annotated[str, AfterValidator(check_syntax)]
"""An expression in a pipeline file: one that does not parse is refused where it stands."""
_ORIGINS = ("source", "path", "value", "expr", "python")


class FieldMap(BaseModel):
    """Where one target column comes from: exactly one of the first five."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    source: str | None = Field(default=None, alias="from", description="Source column")
    path: str | None = Field(
        default=None,
        description="Place in a json or composite column: `column.key.key`, digits for lists",
    )
    value: str | bool | int | float | None = Field(default=None, description="A constant")
    expr: Cel | None = Field(default=None, description="CEL over the source columns")
    python: Annotated[str, AfterValidator(check_name)] | None = Field(
        default=None, description="A function, `package.module:function`, of the columns in `of`"
    )
    of: list[str] = Field(default_factory=list, description="Source columns that `python` gets")
    as_: str | None = Field(default=None, alias="as", description=f"Cast: {', '.join(CASTS)}")
    format: str | None = Field(
        default=None, description="How the source writes it: `%d.%m.%Y`, `1.234,56`, `yes|y/no|n`"
    )
    unit: str | None = Field(default=None, description="Units to convert: `g->kg`")
    scale: int | None = Field(
        default=None, ge=0, le=38, description="Digits behind the point, rounded half to even"
    )
    lookup: LookupEntry | None = Field(
        default=None, description="Table to look the value up in: a file's name, or a block"
    )
    default: str | bool | int | float | None = Field(
        default=None, description="In place of NULL, and of what a lookup does not find"
    )

    @model_validator(mode="after")
    def _one_origin(self) -> FieldMap:
        if len(self.model_fields_set.intersection(_ORIGINS)) != 1:
            raise ValueError(
                "a field needs exactly one of `from`, `path`, `value`, `expr` and `python`"
            )
        if bool(self.of) != (self.python is not None):
            raise ValueError("`python` and `of` go together: the function and its columns")
        if self.as_ is not None and self.as_ not in CASTS:
            raise ValueError(f"`as: {self.as_}` is not one of {', '.join(CASTS)}")
        return self

    @model_validator(mode="after")
    def _can_be_read(self) -> FieldMap:
        if self.format is not None and self.as_ is None:
            raise ValueError("`format` needs `as`: what is it?")
        if self.format is not None and self.as_ is not None:
            formatted(self.as_, self.format)
        if self.unit is not None:
            unit_converter(self.unit)
        ways = self.model_fields_set & {"format", "unit", "scale", "lookup", "default"}
        if ways and "value" in self.model_fields_set:
            raise ValueError(f"a constant has no `{min(ways)}`")
        return self

    @property
    def casts(self) -> bool:
        """Whether it says itself what its values are."""
        return bool(self.model_fields_set & {"as_", "scale", "value"})


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
        return _computed(name, Expression(field.expr, f"{place}.expr", source), field)
    if field.python is not None:
        return _computed(name, Function(field.python, f"{place}.python", source, field.of), field)
    if field.source is None and field.path is None:
        kind, text = constant(field.value)
        kind, convert = cast(kind, field.as_)
        done = convert(text) if convert is not None and text is not None else text
        return MappedColumn(Column(name, kind), None, lambda _: done)
    wanted, *path = [field.source] if field.source is not None else (field.path or "").split(".")
    column = _column(wanted or "", source, place)
    kind, convert = _from_place(field, column, path, place)
    if field.default is None:
        nullable = column.nullable or bool(path)
        return MappedColumn(Column(name, kind, nullable), column, convert)
    return MappedColumn(Column(name, kind), None, compute=_or_default(column, convert, field))


def _from_place(
    field: FieldMap, column: Column, path: Sequence[str], place: str
) -> tuple[Type, Convert | None]:
    """Return the type and the function for a column, or for a place in a composite or in json."""
    if not path:
        return _way(field, column.type)
    if column.parts:
        part, read = composite_path(column, path, place)
        kind, convert = _way(field, part)
        return kind, _chain([read] if convert is None else [read, convert])
    kind, convert = _way(field, Type("string", "postgres text"))
    return kind, json_path(path, convert)


def _way(field: FieldMap, kind: Type) -> tuple[Type, Convert | None]:
    """Return the type and the function for a text of `kind`, None where none is needed."""
    steps: list[Convert] = []
    if field.format is not None and field.as_ is not None:
        steps.append(formatted(field.as_, field.format))
        kind = CASTS["numeric" if field.as_ in NUMBERS else field.as_]
    if field.unit is not None:
        steps.append(unit_converter(field.unit))
    if field.scale is not None:
        steps.append(rounded(field.scale))
    if field.unit is not None or field.scale is not None:
        kind = CASTS["numeric"]
    if field.lookup is not None:
        steps.append(_found(field.lookup, constant(field.default)[1]))
        kind = CASTS["text"]
    kind, last = cast(kind, field.as_)
    return kind, _chain([*steps, *([] if last is None else [last])])


def _chain(steps: Sequence[Convert]) -> Convert | None:
    if len(steps) < 2:
        return steps[0] if steps else None

    def convert(text: bytes) -> bytes | None:
        found: bytes | None = text
        for step in steps:
            if found is not None:
                found = step(found)
        return found

    return convert


def _found(lookup: Lookup, default: bytes | None) -> Convert:
    find = finder(lookup)

    def convert(text: bytes) -> bytes | None:
        found = find(text)
        if found is None and default is None:
            raise DataError(
                f"{text.decode(errors='replace')!r} is not in {lookup.name}",
                hint="Add it, and `cdc restart` the sink where it is a file, or give the field a "
                "`default`.",
            )
        return default if found is None else found[0]

    return convert


def _or_default(column: Column, convert: Convert | None, field: FieldMap) -> Compute:
    default = constant(field.default)[1]

    def cell(cells: Mapping[str, Cell]) -> Cell:
        found = cells[column.name]
        if isinstance(found, bytes) and convert is not None:
            found = convert(found)
        return default if found is None else found

    return Compute((column.name,), cell)


def _column(name: str, source: Sequence[Column], place: str) -> Column:
    found = next((column for column in source if column.name == name), None)
    if found is None:
        raise ConfigError(
            f"{place}: the topic has no column {name!r}",
            hint=f"Choose among {', '.join(column.name for column in source)}.",
        )
    return found


def _computed(name: str, expression: Expression | Function, field: FieldMap) -> MappedColumn:
    further = field.model_fields_set & {"format", "unit", "scale", "lookup"}
    chosen = expression.kind or "text" if further else field.as_ or expression.kind
    if chosen is None:
        raise ConfigError(
            f"{expression.place}: nobody can tell the type of `{expression.text}` before a row",
            hint="Say it: `as: text`, `as: bigint`, …",
        )
    write = _writer(chosen)
    kind, convert = _way(field, CASTS[chosen]) if further else (CASTS[chosen], None)
    default = constant(field.default)[1]

    def cell(cells: Mapping[str, Cell]) -> Cell:
        value: object = expression.value(cells)
        if value is ABSENT:
            return ABSENT
        try:
            text = write(value)
            text = convert(text) if convert is not None and text is not None else text
        except DataError as error:
            where = f"{expression.place}: `{expression.text}`"
            raise DataError(f"{where}: {error}", hint=error.hint) from error
        return default if text is None else text

    return MappedColumn(Column(name, kind), None, compute=Compute(expression.columns, cell))


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
