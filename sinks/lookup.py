"""Tables to look values up in: a CSV or JSON file beside the pipeline.

    lookup: countries.csv                                   first column → second column
    lookup: {file: countries.csv, key: code, value: name}   by the names in the first line
    lookup: countries.json                                  {"DE": "Germany"}, or a list of objects
                                                            with `key` and `value`

A file is read when the mapping meets a table, and again then only when it has changed: a `cdc
restart` is enough to take over a new one.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cdc.errors import ConfigError, DataError
from sinks.values import text_of

__all__ = ["Lookup", "LookupEntry", "table_of"]


class Lookup(BaseModel):
    """A table of values in a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(description="CSV with a first line of names, or JSON; a path of the worker")
    key: str = Field(default="", description="Column of the value looked up; empty: the first")
    value: str = Field(default="", description="Column of what is found; empty: the second")


def _named(value: Any) -> Any:
    return {"file": value} if isinstance(value, str) else value


LookupEntry = Annotated[Lookup, BeforeValidator(_named)]
"""A lookup as it is written: the file's name is enough."""


def table_of(lookup: Lookup) -> Mapping[bytes, bytes | None]:
    """Return the table, text → text. Raises `errors.ConfigError` naming the file."""
    try:
        state = Path(lookup.file).stat()
    except OSError as error:
        raise _unreadable(lookup, error) from error
    return _read(lookup, (state.st_mtime_ns, state.st_size))


def _unreadable(lookup: Lookup, error: OSError) -> ConfigError:
    return ConfigError(
        f"lookup {lookup.file}: {error.strerror}",
        hint="A relative path begins in the folder the worker is started in.",
    )


@lru_cache(maxsize=64)
def _read(lookup: Lookup, _state: tuple[int, int]) -> Mapping[bytes, bytes | None]:
    try:
        content = Path(lookup.file).read_bytes()
        if lookup.file.endswith(".json"):
            pairs = _from_json(orjson.loads(content), lookup)
        else:
            pairs = _from_csv(content.decode("utf-8-sig"), lookup)
        return _unique(pairs)
    except OSError as error:
        raise _unreadable(lookup, error) from error
    except (ValueError, LookupError, TypeError, csv.Error, DataError) as error:
        said = f"there is no column {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(
            f"lookup {lookup.file}: {said}",
            hint="A CSV file has names in its first line; JSON is an object, or a list of objects.",
        ) from error


def _from_csv(text: str, lookup: Lookup) -> list[tuple[bytes | None, bytes | None]]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    names = next(rows, [])
    places = [_place(names, lookup.key, 0), _place(names, lookup.value, 1)]
    return [(row[places[0]].encode(), row[places[1]].encode()) for row in rows if row]


def _place(names: list[str], wanted: str, usual: int) -> int:
    if wanted and wanted not in names:
        raise KeyError(wanted)
    if not wanted and len(names) <= usual:
        raise ValueError("it has fewer than two columns")
    return names.index(wanted) if wanted else usual


def _from_json(content: Any, lookup: Lookup) -> list[tuple[bytes | None, bytes | None]]:
    if isinstance(content, dict):
        return [(text_of(key), text_of(value)) for key, value in content.items()]
    if not (lookup.key and lookup.value):
        raise ValueError("a list of objects needs `key` and `value`")
    return [(text_of(one[lookup.key]), text_of(one[lookup.value])) for one in content]


def _unique(pairs: list[tuple[bytes | None, bytes | None]]) -> Mapping[bytes, bytes | None]:
    table: dict[bytes, bytes | None] = {}
    for key, value in pairs:
        if key is None:
            raise ValueError("a key is null")
        if table.setdefault(key, value) != value:
            raise ValueError(f"{key.decode()} is there twice, with different values")
    return table
