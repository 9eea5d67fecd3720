"""One cut → the target: stages 7 to 9, with the ways out when the target refuses a row.

    collapse ─▶ apply ─▶ done
         ▲        ├─ on the way it names rows, each of one event ─▶ dead letters ─▶ goes on ─▶ done
         │        ├─ refused, and the target says which rows ─▶ dead letters ─▶ again without them
         └────────┘
                  └─ refused ─▶ apply in source order ─▶ done
                                   └─ refused ─▶ rehearse: which rows? ─▶ dead letters
                                                 └─▶ apply the others in source order

The second try is for constraints that hold along the way the source went but not when rows of a
key are merged; only what is refused on that way too is poison (R4).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby

import msgspec

from cdc.errors import DataError, Stop, TargetUnavailable
from schemas.table import TableSchema
from sinks.blame import Reasons, alone, blamed, named
from sinks.collapse import collapse, in_source_order, is_move, runs, source_order
from sinks.deadletter import DeadLetters, without
from sinks.decode import Event
from sinks.parts import Split, unfolded
from sinks.target import Barrier, RowsRefused, Span, Sparing, Step, Target

__all__ = ["Applied", "Applier", "Cut", "Entangled", "summed"]

_NAMED = 4
"""Rounds in which a target may name rows: each tells the newest event of a key alone."""
_ROUNDS = 20
_PIECES = 16


class Cut(msgspec.Struct):
    """What is applied together: the events of each partition, in order, and the cursors' way."""

    partitions: Sequence[list[Event]]
    spans: Sequence[Span]
    dropped: int = 0


class Applied(msgspec.Struct, frozen=True):
    """What one target transaction did. `oldest_ms` is the oldest commit in it, ms since 1970."""

    rows: int
    bytes: int
    seconds: float
    dead: int
    dropped: int
    oldest_ms: int = 0
    newest_ms: int = 0


class Entangled(TargetUnavailable):
    """A row is refused because of rows that other workers have yet to apply, or so it seems."""


def _all(events: Sequence[Event]) -> Sequence[Event]:
    return events


class Applier:
    """Applies cuts to one target, one at a time.

    `may_judge` tells whether a refused row may be poison already: with several workers, only when
    every partition has been applied as far as these events (R4). `screen` judges the events of one
    transaction together (`sinks/screen.py`).
    """

    def __init__(
        self,
        target: Target,
        letters: DeadLetters,
        tables: Sequence[tuple[TableSchema, bool]],
        may_judge: Callable[[Sequence[Event]], bool],
        screen: Callable[[Sequence[Event]], Sequence[Event]] = _all,
    ) -> None:
        self._target = target
        self._letters = letters
        self._tables = tables
        self._may_judge = may_judge
        self._screen = screen
        self._prepared = 0

    def apply(self, cut: Cut) -> Applied:
        """Apply `cut`. Raises `CursorMoved`, `errors.Unavailable` and `errors.Stop`."""
        started = time.monotonic()
        self._prepare()
        merged = self._screen(_merged(cut.partitions))
        events = self._letters.sift(merged)
        spared: list[Event] = []
        try:
            for _ in range(_NAMED):
                refused = self._refused(events, cut.spans, spared)
                if not refused:
                    break
                aside = self._letters.aside(events, refused)
                self._letters.write(aside)
                events = without(events, aside)
            else:
                raise DataError("one event after the other of a row is refused")  # noqa: TRY301
            events, dead = without(events, spared), 0
        except DataError:
            left = set(map(id, events))
            whole = source_order(map(unfolded, cut.partitions))
            ordered = [event for event in whole if id(event) in left]
            dead = self._with_care(ordered, cut.spans)
        dead += len(merged) - len(events)
        return summed(events, cut.dropped, dead, time.monotonic() - started)

    def _refused(
        self, events: Sequence[Event], spans: Sequence[Span], spared: list[Event]
    ) -> Sequence[Event]:
        """Apply `events`, or return those the target names; others that it refuses it raises.

        Those it has left out of what it applied are in `spared`, and dead letters.
        """
        found: list[Event] = []

        def aside(rows: Reasons) -> None:
            some = named(events, rows) if alone(events, rows) else []
            if not some or len(self._letters.aside(events, some)) > len(some):
                raise RowsRefused(rows)
            self._letters.write(some)
            found.extend(some)

        try:
            if isinstance(self._target, Sparing):
                self._target.apply_others(collapse(events), spans, aside)
            else:
                self._target.apply(collapse(events), spans)
        except RowsRefused as error:
            refused = named(events, error.rows)
            if not refused:
                raise
            return refused
        spared += found
        return ()

    def _prepare(self) -> None:
        # The reading thread may find further tables meanwhile: they are the next cut's.
        for schema, known in self._tables[self._prepared :]:
            self._target.prepare(schema, known=known)
            self._prepared += 1

    def stream(self, pieces: Iterable[Sequence[list[Event]]], spans: Sequence[Span]) -> Applied:
        """Apply a cut that comes in pieces and is never whole in memory, in one transaction.

        `spans` is read when the pieces have ended. Raises `errors.Stop` when a row is refused:
        the pieces are gone, so there is no second way to try.
        """
        started = time.monotonic()
        total = Applied(0, 0, 0.0, 0, 0)

        def steps() -> Iterator[Step]:
            nonlocal total
            for partitions in pieces:
                events = self._letters.sift(self._screen(_merged(partitions)))
                total = _sum(total, summed(events, 0, 0, 0.0))
                self._prepare()
                yield from collapse(events)

        try:
            self._target.apply(steps(), spans)
        except DataError as error:
            raise Stop(
                f"a source transaction larger than memory holds a row the target refuses: {error}",
                hint="Raise the sink's `buffer_bytes` above the size of that transaction: then "
                "the row goes to the dead letters and the others are applied.",
            ) from error
        return msgspec.structs.replace(total, seconds=time.monotonic() - started)

    def meet(self, barrier: Barrier) -> Sequence[int]:
        """Stand at a truncation; return the partitions it waits for (`Target.meet`)."""
        self._prepare()
        try:
            return self._target.meet(barrier)
        except DataError as error:
            raise _entangled(error) from error

    def _with_care(self, events: Sequence[Event], spans: Sequence[Span]) -> int:
        """Apply in source order what can be applied; return how many records cannot."""
        try:
            self._target.apply(in_source_order(events), spans)
        except DataError as error:
            if not self._may_judge(events):
                raise _entangled(error) from error
            good, refused = self._judged(events)
            if not refused:
                raise
        else:
            return 0
        self._letters.write(refused)
        try:
            self._target.apply(in_source_order(good), spans)
        except DataError as error:
            raise Stop(
                f"the cut is refused as a whole, no single record is to blame: {error}",
                hint="A deferred constraint of the target does not hold at the end of a source "
                "transaction. Drop the constraint, or repair the rows it names.",
            ) from error
        return len(refused)

    def _judged(self, events: Sequence[Event]) -> tuple[Sequence[Event], Sequence[Event]]:
        """Split into what is to be applied and what is put aside.

        What waits behind a refused record may have carried others, so they are judged anew.
        """
        good, refused = self._isolate(events)
        while True:
            aside = self._letters.aside(events, refused)
            left = without(good, aside)
            if len(left) == len(good):
                return good, aside
            good, more = self._isolate(left)
            refused = [*aside, *more]

    def _isolate(self, events: Iterable[Event]) -> tuple[list[Event], list[Event]]:
        """Split runs that are refused until only single records are; return good and refused.

        A run may be refused because of one before it, so each round judges all of them anew.
        """
        parts = list(runs(events))
        for _ in range(_ROUNDS):
            refused = self._target.rehearse(_transactions(parts))
            if all(_is_single(parts[place]) for place in refused):
                # Of a key change the create is to blame; the old row goes all the same.
                kept = (part[:-1] if n in refused else part for n, part in enumerate(parts))
                good = [event for part in kept for event in part]
                return good, [blamed(parts[n][-1], refused[n]) for n in sorted(refused)]
            parts = [
                piece for n, part in enumerate(parts) for piece in _pieces(part, refused.get(n))
            ]
        raise Stop("the refused records of a cut cannot be told from the others")


