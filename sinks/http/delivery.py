"""Changes → requests: what each is called, what it carries, and what is done of a cut.

    changes, in the order of their sources ─▶ one request each, or one for every `batch` of them
                                               │ refused: halved until it is one
                                               └ done: noted, and not sent again in this cut

The `Idempotency-Key` of a change is its topic and its place in the source, and its table where the
record goes to several; it does not depend on the cut. That of a batch is made of those of its
changes: the same batch has the same key, and one that was cut otherwise has another, so that a
receiver who has seen one does not pass over the other; in it, each item carries its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Literal

import msgspec
import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator

from cdc.errors import DataError
from schemas.change import ABSENT
from schemas.table import TableSchema
from sinks.changes import Change, ChangeTable, changes_of
from sinks.documents import Document, json_value
from sinks.http import template
from sinks.http.endpoint import Request
from sinks.journal import FACTS
from sinks.target import Cursor, RowsRefused, Span, Step

__all__ = ["Batching", "Deed", "Delivery", "Form", "Forms", "deed"]

Deed = Literal["upsert", "partial", "delete", "truncate"]
"""What a change asks of the endpoint; `partial`: the log did not carry the whole row."""

_Place = tuple[str, int]
_at = json_value(FACTS[1].type)


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


class Batching(msgspec.Struct, frozen=True):
    """How many changes go into one request (1: each has its own), and where such a request goes."""

    size: int
    method: str
    path: str


def deed(change: Change) -> Deed:
    """Return what `change` asks for."""
    if change.op == "t":
        return "truncate"
    if change.op == "d":
        return "delete"
    return "partial" if ABSENT in change.cells else "upsert"


class _Item(msgspec.Struct, frozen=True):
    """A change and its request; `values` are what its placeholders stand for."""

    change: Change
    deed: Deed
    request: Request
    body: Any


class _Made(msgspec.Struct, frozen=True):
    """How one deed of one table becomes a request."""

    form: Form
    path: Callable[[template.Values], str]
    body: Callable[[template.Values], Any] | None


class _Plan:
    """How the changes of one version of a table become requests."""

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
        return _Made(form, path, body)

    def item(self, change: Change) -> _Item | None:
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
        return _Item(change, which, request, body)

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


class Delivery:
    """Sends the changes of a cut, and knows how far it has come."""

    def __init__(self, send: Callable[[Request], None], forms: Forms, batching: Batching) -> None:
        self._send = send
        self._forms = forms
        self._batching = batching
        self._plans: dict[TableSchema, _Plan] = {}
        self._tables: dict[TableSchema, ChangeTable] = {}
        self._done: dict[tuple[str, int, str], int] = {}
        self._spans: dict[_Place, Span] = {}
        self._reached: dict[_Place, Cursor] = {}

    def prepare(self, schema: TableSchema) -> None:
        """Compile the requests of a table. Raises `errors.ConfigError` for an unknown name."""
        if schema not in self._plans:
            self._plans[schema] = plan = _Plan(schema, self._forms)
            self._tables[schema] = plan.changes

    def begin(self, spans: Iterable[Span]) -> None:
        """Take a cut up, or take it up again: what was done of it is not sent a second time."""
        self._spans = {(s.partition.topic, s.partition.partition): s for s in spans}

    def end(self) -> None:
        """Forget the cut: its cursors have moved."""
        self._done.clear()
        self._reached.clear()

    def progress(self) -> Sequence[Span]:
        """Return how far the cursors may move though the cut is not done."""
        return [
            Span(span.partition, span.start, self._reached[place])
            for place, span in self._spans.items()
            if place in self._reached and span.end != span.start
        ]

    def judge(self, step: Step) -> None:
        """See that every change of `step` can be told, and send nothing.

        Raises `RowsRefused` for the first that cannot.
        """
        for change in changes_of(step, self._tables):
            self._item(change)

    def send(self, step: Step) -> None:
        """Send the changes of `step`. Raises `RowsRefused` for the first that is refused."""
        batch: list[_Item] = []
        for change in changes_of(step, self._tables):
            if change.offset < self._done.get(_lane(change), 0):
                continue
            try:
                item = self._item(change)
            except RowsRefused:
                self._send_all(batch)
                raise
            if item is not None:
                batch.append(item)
            if item is None or len(batch) >= self._batching.size:
                self._send_all(batch)
                batch = []
                self._note(change)
        self._send_all(batch)

    def _item(self, change: Change) -> _Item | None:
        try:
            return self._plans[change.table.schema].item(change)
        except DataError as error:
            raise _refused(change, error) from error

    def _send_all(self, items: Sequence[_Item]) -> None:
        """Send some changes; where they are refused together, by halves."""
        if not items:
            return
        try:
            self._send(items[0].request if self._batching.size == 1 else self._joined(items))
        except DataError as error:
            if len(items) == 1:
                raise _refused(items[0].change, error) from error
            half = len(items) // 2
            self._send_all(items[:half])
            self._send_all(items[half:])
            return
        for item in items:
            self._note(item.change)

    def _note(self, change: Change) -> None:
        self._done[_lane(change)] = change.offset + 1  # a lane's changes come in its order
        place = (change.topic, change.partition)
        span = self._spans.get(place)
        if span is not None and not change.table.part:  # a further step may have its other tables
            self._reached[place] = change.behind(self._reached.get(place, span.start))

    def _joined(self, items: Sequence[_Item]) -> Request:
        """Return one request for some changes."""
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
        method, path = self._batching.method, self._batching.path
        key = sha256(names.encode()).hexdigest()
        name = f"{method} {path} ({len(items)} changes)"
        return Request(method, path, name, key, orjson.dumps(body))


def _lane(change: Change) -> tuple[str, int, str]:
    return (change.topic, change.partition, change.table.part)


def _refused(change: Change, error: DataError) -> RowsRefused:
    return RowsRefused({(change.table.table, change.identity): str(error)})
