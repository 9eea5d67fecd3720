"""One partition on its way to the target: what was read, what is held, where the cursor goes.

    log   ─────────┬───────────────┬──────────────┬──────────────▶
                 cursor          held events     next to read
                 (applied)       (read, not ≤ the cut)

A record whose stamp is not newer than the newest one before it is a repetition that Kafka's older
transaction protocol can produce, and is dropped and counted (R5). Snapshot rows are exempt and
move nothing. Records of foreign producers carry no stamp and go by offset alone.

Where several workers share a table's partitions, a lane is gated: it stands at a truncation until
the others have come as far (R8).
"""

from __future__ import annotations

import time
from collections import deque

from cdc.errors import StateError
from schemas.change import Stamp
from sinks.decode import DELETE, TRUNCATE, Event
from sinks.target import Cursor, Span, TopicPartition

__all__ = ["BEFORE_ALL", "Lane", "Limit"]

Limit = tuple[int, int]
"""(incarnation, commit), exclusive: what lies before it belongs to a cut."""

BEFORE_ALL: Limit = (-1, -1)
_SUSPICIOUS = 200_000
"""So many repetitions in a row are no torn transaction: somebody moved the cursor or the source."""


_HALF_S = 10.0
_OVERHEAD = 800
"""Bytes an event takes beside its payload and its row: message, stamp, key, lists (measured)."""


def weight(event: Event) -> int:
    """Return about how many bytes of memory `event` holds."""
    return 2 * event.size + _OVERHEAD


class Lane:
    """One partition. `bytes` is what its held events weigh; `gated` stops it at truncations.

    `newest` is the stamp of the newest row of the log seen here, `place` the newest transaction:
    those before it are here completely. The rows of a
    chunk count too, for they come in the log's order, as if their mark had written them.
    """

    def __init__(
        self, partition: TopicPartition, cursor: Cursor | None, *, gated: bool = False
    ) -> None:
        self.partition = partition
        self.gated = gated
        self.source = partition.topic.partition(".")[0]
        self.cursor = cursor
        self.next = 0 if cursor is None else cursor.offset
        self.events: deque[Event] = deque()
        self.bytes = 0
        self.paused = False
        self.dropped = 0
        self.newest = None if cursor is None else cursor.stamp
        self.place = BEFORE_ALL if self.newest is None else self.newest[:2]
        self._taken = self.newest
        self._in_a_row = 0
        self._gates = 0
        self._last: Event | None = None
        self._half: Event | None = None
        self._half_since = 0.0

    def admit(self, event: Event) -> None:
        """Hold `event`, or drop it as a repetition. Raises `errors.StateError`."""
        stamp = event.stamp
        if stamp is not None and not event.snapshot:
            newest = self.newest
            if newest is not None and stamp <= newest:
                self._drop(stamp, newest)
                return
            self.newest = stamp
            self._in_a_row = 0
        self._reach(stamp)
        self.events.append(event)
        self.bytes += weight(event)
        if self.gated and event.kind == TRUNCATE:
            self._gates += 1

    def pass_over(self, event: Event) -> None:
        """Take note of `event`, which does nothing: what came before it is here all the same."""
        stamp = event.stamp
        if (
            stamp is not None
            and not event.snapshot
            and (self.newest is None or stamp > self.newest)
        ):
            self.newest = stamp
        self._reach(stamp)

    def _reach(self, stamp: Stamp | None) -> None:
        if stamp is not None and stamp[:2] > self.place:
            self.place = stamp[:2]

    def _drop(self, stamp: Stamp, newest: Stamp) -> None:
        place = f"{self.partition.topic}[{self.partition.partition}] at offset {self.next - 1}"
        if stamp.incarnation != newest.incarnation:
            raise StateError(
                f"{place}: the record is of incarnation {stamp.incarnation} of source "
                f"{self.source}, the cursor of {newest.incarnation}",
                hint="Somebody writes as an earlier life of the source. When its records are "
                f"wanted: `cdc position adopt {self.source}`.",
            )
        self.dropped += 1
        self._in_a_row += 1
        if self._in_a_row >= _SUSPICIOUS:
            raise StateError(
                f"{place}: {self._in_a_row} records in a row were applied before",
                hint="The source's position was set back, or the sink's offset without its "
                "stamp. `cdc sink rewind` sets both.",
            )

    def awaits_create(self) -> bool:
        """Tell whether the last held event is known to be a key change's first half.

        Its second is on the way, without a boundary that says when; it is not waited for for ever.
        """
        last = self.events[-1] if self.events else None
        if last is None or last.kind != DELETE or not last.place:
            return False
        if last is not self._half:
            self._half, self._half_since = last, time.monotonic()
        return time.monotonic() - self._half_since < _HALF_S

    def hesitates(self) -> bool:
        """Tell, once, that the last held event is a delete which a create may complete (R6)."""
        last = self.events[-1] if self.events else None
        again, self._last = last is self._last, last
        return self.ends_open() and not again

    def ends_open(self) -> bool:
        """Tell whether the last held event is a delete: half a key change, perhaps."""
        return bool(self.events) and self.events[-1].kind == DELETE

    def take(self, limit: Limit, *, but_last: bool = False) -> list[Event]:
        """Remove and return what lies before `limit` and before a gate, in order.

        `but_last` leaves the last held event where it is.
        """
        events = self.events
        if self.place < limit and not self._gates:
            taken = list(events)
            events.clear()
            self.bytes = 0
        else:
            taken = []
            while events and _is_before(events[0], limit) and self.gate is None:
                taken.append(events.popleft())
            self.bytes -= sum(weight(event) for event in taken)
        if but_last and taken and not events:
            events.append(taken.pop())
            self.bytes += weight(events[0])
        stamps = (e.stamp for e in reversed(taken) if e.stamp is not None and not e.snapshot)
        self._taken = next(stamps, self._taken)
        return taken

    def take_copied(self) -> list[Event]:
        """Remove and return the held rows of a snapshot that come first, in order."""
        taken = []
        while self.events and self.events[0].snapshot:
            taken.append(self.events.popleft())
        self.bytes -= sum(weight(event) for event in taken)
        return taken

    @property
    def gate(self) -> Event | None:
        """The truncation this lane stands at, None when it may go on."""
        if not self._gates or self.events[0].kind != TRUNCATE:
            return None
        return self.events[0]

    def stand(self) -> Span:
        """Return the way of the cursor to the gate, also when it is there already."""
        offset = int(self.events[0].message.offset() or 0)
        return Span(self.partition, self.cursor, Cursor(offset, self._taken))

    def go_on(self, cursor: Cursor) -> Event:
        """Leave the gate, now that the cursor lies behind it; return the truncation."""
        event = self.events.popleft()
        self.bytes -= weight(event)
        self._gates -= 1
        self.cursor = cursor
        self._taken = cursor.stamp
        return event

    def span(self) -> Span | None:
        """Return how the cursor moves behind all that was taken, None when it stays."""
        message = self.events[0].message if self.events else None
        offset = self.next if message is None else int(message.offset() or 0)
        start = self.cursor
        if offset == (0 if start is None else start.offset):
            return None
        return Span(self.partition, start, Cursor(offset, self._taken))


def _is_before(event: Event, limit: Limit) -> bool:
    return event.stamp is None or event.stamp[:2] < limit