def _entangled(error: DataError) -> Entangled:
    return Entangled(
        f"a row waits for rows of other workers: {error}",
        hint="It is tried again until every partition has come that far. When that takes long, one "
        "worker applies the partitions of all up to one place.",
    )


def _transactions(parts: Iterable[Sequence[Event]]) -> Iterator[Sequence[Step]]:
    """Yield the steps of `parts`, in order, those together that share a source transaction."""
    steps: list[Step] = []
    last: object = None
    for part in parts:
        if steps and _transaction(part[0]) != last:
            yield steps
            steps = []
        steps += collapse(part)
        last = _transaction(part[-1])
    yield steps


def _transaction(event: Event) -> tuple[int, ...]:
    """Return what the changes of a source transaction have in common; rows of a snapshot all."""
    return () if event.stamp is None or event.snapshot else event.stamp[:2]


def _is_single(part: Sequence[Event]) -> bool:
    return len(part) == 1 or is_move(part)


def _pieces(part: list[Event], error: DataError | None) -> Iterable[list[Event]]:
    """Cut a refused part: around the rows its error names, else into a few."""
    if error is None or is_move(part):
        return [part]
    if isinstance(error, RowsRefused):
        keys = {key for _, key in error.rows}
        pieces = [list(run) for _, run in groupby(part, lambda event: event.key in keys)]
        if any(run[0].key in keys for run in pieces):
            return chain.from_iterable(
                [[event] for event in run] if run[0].key in keys else [run] for run in pieces
            )
    size = max(1, -(-len(part) // _PIECES))
    return [part[at : at + size] for at in range(0, len(part), size)]


def summed(events: Sequence[Event], dropped: int, dead: int, seconds: float) -> Applied:
    """Count what `events` did to the target."""
    times = [event.ts_ms for event in events if event.ts_ms and not event.snapshot]
    return Applied(
        rows=len(events),
        bytes=sum(event.size for event in events),
        seconds=seconds,
        dead=dead,
        dropped=dropped,
        oldest_ms=min(times, default=0),
        newest_ms=max(times, default=0),
    )


def _sum(one: Applied, other: Applied) -> Applied:
    times = [applied.oldest_ms for applied in (one, other) if applied.oldest_ms]
    return msgspec.structs.replace(
        one,
        rows=one.rows + other.rows,
        bytes=one.bytes + other.bytes,
        oldest_ms=min(times, default=0),
        newest_ms=max(one.newest_ms, other.newest_ms),
    )


def _merged(partitions: Sequence[list[Event]]) -> list[Event]:
    """Return all events; in source order where partitions may write to the same table."""
    filled = [events for events in partitions if events]
    if len(filled) == 1:
        return unfolded(filled[0])
    tables = [next((e.schema.table for e in events if e.schema), None) for events in filled]
    if len(set(tables)) < len(tables) or any(isinstance(e[0], Split) for e in filled):
        return source_order(map(unfolded, filled))
    return [event for events in filled for event in events]
