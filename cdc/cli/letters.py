"""Which dead letters a command means: the filters of `cdc dead`, one option each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from functools import wraps
from typing import Annotated, Any, NamedTuple, get_type_hints

import orjson
import typer

from cdc.cli.shared import moment_ms
from sinks.letters import Letter

__all__ = ["Filter", "filtered", "key_text"]


class Filter(NamedTuple):
    """What a letter must be like; every option left out takes all."""

    topic: Annotated[str, typer.Option(help="Only of topics that match this glob.")] = "*"
    table: Annotated[str, typer.Option(help="Only of source tables that match this glob.")] = "*"
    reason: Annotated[str, typer.Option(help="Only where `Error: text` matches this glob.")] = "*"
    key: Annotated[
        str | None, typer.Option(help="Only of this key: its value, or JSON as `list` shows it.")
    ] = None
    since: Annotated[str | None, typer.Option(help="Only written at this time or later.")] = None
    until: Annotated[str | None, typer.Option(help="Only written before this time.")] = None
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many, the oldest first.")] = None

    def choose(self, letters: Iterable[Letter], decoded: Callable[[Letter], Any]) -> list[Letter]:
        """Return the letters that match; `decoded` gives the plain value of a key.

        Raises `errors.ConfigError` for a time that is none.
        """
        since = moment_ms("--since", self.since) if self.since else 0
        until = moment_ms("--until", self.until) if self.until else 1 << 62
        found = [
            letter
            for letter in letters
            if since <= letter.at_ms < until
            and fnmatchcase(letter.record.topic, self.topic)
            and fnmatchcase(letter.table, self.table)
            and fnmatchcase(f"{letter.error}: {letter.reason}", self.reason)
            and (self.key is None or self.key == key_text(decoded(letter)))
        ]
        return found[: self.limit]


def key_text(key: Any) -> str:
    """Return a decoded key as a person writes it: the value of one column, else JSON."""
    if isinstance(key, dict) and len(key) == 1:
        key = next(iter(key.values()))
    return key if isinstance(key, str) else orjson.dumps(key, default=str).decode()


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes `chosen: Filter` an option for each of its fields instead."""
    hints = get_type_hints(Filter, include_extras=True)
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=Filter._field_defaults[name],
            annotation=hints[name],
        )
        for name in Filter._fields
    ]

    @wraps(command)
    def wrapped(**given: Any) -> None:
        chosen = Filter(**{name: given.pop(name) for name in Filter._fields})
        command(chosen=chosen, **given)

    signature = inspect.signature(command, eval_str=True)
    own = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in signature.parameters.items()
        if name != "chosen"
    ]
    vars(wrapped)["__signature__"] = signature.replace(parameters=[*own[:-2], *options, *own[-2:]])
    wrapped.__annotations__ = {}
    del wrapped.__wrapped__  # its annotations would be looked at
    return wrapped
