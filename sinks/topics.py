"""What the broker knows of the sink's topics: which there are, their ids, where they end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TypeVar

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin._listoffsets import OffsetSpec

from cdc.errors import KafkaUnavailable
from cdc.kafka import KafkaConfig, admin_client, kafka_error
from sinks.target import TopicPartition

__all__ = ["Topics"]

_T = TypeVar("_T")

_DEADLINE_S = 5.0
"""Asked about once a second: a broker that is away is seen soon, and a stop never waits long."""


class Topics:
    """Asks over one connection; every call has a deadline and raises as `kafka_error` maps."""

    def __init__(self, kafka: KafkaConfig, wanted: Callable[[str], bool]) -> None:
        self._admin = admin_client(kafka)
        self._wanted = wanted

    def names(self) -> dict[str, int]:
        """Return the wanted topics there are now, with their numbers of partitions."""
        try:
            found = self._admin.list_topics(timeout=_DEADLINE_S).topics
        except KafkaException as error:
            raise kafka_error(error, "listing topics") from error
        wanted = sorted(name for name in found if self._wanted(name))
        return {name: len(found[name].partitions) for name in wanted}

    def describe(self, names: Iterable[str]) -> dict[str, list[TopicPartition]]:
        """Return the partitions of `names` with the topics' ids (KIP-516)."""
        wanted = list(names)
        if not wanted:
            return {}
        asked = TopicCollection(wanted)
        futures = self._admin.describe_topics(asked, request_timeout=_DEADLINE_S)
        out = {}
        for name, future in futures.items():
            topic = _settled(future, f"describing topic {name}")
            if topic is not None:
                identity = str(topic.topic_id)
                count = len(topic.partitions)
                out[name] = [TopicPartition(name, identity, n) for n in range(count)]
        return out

    def ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return how far each partition is to be read so that nothing of now is missing.

        That is the high watermark, open transactions included. Where nothing is open (the last
        stable offset, asked first, is the same) the last offset is the marker of a commit, for a
        record there would still wait for its own: the one before will do. It saves a wait, since
        a marker shows only with the next, empty fetch.
        """
        asked = list(partitions)
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        stable = self.offsets(asked, latest, IsolationLevel.READ_COMMITTED)
        high = self.offsets(asked, latest)
        return {p: end - 1 if end and stable.get(p) == end else end for p, end in high.items()}

    def offsets(
        self,
        partitions: Iterable[TopicPartition],
        spec: OffsetSpec,
        isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED,
    ) -> dict[TopicPartition, int]:
        """Return the offset `spec` means in each partition; -1 for a time nothing is newer than."""
        asked = {Place(p.topic, p.partition): p for p in partitions}
        if not asked:
            return {}
        futures = self._admin.list_offsets(
            dict.fromkeys(asked, spec),
            isolation_level=isolation,
            request_timeout=_DEADLINE_S,
        )
        out = {}
        for place, future in futures.items():
            found = _settled(future, f"reading the end of {place.topic}")
            if found is not None:
                out[asked[place]] = int(found.offset)
        return out


def _settled(future: Future[_T], doing: str) -> _T | None:
    """Return the answer, None when the topic is gone."""
    try:
        return future.result(_DEADLINE_S)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return None
        raise kafka_error(error, doing) from error
    except TimeoutError as error:
        raise KafkaUnavailable(f"{doing}: no answer in {_DEADLINE_S:.0f} s") from error
