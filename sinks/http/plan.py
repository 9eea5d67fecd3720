"""Changes → requests: what each is called, what it carries, and whose order it keeps.

The `Idempotency-Key` of a change is its topic and its place in the source, and its table where the
record goes to several; it does not depend on the cut. That of a batch is made of those of its
changes: the same batch has the same key, and one that was cut otherwise has another, so that a
receiver who has seen one does not pass over the other; in it, each item carries its own.

What must not be under way at once shares a lock:

| lock | keeps in order |
|---|---|
| the table and the row's key; the table alone where no key is known | the changes of one row |
| the place of the event in the source | a key change: delete of the old key, create of the new |
| the path, where it is made of the row's values | rows that go to one place one after the other |

A producer that is not ours says nothing of its events: the partition stands for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Literal

import msgspec
import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator

from cdc.errors import DataError
from schemas.change import ABSENT
from schemas.table import TableSchema
from sinks.changes import Change, ChangeTable
from sinks.documents import Document, json_value
from sinks.http import template
from sinks.http.endpoint import Request
from sinks.journal import FACTS

__all__ = ["Batching", "Deed", "Form", "Forms", "Item", "Plan", "deed"]

Deed = Literal["upsert", "partial", "delete", "truncate"]
"""What a change asks of the endpoint; `partial`: the log did not carry the whole row."""

_at = json_value(FACTS[1].type)
_OF_THE_TABLE = frozenset({"$schema", "$table", "$op"})


class Form(BaseModel):
    """A request: its method, its path below `url`, and its body."""

    model_config = ConfigDict(extra="forbid")

    method: Literal["POST", "PUT", "PATCH", "DELETE"] = Field(description="Method")
    path: str = Field(
        default="/{$table}/{$key}", pattern="^/", description="Path below `url`, with placeholders"
    )
    body: Any = Field(
        default=None, description="JSON with placeholders; the row when there is none"
    )

    _form = field_validator("path", "body")(template.check)


Forms = Mapping[Deed, Form | Literal["skip", "refuse"]]


def deed(change: Change) -> Deed:
    """Return what `change` asks for."""
    if change.op == "t":
        return "truncate"
    if change.op == "d":
        return "delete"
    return "partial" if ABSENT in change.cells else "upsert"


class Item(msgspec.Struct, frozen=True):
    """A change and its request, of which `body` is the body before it is JSON.

    Of two with a lock in common the later waits for the answer to the earlier.
    """

    change: Change
    deed: Deed
    request: Request
    body: Any
    locks: Sequence[Hashable]


class Batching(msgspec.Struct, frozen=True):
    """How many changes go into one request (1: each has its own), and where such a request goes."""

    size: int
    method: str
    path: str

    def request(self, items: Sequence[Item]) -> Request:
        """Return the request for one or several changes."""
        if self.size == 1:
            return items[0].request
        names = "\n".join(item.change.name for item in items)
        body = [
            {
                "key": item.change.name,
                "op": item.deed,
                "path": item.request.path,
                "body": item.body,
            }
            for item in items
        ]
        key = sha256(names.encode()).hexdigest()
        name = f"{self.method} {self.path} ({len(items)} changes)"
        return Request(self.method, self.path, name, key, orjson.dumps(body))


class _Made(msgspec.Struct, frozen=True):
    """How one deed of one table becomes a request; `is_own`: its path is made of the row."""

    form: Form
    path: Callable[[template.Values], str]
    body: Callable[[template.Values], Any] | None
    is_own: bool


class Plan:
    """How the changes of one version of a table become requests.

    Raises `errors.ConfigError` for a placeholder that names no column.
    """

    def __init__(self, schema: TableSchema, forms: Forms) -> None:
        self.changes = ChangeTable(schema)
        self._document = Document(self.changes.columns)
        self._key = [self.changes.columns[place].name for place in self.changes.key]
        self._forms = forms
        self._made = {d: self._compile(d, f) for d, f in forms.items() if isinstance(f, Form)}

    def _compile(self, which: Deed, form: Form) -> _Made:
        place = f"{which}: {self.changes.table}"
        path = template.path_of(form.path, self.changes.places, place)
        body = None
        if form.body is not None:
            body = template.body_of(form.body, self.changes.places, place)
        elif which in ("upsert", "partial"):
            body = template.body_of("{$row}", (), place)
        return _Made(form, path, body, not template.names(form.path) <= _OF_THE_TABLE)

    def item(self, change: Change) -> Item | None:
        """Return what is to be sent, None for nothing. Raises `errors.DataError`."""
        which = deed(change)
        made = self._made.get(which)
        if made is None:
            if self._forms[which] == "skip":
                return None
            raise DataError(
                f"a {which} of {self.changes.table} has no request",
                hint=f"Give it one under `{which}:`, or `skip`.",
            )
        try:
            values = self._values(change, which)
        except ValueError as error:
            raise DataError(f"a value is none of its type: {error}") from error
        body = None if made.body is None else made.body(values)
        request = Request(
            made.form.method,
            made.path(values),
            f"{made.form.method} {made.form.path}",
            change.name,
            None if body is None else orjson.dumps(body),
        )
        locks = self._locks(change)
        return Item(change, which, request, body, [*locks, request.path] if made.is_own else locks)

    def _locks(self, change: Change) -> list[Hashable]:
        event = (change.partition,) if change.stamp is None else change.stamp[:3]
        row = [change.cells[place] for place in self.changes.key]
        return [(self.changes.table, *row), (change.topic, self.changes.part, *event)]

    def _values(self, change: Change, which: Deed) -> dict[str, Any]:
        row = self._document.members(change.cells)
        key = [row[name] for name in self._key if name in row]
        ours = {
            "$schema": self.changes.table.schema,
            "$table": self.changes.table.name,
            "$row": row,
            "$op": which,
            "$name": change.name,
            "$at": None if change.at is None else _at(change.at),
        }
        if key and which != "truncate":
            ours["$key"] = key[0] if len(key) == 1 else key
        return {**({} if which == "truncate" else row), **ours}
