"""Tables to look values up in: a CSV or JSON file beside the pipeline, or a topic.

    lookup: countries.csv                                   first column → second column
    lookup: {file: countries.csv, key: code, value: name}   by the names in the first line
    lookup: countries.json                                  {"DE": "Germany"}, or a list of objects
                                                            with `key` and `value`
    lookup: {topic: shopdb.public.countries, key: code, value: name}     sinks/topic_lookup.py

A file is read when the mapping meets a table, and again then only when it has changed: a `cdc
restart` is enough to take over a new one.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    model_validator,
)

from cdc.errors import ConfigError, DataError
from sinks.values import text_of

__all__ = ["Find", "Lookup", "LookupEntry", "finder"]


Find = Callable[[bytes], tuple[bytes | None] | None]
"""Text → what it gives, in a tuple of one; None when it is not in the table."""


class Lookup(BaseModel):
    """A table of values: exactly one of `file` and `topic`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(
        default="", description="CSV with a first line of names, or JSON; a path of the worker"
    )
    topic: str = Field(default="", description="A topic, read whole and followed")
    key: str = Field(
        default="",
        description="Column of the value looked up; empty: a file's first, a topic's record key",
    )
    value: str = Field(
        default="",
        description="Column of what is found; empty: a file's second, a topic's value as it is",
    )
    max_bytes: int = Field(
        default=64 << 20, ge=1, description="Memory that a topic's table may take; more is a stop"
    )
    _find: Find | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _one_place(self) -> Lookup:
        if bool(self.file) == bool(self.topic):
            raise ValueError("a lookup needs exactly one of `file` and `topic`")
        return self

    def __hash__(self) -> int:
        return hash((self.file, self.topic, self.key, self.value, self.max_bytes))

    def __eq__(self, other: object) -> bool:
        """Two that say the same are one table, wherever they find it."""
        return isinstance(other, Lookup) and self.model_dump() == other.model_dump()

    @property
    def name(self) -> str:
        """What an error calls it."""
        return self.file or f"topic {self.topic}"

    def find_in(self, find: Find) -> None:
        """Look up by `find` from now on: the topic is followed there."""
        self._find = find

    def followed(self, text: bytes) -> tuple[bytes | None] | None:
        """Return what `text` gives in the topic. Raises `errors.ConfigError` where nobody reads."""
        if self._find is None:
            raise ConfigError(
                f"lookup {self.name} is not read here",
                hint="What a row found is as of the time it was applied: only the sink knows.",
            )
        return self._find(text)


def _named(value: Any) -> Any:
    return {"file": value} if isinstance(value, str) else value


LookupEntry = Annotated[Lookup, BeforeValidator(_named)]
"""A lookup as it is written: the file's name is enough."""


def finder(lookup: Lookup) -> Find:
    """Return what looks a text up; a file is read now. Raises `errors.ConfigError` naming it."""
    if lookup.topic:
        return lookup.followed
    table = _table(lookup)
    return lambda text: (table[text],) if text in table else None


def _table(lookup: Lookup) -> Mapping[bytes, bytes | None]:
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
