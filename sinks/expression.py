"""CEL over the columns of one table: compiled with the mapping, called once a row.

    cells ──▶ values of the columns it names ──▶ CEL ──▶ a value
    NULL is null; an absent value is not bound, so that CEL itself says whether it matters

Why absent values are safe (R6): where none of the columns it reads was sent, the row's value is
what it was before, and so is the result: absent. Where some were, CEL's own rules decide (`a || b`
is true when one side is); an expression that cannot do without the value refuses the row.

What can be known of an expression before a row comes is checked when it is bound: that it parses,
that its columns exist, and, with one made-up row, that its functions and operators exist for the
columns' types. Source: CEL language definition; the `cel` crate by way of its Python wheel.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from cdc.errors import ConfigError, DataError
from schemas.avro import escape
from schemas.change import ABSENT, Cell
from schemas.table import Column
from sinks.values import cast_named, read_cell, sample

__all__ = ["Expression", "check_syntax", "row_filter"]

_RESERVED = frozenset(
    [
        "false",
        "in",
        "null",
        "true",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ]
)
_LITERAL = re.compile(
    r"""[rbRB]{0,2}(?:'''.*?'''|\"""(.*?)\"""|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")"""
)
_MACRO = re.compile(r"\.(?:all|exists|exists_one|map|filter)\s*\(\s*([A-Za-z_]\w*)\s*,")
_Program = Callable[[dict[str, Any]], Any]


@cache
def _library() -> tuple[Any, dict[str, Any]]:
    """Return the CEL library and the functions it offers beside the language's own."""
    try:
        library = import_module("cel")
    except ImportError as error:
        raise ConfigError(
            "expressions need the CEL library",
            hint="pip install 'tailrace[cel]'",
        ) from error
    # It would log each row that an expression fails for, with its values; the letter says it.
    logging.getLogger("cel").setLevel(logging.CRITICAL)
    context = library.Context()
    import_module("cel.stdlib").add_stdlib_to_context(context)
    return library, context.functions


def _compiled(text: str) -> Any:
    library, _ = _library()
    try:
        return library.compile(text)
    except ValueError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        said = next((line for line in lines if "ERROR" in line), lines[0])
        place = re.search(r"<input>:(\d+):(\d+): *(.*)", said)
        where = f"at line {place[1]}, column {place[2]}: {place[3]}" if place else said
        raise ConfigError(f"`{text}` is no CEL expression {where}") from error


def check_syntax(text: str) -> str:
    """Return `text` when it parses. Raises `ValueError`, as a check of the pipeline file does."""
    try:
        _compiled(text)
    except ConfigError as error:
        raise ValueError(f"{error} {error.hint}".strip()) from error
    return text


def _called(program: Any) -> dict[str, Any]:
    """Return those of the further functions that a program calls, also as `math.round(x)`."""
    names = set(program.functions())
    names |= {f"{space}.{name}" for space in program.variables() for name in names}
    return {name: call for name, call in _library()[1].items() if name in names}


def _variable(column: str) -> str:
    """Return what a column is called in an expression."""
    name = escape(column)
    return f"{name}_" if name in _RESERVED else name


class Expression:
    """One expression over the columns of one version of a table; `place` is its YAML path.

    `columns` are the names of those it reads. `kind` is the name of its result's type, as `as:`
    takes it, None where a made-up row does not tell.
    """

    def __init__(self, text: str, place: str, columns: Sequence[Column]) -> None:
        self.text = text
        self.place = place
        try:
            program = _compiled(text)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}", hint=error.hint) from error
        self._execute: _Program = program.execute
        known = {_variable(column.name): column for column in columns}
        used = self._used(program, known)
        self._functions = _called(program)
        self._reads = [(name, known[name].name, read_cell(known[name].type)) for name in used]
        self.columns = tuple(column for _, column, _ in self._reads)
        self.kind = self._tried({name: sample(known[name].type) for name in used})

    def _used(self, program: Any, known: Mapping[str, Column]) -> list[str]:
        bound = set(_MACRO.findall(_LITERAL.sub("''", self.text)))
        spaces = {name.partition(".")[0] for name in _library()[1] if "." in name}
        named = set(program.variables())
        unknown = sorted(named - known.keys() - bound - spaces)
        if unknown:
            raise ConfigError(
                f"{self.place}: `{self.text}` names {', '.join(unknown)}, which is no column",
                hint=f"Choose among {', '.join(known)}.",
            )
        return sorted(named & known.keys())

    def _tried(self, values: dict[str, Any]) -> str | None:
        """Return the type of the result for a made-up row, None when it cannot be told."""
        try:
            found = self._execute({**self._functions, **values})
            return None if found is None else cast_named(found)
        except Exception as error:
            undefined = "Undefined variable or function" in str(error)
            if None not in values.values() and (undefined or isinstance(error, TypeError)):
                raise ConfigError(
                    f"{self.place}: `{self.text}` cannot be: {_line(error)}",
                    hint="CEL converts nothing by itself: write double(a), string(a), int(a).",
                ) from error
            return None

    def value(self, cells: Mapping[str, Cell]) -> Any:
        """Return the value for a row; `ABSENT` where nothing that it reads was sent.

        Raises `errors.DataError` with the place and the expression.
        """
        values = dict(self._functions)
        absent: list[str] = []
        try:
            for name, column, read in self._reads:
                cell = cells[column]
                if cell is ABSENT:
                    absent.append(column)
                else:
                    values[name] = None if cell is None else read(cell)
            if absent and len(absent) == len(self._reads):
                return ABSENT
            return self._execute(values)
        except Exception as error:
            raise self._refused(error, absent) from error

    def _refused(self, error: Exception, absent: Sequence[str]) -> DataError:
        if absent:
            return self.lacking(absent)
        hint = error.hint if isinstance(error, DataError) else ""
        return DataError(f"{self.place}: `{self.text}`: {_line(error)}", hint=hint)

    def lacking(self, columns: Sequence[str]) -> DataError:
        """Return the error of a row without the values of `columns` (R6)."""
        return DataError(
            f"{self.place}: `{self.text}` needs {', '.join(columns)}, which the log did not carry",
            hint="Set REPLICA IDENTITY FULL on the source table: then large values that did not "
            "change are sent too.",
        )


def _line(error: Exception) -> str:
    """Return what the library says of a failure, without its words for Python programmers."""
    if isinstance(error, KeyError):
        return f"there is no {error}"
    said = str(error).partition("\n")[0]
    said = re.split(r"\. (?:CEL does not coerce|Check (?:that|function))", said)[0]
    said = re.sub(r"Python function call failed: \w+: ", "", said)
    return said.replace("'NoneType' object", "null").rstrip(".")


def row_filter(
    text: str | None, place: str, columns: Sequence[Column], *, keyed: bool
) -> Expression | None:
    """Return the expression that says which rows a target has, None where there is none.

    `keyed` tells whether the target has a key. Raises `errors.ConfigError`.
    """
    if text is None:
        return None
    where = Expression(text, place, columns)
    if where.kind not in (None, "bool"):
        raise ConfigError(
            f"{where.place}: `{where.text}` gives {where.kind}, not true or false",
            hint="Compare it with something.",
        )
    if not keyed:
        raise ConfigError(
            f"{where.place}: a table without a key cannot be filtered: nobody knows which row to "
            "delete when one leaves the filter",
            hint="Name unique target columns under `key:`.",
        )
    return where
