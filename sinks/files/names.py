"""What a file's name says, and how the cursor of a partition is read from the names.

    topic@id-0-00…00-00…42-1.7f.3.0-1of2.parquet       offsets 0 to 42, exclusive; part 1 of 2
                     ▲      ▲ the stamp it ends with
                     start  end

The files of a partition are a chain: each range begins where the one before it ends. A range
counts when all its parts are there, since a worker may be killed between two of them. So:

* the cursor is the end of the last range that is whole;
* what begins there and is not whole is a leftover: its offsets are read again, in ranges that may
  be cut elsewhere, so it is removed before the next range is written;
* a range that begins elsewhere leaves a gap or covers offsets twice, and stops the sink.

A range without rows is kept by a mark without content, at the end of the chain alone. The range
behind it begins where the mark does, and then the mark is removed: one that begins before the end
is therefore a leftover as well.

The topic's id is base64, in which `/` may stand; it is quoted as in a URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote, unquote

import msgspec

from cdc.errors import StateError, TopicChanged
from schemas.change import Stamp
from sinks.target import Cursor, TopicPartition

__all__ = ["MARK", "Chain", "Name", "chains", "late_name"]

MARK = "cursor"
"""The suffix of a range without rows."""

_NAME = re.compile(
    r"(?P<topic>[^@/]+)@(?P<topic_id>[^@/]+)-(?P<partition>\d+)-(?P<start>\d{20})-(?P<end>\d{20})"
    r"-(?P<stamp>[0-9a-f]+(?:\.[0-9a-f]+){3}|none)-(?P<part>\d+)of(?P<parts>\d+)\.(?P<suffix>\w+)"
)


class Name(msgspec.Struct, frozen=True):
    """One part of a range of one partition; `end` has the offset behind it and its last stamp."""

    partition: TopicPartition
    start: int
    end: Cursor
    part: int
    parts: int
    suffix: str

    def __str__(self) -> str:
        place, stamp = self.partition, self.end.stamp
        told = "none" if stamp is None else ".".join(f"{number:x}" for number in stamp)
        return (
            f"{place.topic}@{quote(place.topic_id, safe='')}-{place.partition}-{self.start:020d}-"
            f"{self.end.offset:020d}-{told}-{self.part}of{self.parts}.{self.suffix}"
        )

    @classmethod
    def read(cls, text: str) -> Name | None:
        """Return what the last part of a path says, None when it is none of ours."""
        found = _NAME.fullmatch(text)
        if found is None:
            return None
        told = found["stamp"]
        stamp = None if told == "none" else Stamp(*(int(n, 16) for n in told.split(".")))
        return cls(
            TopicPartition(found["topic"], unquote(found["topic_id"]), int(found["partition"])),
            int(found["start"]),
            Cursor(int(found["end"]), stamp),
            int(found["part"]),
            int(found["parts"]),
            found["suffix"],
        )


def late_name(topic: str, partition: int, offset: int, suffix: str) -> str:
    """Return the name of one replayed dead letter: written again, it is the same file."""
    return f"{topic}-{partition}-late-{offset:020d}.{suffix}"


class Chain(msgspec.Struct):
    """The files of a partition: how far they reach, and paths that are to be removed.

    `rows_end` is where the files with rows end, None where there are none; `cursor` may lie behind
    it, by a mark. `files` are (start, path) of what is part of it.
    """

    cursor: Cursor | None = None
    rows_end: int | None = None
    files: Sequence[tuple[int, str]] = ()
    leftovers: Sequence[str] = ()


def chains(paths: Iterable[str]) -> Mapping[TopicPartition, Chain]:
    """Return the chain of each partition that has files. Raises `errors.StateError`.

    Raises `errors.TopicChanged` for files of two topics of one name.
    """
    found: dict[TopicPartition, dict[str, Name]] = {}
    ids: dict[str, str] = {}
    for path in paths:
        name = Name.read(path.rpartition("/")[2])
        if name is None:
            continue
        place = name.partition
        if ids.setdefault(place.topic, place.topic_id) != place.topic_id:
            raise TopicChanged(
                f"there are files of two topics called {place.topic}",
                hint="Move those of the earlier one away: its offsets mean other records.",
            )
        found.setdefault(place, {})[path] = name
    return {place: _chain(place, names) for place, names in found.items()}


def _chain(place: TopicPartition, names: Mapping[str, Name]) -> Chain:
    ranges: dict[tuple[int, Cursor], dict[str, Name]] = {}
    for path, name in names.items():
        if name.suffix != MARK:
            ranges.setdefault((name.start, name.end), {})[path] = name
    chain = Chain(files=[], leftovers=[])
    files, leftovers = list[tuple[int, str]](), list[str]()
    for (start, end), parts in sorted(ranges.items(), key=lambda item: item[0][0]):
        if not _is_whole(parts.values()):
            leftovers += parts
            continue
        if chain.rows_end is not None and start != chain.rows_end:
            gap = f"a gap from offset {chain.rows_end} to {start}"
            raise _broken(place, gap if start > chain.rows_end else f"two files for {start}")
        chain.cursor, chain.rows_end = end, end.offset
        files += [(start, path) for path in parts]
    for path in leftovers:
        if chain.rows_end is not None and names[path].start < chain.rows_end:
            raise _broken(place, f"not all parts of the range from offset {names[path].start}")
    chain.files, chain.leftovers = files, leftovers
    return _marked(chain, names)


def _marked(chain: Chain, names: Mapping[str, Name]) -> Chain:
    """Go on behind the rows where a mark does."""
    marks = {path: name for path, name in names.items() if name.suffix == MARK}
    known = [name for name in marks.values() if chain.rows_end in (None, name.start)]
    last = max(known, key=lambda name: name.end.offset, default=None)
    if last is not None:
        chain.cursor = last.end
    chain.leftovers = [*chain.leftovers, *(path for path, name in marks.items() if name != last)]
    chain.files = [*chain.files, *((n.start, path) for path, n in marks.items() if n == last)]
    return chain


def _is_whole(parts: Iterable[Name]) -> bool:
    given = list(parts)
    return {name.part for name in given} == set(range(1, given[0].parts + 1))


def _broken(place: TopicPartition, what: str) -> StateError:
    return StateError(
        f"the files of {place.topic}[{place.partition}] have {what}",
        hint="Bring back the files that are missing, or move the newer ones away: the sink then "
        "writes them again from the topic.",
    )
