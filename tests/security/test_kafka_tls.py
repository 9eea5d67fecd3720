"""Kafka over TLS: who is let in works as on an open port, who is not learns why at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError

from cdc.errors import CdcError, ConfigError
from cdc.kafka import KafkaConfig, admin_client, kafka_error
from cdc.positions import PositionsTopic
from fix_pipeline import At, Pipeline, item_batch
from fix_tls import PLAIN_PASSWORD, PLAIN_USER, Authority, Door, SecureKafka

SECONDS = 6.0


def publish_and_read_back(pipeline: Pipeline) -> None:
    publisher = pipeline.publisher()
    assert publisher.acquire().position is None
    publisher.add(item_batch(10, [1, 2, 3]))
    publisher.commit()
    publisher.close()
    stored = PositionsTopic(pipeline.kafka, pipeline.name).read(pipeline.source)
    assert stored.position == At(10).encode()
    assert len(pipeline.read(pipeline.topic())) == 3


def refusal(ask: Callable[[], Any], kind: type[CdcError] = ConfigError) -> CdcError:
    """What is raised, and that it did not take long."""
    started = time.monotonic()
    with pytest.raises(kind) as caught:
        ask()
    assert time.monotonic() - started < SECONDS
    return caught.value


@pytest.fixture
def scram(secure_kafka: SecureKafka) -> tuple[str, str]:
    """A user whom the ACLs allow everything: these tests are about the door alone."""
    password = secure_kafka.add_user("anyone")
    secure_kafka.allow_everything("anyone")
    return "anyone", password


def test_changes_and_positions_travel_over_sasl_ssl_with_scram(
    secure_kafka: SecureKafka, door: Door, scram: tuple[str, str]
) -> None:
    client = secure_kafka.login(*scram)
    pipeline = door(secure_kafka.broker.address("SECURE"), client)
    publish_and_read_back(pipeline)


def test_changes_and_positions_travel_over_sasl_ssl_with_plain(
    secure_kafka: SecureKafka, door: Door
) -> None:
    secure_kafka.allow_everything(PLAIN_USER)
    client = secure_kafka.login(PLAIN_USER, PLAIN_PASSWORD, "PLAIN")
    pipeline = door(secure_kafka.broker.address("SECURE"), client)
    publish_and_read_back(pipeline)


def test_changes_and_positions_travel_over_mutual_tls(
    secure_kafka: SecureKafka, door: Door, authority: Authority
) -> None:
    secure_kafka.allow_everything("worker")
    client = secure_kafka.certificate(authority.identity("worker"))
    pipeline = door(secure_kafka.broker.address("MUTUAL"), client)
    publish_and_read_back(pipeline)


@pytest.mark.parametrize(
    ("user", "mechanism"), [("anyone", "SCRAM-SHA-512"), (PLAIN_USER, "PLAIN")]
)
def test_a_wrong_password_is_named_in_seconds(
    secure_kafka: SecureKafka, door: Door, user: str, mechanism: str
) -> None:
    client = secure_kafka.login(user, "wrong-secret", mechanism)
    pipeline = door(secure_kafka.broker.address("SECURE"), client)
    error = refusal(pipeline.publisher().acquire)
    assert "authentication failed" in str(error).lower()
    assert "sasl.password" in error.hint
    assert "wrong-secret" not in f"{error} {error.hint}"


def test_an_authority_nobody_named_is_named_in_seconds(
    secure_kafka: SecureKafka, door: Door, scram: tuple[str, str], stranger: Authority
) -> None:
    client = {**secure_kafka.login(*scram), "ssl.ca.location": str(stranger.ca)}
    pipeline = door(secure_kafka.broker.address("SECURE"), client)
    error = refusal(pipeline.publisher().acquire)
    assert "certificate" in str(error)
    assert "ssl.ca.location" in error.hint


def test_a_missing_client_certificate_is_named_in_seconds(
    secure_kafka: SecureKafka, door: Door, authority: Authority
) -> None:
    client = {"security.protocol": "SSL", "ssl.ca.location": str(authority.ca)}
    pipeline = door(secure_kafka.broker.address("MUTUAL"), client)
    assert "ssl.certificate.location" in refusal(pipeline.publisher().acquire).hint


def test_a_client_certificate_of_a_stranger_is_refused_in_seconds(
    secure_kafka: SecureKafka, door: Door, stranger: Authority
) -> None:
    client = secure_kafka.certificate(stranger.identity("worker"))
    pipeline = door(secure_kafka.broker.address("MUTUAL"), client)
    assert "ssl.certificate.location" in refusal(pipeline.publisher().acquire).hint


def test_a_broker_whose_name_is_not_in_its_certificate_is_not_believed(
    secure_kafka: SecureKafka, door: Door, scram: tuple[str, str]
) -> None:
    port = secure_kafka.broker.address("SECURE").rpartition(":")[2]
    pipeline = door(f"localhost:{port}", secure_kafka.login(*scram))
    error = refusal(pipeline.publisher().acquire)
    assert "certificate" in f"{error} {error.hint}"


def test_a_password_that_was_changed_is_named_once_the_brokers_were_lost(
    secure_kafka: SecureKafka, door: Door
) -> None:
    first = secure_kafka.add_user("rotated")
    secure_kafka.allow_everything("rotated")
    client = secure_kafka.login("rotated", first)
    pipeline = door(secure_kafka.broker.address("SECURE"), client)
    publish_and_read_back(pipeline)
    secure_kafka.add_user("rotated")
    kafka_error(KafkaError(KafkaError._ALL_BROKERS_DOWN), "committing")
    refusal(pipeline.publisher().acquire)


def test_a_broker_that_is_away_is_no_refusal() -> None:
    away = KafkaConfig.model_validate(
        {
            "bootstrap": "127.0.0.1:1",
            "registry": "http://127.0.0.1:1",
            "client": {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN"}
            | {"sasl.username": "a", "sasl.password": "b"},
        }
    )
    started = time.monotonic()
    admin_client(away)
    assert time.monotonic() - started < SECONDS
