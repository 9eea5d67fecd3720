"""What the clients write is what the Java clients would, and what the broker says has a name."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from pydantic import ValidationError

from cdc.brokers import TopicSettings, ensure_topic
from cdc.kafka import KafkaConfig, its_own_error, producer_client
from cdc.local import LocalKafka
from cdc.publish import PublishConfig
from fix_pipeline import Pipeline, item_batch

JAVA_MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
}
"""Values of org.apache.kafka.common.utils.Utils.murmur2, from Kafka's own UtilsTest."""


def test_keys_go_where_the_java_clients_send_them(pipeline: Pipeline) -> None:
    topic = f"{pipeline.name}.partitioned"
    ensure_topic(pipeline.kafka, topic, TopicSettings(6))
    producer = producer_client(pipeline.kafka)
    for key in JAVA_MURMUR2:
        producer.produce(topic, b"x", key)
    producer.flush(20)
    found = {message.key(): message.partition() for message in pipeline.read(topic)}
    assert found == {key: (value & 0x7FFFFFFF) % 6 for key, value in JAVA_MURMUR2.items()}


def test_a_producer_keeps_the_order_of_a_partition_unless_asked_not_to() -> None:
    nowhere = KafkaConfig.model_validate({"bootstrap": "nowhere:1", "registry": "http://nowhere:1"})
    with pytest.raises(KafkaException, match=r"acks.*enable\.idempotence"):
        producer_client(nowhere, acks="1")
    producer_client(nowhere, acks="1", enable_idempotence=False)


def codecs(folder: Path) -> set[int]:
    """Return the codecs in a partition's log: attributes bits 0 to 2 of each record batch."""
    found = set()
    for segment in folder.glob("*.log"):
        data, at = segment.read_bytes(), 0
        while at + 23 <= len(data):
            length = int.from_bytes(data[at + 8 : at + 12], "big")
            if length == 0:
                break
            attributes = int.from_bytes(data[at + 21 : at + 23], "big")
            if not attributes & 0x20:  # no control batch
                found.add(attributes & 0x07)
            at += 12 + length
    return found


@pytest.mark.parametrize(("codec", "number"), [("lz4", 3), ("zstd", 4), ("none", 0)])
def test_records_are_compressed_on_the_way(
    codec: str, number: int, tmp_path: Path, registry: Any
) -> None:
    with LocalKafka(data=tmp_path) as broker:
        made = Pipeline(broker.bootstrap, registry.url)
        made.kafka = made.kafka.model_copy(update={"compression": codec})
        publisher = made.publisher()
        publisher.acquire()
        publisher.add(item_batch(10, list(range(100))))
        publisher.commit()
        publisher.close()
        made.registry.close()
        topic = made.topic()
    folders = list(tmp_path.rglob(f"{topic}-0"))
    assert len(folders) == 1
    assert codecs(folders[0]) == {number}


@pytest.mark.parametrize(
    "name",
    [
        "plugin.library.paths",
        "sasl.kerberos.kinit.cmd",
        "ssl.engine.location",
        "ssl.providers",
        "enable.auto.commit",
        "bootstrap.servers",
    ],
)
def test_a_property_that_loads_code_or_breaks_a_promise_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        KafkaConfig.model_validate(
            {"bootstrap": "b:9092", "registry": "http://r:8081", "client": {name: "x"}}
        )


def test_a_transaction_is_bounded_by_rows_bytes_and_age(pipeline: Pipeline) -> None:
    for bound in ({"max_rows": 3}, {"max_bytes": 1024}, {"max_ms": 50}):
        publisher = pipeline.publisher(PublishConfig.model_validate(bound))
        publisher.acquire()
        assert not publisher.due()
        publisher.add(item_batch(10, [1]))
        if "max_ms" in bound:
            time.sleep(0.06)
        else:
            assert not publisher.due()
            publisher.add(item_batch(20, list(range(20))))
        assert publisher.due()
        publisher.close()


def test_a_frozen_broker_is_waited_for_and_loses_nothing(registry: Any) -> None:
    with LocalKafka() as broker:
        made = Pipeline(broker.bootstrap, registry.url)
        publisher = made.publisher()
        publisher.acquire()
        publisher.add(item_batch(10, [1]))
        broker.server.pause()
        time.sleep(2.0)
        broker.server.resume()
        assert publisher.commit() is not None
        publisher.close()
        assert len(made.read(made.topic())) == 1
        made.registry.close()


def test_an_error_that_a_callback_of_the_client_hid_is_raised_as_it_is() -> None:
    """CPython makes a SystemError of a callback that is made while the client's error is set."""
    fenced = KafkaException(KafkaError(KafkaError._FENCED))
    with pytest.raises(KafkaException) as raised, its_own_error():
        raise SystemError("a function returned a result with an exception set") from fenced
    assert raised.value is fenced
    with pytest.raises(SystemError), its_own_error():
        raise SystemError("something else")
