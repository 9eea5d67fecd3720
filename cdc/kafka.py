"""How to reach Kafka: the settings a pipeline may give, the clients made from them, its errors.

`client` passes librdkafka properties through an allow-list: connection, security and tuning, but
nothing that loads code, runs a command or reads files other than TLS material.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from cdc.admission import ensure_admitted, forget_admissions
from cdc.errors import (
    CdcError,
    ConfigError,
    DataError,
    Fenced,
    KafkaUnavailable,
    Stop,
)
from schemas.registry import RegistryConfig

__all__ = [
    "DEADLINE_S",
    "GROUP",
    "REPLACED",
    "KafkaConfig",
    "admin_client",
    "arrived",
    "assign",
    "consumer_client",
    "its_own_error",
    "kafka_error",
    "producer_client",
]

DEADLINE_S = 30.0
"""No single wait on the broker is longer; loops above it show what they wait for (R10)."""

GROUP = "tailrace"
"""Of every consumer that joins none: librdkafka asks for its coordinator all the same."""

_ALLOWED = frozenset(
    [
        "security.protocol",
        "sasl.mechanism",
        "sasl.mechanisms",
        "sasl.username",
        "sasl.password",
        "sasl.oauthbearer.method",
        "sasl.oauthbearer.client.id",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.scope",
        "sasl.oauthbearer.extensions",
        "sasl.oauthbearer.token.endpoint.url",
        "https.ca.location",
        "https.ca.pem",
        "ssl.ca.location",
        "ssl.ca.pem",
        "ssl.certificate.location",
        "ssl.certificate.pem",
        "ssl.key.location",
        "ssl.key.pem",
        "ssl.key.password",
        "ssl.cipher.suites",
        "ssl.endpoint.identification.algorithm",
        "broker.address.family",
        "broker.address.ttl",
        "client.rack",
        "client.dns.lookup",
        "socket.timeout.ms",
        "socket.keepalive.enable",
        "socket.connection.setup.timeout.ms",
        "socket.send.buffer.bytes",
        "socket.receive.buffer.bytes",
        "socket.nagle.disable",
        "reconnect.backoff.ms",
        "reconnect.backoff.max.ms",
        "metadata.max.age.ms",
        "connections.max.idle.ms",
        "linger.ms",
        "batch.size",
        "batch.num.messages",
        "queue.buffering.max.kbytes",
        "message.max.bytes",
        "fetch.wait.max.ms",
        "fetch.max.bytes",
        "max.partition.fetch.bytes",
        "receive.message.max.bytes",
    ]
)


class KafkaConfig(BaseModel):
    """The `kafka:` block of a pipeline."""

    model_config = ConfigDict(extra="forbid")

    bootstrap: str = Field(description="Brokers, `host:port` separated by commas")
    registry: RegistryConfig = Field(
        description="Schema registry (Confluent-compatible): a URL, or a block with auth and TLS"
    )
    client: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="librdkafka properties for every client: security and tuning by allow-list",
    )
    replication_factor: int = Field(
        default=-1, description="For topics made by Tailrace; -1 takes the broker's default"
    )
    compression: Literal["lz4", "zstd", "none"] = Field(
        default="lz4", description="Codec of the producer"
    )
    max_message_bytes: int = Field(
        default=16 * 1024 * 1024,
        ge=1024,
        description="Largest record; set as `max.message.bytes` of the topics made by Tailrace",
    )

    @field_validator("registry", mode="before")
    @classmethod
    def _url_alone(cls, value: object) -> object:
        return {"url": value} if isinstance(value, str) else value

    @field_validator("client", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        return {k: _text(v) for k, v in value.items()}

    @field_validator("client")
    @classmethod
    def _allow_list(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        refused = sorted(set(value) - _ALLOWED)
        if refused:
            raise ValueError(f"{', '.join(refused)}: not among the allowed librdkafka properties")
        return value

    def properties(self) -> dict[str, str | int | float | bool]:
        """Return the properties every client shares."""
        given = {name: secret.get_secret_value() for name, secret in self.client.items()}
        return {
            "bootstrap.servers": self.bootstrap,
            "client.id": "tailrace",
            "socket.keepalive.enable": True,
            "reconnect.backoff.max.ms": 2000,
            "log_level": 4,
            **given,
        }


def _text(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


_client_log = logging.getLogger("tailrace.librdkafka")
_client_log.addHandler(logging.NullHandler())
_client_log.propagate = False
"""librdkafka repeats what the calls report; `cdc.logs` may attach a handler when debugging."""


def _silent(_error: KafkaError) -> None:
    """Client-wide errors come again from the call that meets them, where they are handled."""


def producer_client(kafka: KafkaConfig, **extra: str | float | bool) -> Producer:
    """Return a producer; `extra` are librdkafka properties with `_` for the dots.

    Records of a partition keep their order: without idempotence librdkafka sends batches one behind
    the other unasked, and of two the second is there first when the leader refuses the first.
    """
    own = {name.replace("_", "."): value for name, value in extra.items()}
    settings: dict[str, Any] = {
        **kafka.properties(),
        "partitioner": "murmur2_random",
        "compression.type": kafka.compression,
        "message.max.bytes": kafka.max_message_bytes,
        "linger.ms": 5,
        "enable.idempotence": True,
        "error_cb": _silent,
        "logger": _client_log,
        **own,
    }
    return Producer(settings)


def consumer_client(kafka: KafkaConfig, **extra: str | float | bool) -> Consumer:
    """Return a consumer that never resets an offset by itself and never commits one."""
    own = {name.replace("_", "."): value for name, value in extra.items()}
    settings: dict[str, Any] = {
        **kafka.properties(),
        "group.id": GROUP,
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "error_cb": _silent,
        "logger": _client_log,
        **own,
    }
    return Consumer(settings)


def assign(consumer: Consumer, places: list[TopicPartition], timeout: float = DEADLINE_S) -> None:
    """Assign `places`, once the client knows who leads them. Raises as the client does.

    One that does not know asks for a first or last offset half a second later (librdkafka 2.16,
    measured).
    """
    for topic in {place.topic for place in places}:
        consumer.list_topics(topic, timeout=timeout)
    consumer.assign(places)


@contextmanager
def its_own_error() -> Iterator[None]:
    """Raise the client's error as it is: a callback it makes with one set hides it in another.

    CPython calls that a SystemError ("returned a result with an exception set").
    """
    try:
        yield
    except SystemError as error:
        if isinstance(error.__cause__, KafkaException):
            raise error.__cause__ from None
        raise


def arrived(consumer: Consumer, most: int, timeout: float) -> list[Message]:
    """Wait up to `timeout` seconds for a message, and return what there is then, about `most`.

    `consume` alone would wait for a full batch. Raises as the client does.
    """
    first = consumer.poll(timeout)
    return [] if first is None else [first, *consumer.consume(most, 0)]


def admin_client(kafka: KafkaConfig) -> AdminClient:
    """Return an admin client; every session with Kafka begins with one.

    Raises `errors.ConfigError` within seconds when the brokers refuse our login or we their
    certificate; what is asked of producers and consumers later would only time out.
    """
    settings: dict[str, Any] = {**kafka.properties(), "error_cb": _silent, "logger": _client_log}
    ensure_admitted({**kafka.properties(), "logger": _client_log})
    return AdminClient(settings)


_FENCED = frozenset(
    {
        KafkaError._FENCED,  # noqa: SLF001 - librdkafka's own codes begin with an underscore
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.FENCED_INSTANCE_ID,
    }
)
_REFUSED = frozenset(
    {
        KafkaError._AUTHENTICATION,  # noqa: SLF001
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
REPLACED = "Another worker owns this source; this one ends."
_CHECK_CREDENTIALS = "Check kafka.client credentials and the ACLs listed in docker/acls.md."
_WHAT_LACKS = {
    KafkaError.GROUP_AUTHORIZATION_FAILED: f"Allow Describe on group {GROUP}, which no worker "
    "joins but librdkafka looks for, and Read on <pipeline>.sink.<sink> of a sink or "
    "<pipeline>.supervisors of `cdc run`: docker/acls.md.",
}
_FOR_GOOD = frozenset(
    {
        KafkaError.POLICY_VIOLATION,
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.INVALID_CONFIG,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.UNSUPPORTED_VERSION,
    }
)


def kafka_error(error: KafkaException | KafkaError, doing: str) -> CdcError:
    """Return what an error of the client means for us; `doing` says what was tried."""
    cause = error.args[0] if isinstance(error, KafkaException) else error
    code, text = cause.code(), f"{doing}: {cause.name()}: {cause.str()}"
    if code in _FENCED:
        return Fenced(text, hint=REPLACED)
    if code in _REFUSED:
        return ConfigError(text, hint=_WHAT_LACKS.get(code, _CHECK_CREDENTIALS))
    if code == KafkaError.MSG_SIZE_TOO_LARGE:
        return DataError(
            text,
            hint="Raise kafka.max_message_bytes and the topic's max.message.bytes together, or "
            "exclude or truncate the wide column (columns: …).",
        )
    if code in _FOR_GOOD:
        return Stop(text, hint="The broker refuses this for good; change the setting it names.")
    forget_admissions()
    return KafkaUnavailable(text)
