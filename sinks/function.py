"""A Python function of the operator's, where configuration ends: `python: package.module:function`.

The module is one that is installed, or lies in the folder the worker is started in, which is looked
at last, so that nothing there can stand for an installed one. It is imported when the mapping meets
its table, by workers, `cdc check` and `cdc map try` alone: reading a pipeline file runs nothing.

It runs with the rights and the secrets of the worker. Whoever may write the pipeline file or that
folder may run code as the worker.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from cdc.errors import ConfigError, DataError
from schemas.change import ABSENT, Cell
from schemas.table import Column
from sinks.values import read_cell

__all__ = ["Function", "check_name"]

_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def check_name(name: str) -> str:
    """Return `name` when it is `package.module:function`. Raises `ValueError`."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"`python: {name}` is not written as package.module:function")
    return name


def _imported(name: str, place: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    here = os.getcwd()  # noqa: PTH109 - sys.path holds texts
    if here not in sys.path:
        sys.path.append(here)
    try:
        found: Any = getattr(import_module(module), function)
    except Exception as error:
        raise ConfigError(
            f"{place}: {name} cannot be imported: {type(error).__name__}: {error}",
            hint="The module must be installed, or lie in the folder the worker is started in.",
        ) from error
    if not callable(found):
        raise ConfigError(f"{place}: {name} is no function")
    call: Callable[..., Any] = found
    return call


class Function:
    """One function over some columns of a table; `place` is its YAML path.

    It gets a value for each of `columns`, in their order: as in an expression, but numbers that are
    no doubles are `decimal.Decimal`, and NULL is None.
    """

    kind = None

    def __init__(
        self, name: str, place: str, source: Sequence[Column], columns: Sequence[str]
    ) -> None:
        self.text = name
        self.place = place
        self.columns = tuple(columns)
        types = {column.name: column.type for column in source}
        unknown = [column for column in columns if column not in types]
        if unknown:
            raise ConfigError(
                f"{place}: the topic has no column {', '.join(unknown)}",
                hint=f"Choose among {', '.join(types)}.",
            )
        self._reads = [(column, read_cell(types[column], exact=True)) for column in columns]
        self._call = _imported(name, place)

    def value(self, cells: Mapping[str, Cell]) -> Any:
        """Return what the function gives for a row; `ABSENT` where nothing it reads was sent.

        Raises `errors.DataError`: whatever it raises refuses the row.
        """
        absent = [column for column in self.columns if cells[column] is ABSENT]
        if absent and len(absent) == len(self.columns):
            return ABSENT
        if absent:
            raise DataError(
                f"{self.place}: {self.text} needs {', '.join(absent)}, which the log did not carry",
                hint="Set REPLICA IDENTITY FULL on the source table.",
            )
        try:
            return self._call(*(self._read(cells[column], read) for column, read in self._reads))
        except Exception as error:
            raise DataError(
                f"{self.place}: {self.text}: {type(error).__name__}: {error}"
            ) from error

    @staticmethod
    def _read(cell: Cell, read: Callable[[bytes], Any]) -> Any:
        return read(cell) if isinstance(cell, bytes) else None
