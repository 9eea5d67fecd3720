"""The changes of a cut → requests under way at once, and what is done of them.

    changes, in the order of their sources ─▶ one request each, or one for every `batch` of them
                                               │ in its turn (`plan.py` says whose, `schedule.py`)
                                               │ refused: halved until it is one
                                               └ done: noted, and not sent again in this cut

Why the guarantee is that of one request at a time: a request is not sent before the answer to each
one it must follow, and no cursor passes one that was not answered. What is sent again after an
error is all behind the oldest of those, in its order and with the same keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from cdc.errors import DataError
from schemas.table import TableSchema
from sinks.changes import Change, ChangeTable, changes_of
from sinks.http.endpoint import Endpoint
from sinks.http.plan import Batching, Forms, Item, Plan
from sinks.http.progress import Progress
from sinks.http.schedule import Schedule
from sinks.target import RowsRefused, Span, Step

__all__ = ["Delivery"]


class Delivery:
    """Sends the changes of a cut, and knows how far it has come."""

    def __init__(self, endpoint: Endpoint, forms: Forms, batching: Batching) -> None:
        self._endpoint = endpoint
        self._schedule = Schedule(endpoint.concurrency, endpoint.at_once)
        self._forms = forms
        self._batching = batching
        self._plans: dict[TableSchema, Plan] = {}
        self._tables: dict[TableSchema, ChangeTable] = {}
        self._progress = Progress()

    def close(self) -> None:
        """End the threads; safe to call twice."""
        self._schedule.close()

    def prepare(self, schema: TableSchema) -> None:
        """Compile the requests of a table. Raises `errors.ConfigError` for an unknown name."""
        if schema not in self._plans:
            self._plans[schema] = plan = Plan(schema, self._forms)
            self._tables[schema] = plan.changes

    def begin(self, spans: Iterable[Span]) -> None:
        """Take a cut up, or take it up again: what was done of it is not sent a second time."""
        self._progress.begin(spans)

    def end(self) -> None:
        """Forget the cut: its cursors have moved."""
        self._progress.end()

    def progress(self) -> Sequence[Span]:
        """Return how far the cursors may move though the cut is not done."""
        return self._progress.spans()

    def judge(self, step: Step) -> None:
        """See that every change of `step` can be told, and send nothing.

        Raises `RowsRefused` for the first that cannot.
        """
        for change in changes_of(step, self._tables):
            self._item(change)

    def send(self, step: Step) -> None:
        """Send the changes of `step`; when this returns or raises nothing is under way.

        Raises `RowsRefused` for those that are refused, and as `Endpoint.send`.
        """
        batch: list[Item] = []
        with self._schedule:
            for change in changes_of(step, self._tables):
                if not self._progress.take(change):
                    continue
                try:
                    item = self._item(change)
                except RowsRefused:
                    self._add(batch)
                    self._schedule.drain()
                    raise
                if item is not None:
                    batch.append(item)
                if item is None or len(batch) >= self._batching.size:
                    self._add(batch)
                    batch = []
                if item is None:
                    self._progress.note([change])
            self._add(batch)

    def _item(self, change: Change) -> Item | None:
        try:
            return self._plans[change.table.schema].item(change)
        except DataError as error:
            raise _refused(change, error) from error

    def _add(self, batch: Sequence[Item]) -> None:
        if batch:
            locks = {lock for item in batch for lock in item.locks}
            alone = any(item.deed == "truncate" for item in batch)
            self._schedule.add(partial(self._deliver, batch), locks, alone=alone)

    def _deliver(self, items: Sequence[Item]) -> None:
        """Send some changes; where they are refused together, by halves. Runs in any thread."""
        try:
            self._endpoint.send(self._batching.request(items))
        except DataError as error:
            if len(items) == 1:
                raise _refused(items[0].change, error) from error
            half = len(items) // 2
            self._deliver(items[:half])
            self._deliver(items[half:])
            return
        self._progress.note([item.change for item in items])


def _refused(change: Change, error: DataError) -> RowsRefused:
    return RowsRefused({(change.table.table, change.identity): str(error)})
