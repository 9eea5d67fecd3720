"""Whether the brokers let us in, asked before other clients of the same settings are used.

librdkafka takes a refused login or an untrusted certificate for a passing fault: it tries again
for ever, and the call that waits ends after its own deadline with nothing but "timed out"
(measured with 2.11 to 2.16). What happened is told to the error callback alone, and only while
the client is polled. So a session begins with one small question, asked by a client that is
polled; a yes holds for a few seconds, or until the brokers are lost.

Brokers that are away are no answer: then nothing is raised here, and the caller's own deadline
and retry count.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError, TopicCollection
from confluent_kafka.admin import AdminClient

from cdc.errors import ConfigError

__all__ = ["ensure_admitted", "forget_admissions"]

_PATIENCE_S = 1.5
"""How long a refusal must last: a second broker may admit us, a token server may be busy."""
_AWAY_S = 0.3
"""How long brokers that cannot be reached are waited for: a name may have several addresses."""
_DEADLINE_S = 4.0
_VALID_S = 5.0
_PAUSE_S = 0.02
_NO_TOPIC = "tailrace.admission"
"""What is asked for: a topic that is never made. A question without a topic (describe_cluster) ends
the process by an assertion of librdkafka (2.16, rd_kafka_admin_response_parse) when a broker that
was frozen has no broker to name yet."""

_HINTS: Mapping[str, str] = {
    "certificate required": "The broker asks for a client certificate: kafka.client "
    "ssl.certificate.location and ssl.key.location.",
    "bad certificate": "The broker does not accept the certificate in kafka.client "
    "ssl.certificate.location.",
    "unknown ca": "The broker does not trust who signed the certificate in kafka.client "
    "ssl.certificate.location.",
    "certificate verify failed": "Name the authority that signed the broker's certificate: "
    "kafka.client ssl.ca.location.",
    "verify that ssl.ca.location": "Name the authority that signed the broker's certificate: "
    "kafka.client ssl.ca.location.",
    "wrong version number": "The listener speaks no TLS; check kafka.client security.protocol "
    "and the port in kafka.bootstrap.",
    "hostname mismatch": "Connect by a name that the broker's certificate holds: kafka.bootstrap "
    "and the broker's advertised.listeners.",
}
"""What OpenSSL and librdkafka say of TLS that no repetition repairs; the codes do not tell."""

_admitted: dict[tuple[tuple[str, str], ...], float] = {}
"""When a configuration was let in last."""


def ensure_admitted(properties: Mapping[str, Any]) -> None:
    """Ask the brokers whether clients with these librdkafka `properties` may come in.

    Takes one connection and at most four seconds, and nothing for five seconds after a yes. Raises
    `errors.ConfigError` with the brokers' own words when they refuse for 1.5 s on end.
    """
    key = tuple(sorted((name, str(value)) for name, value in properties.items()))
    valid_from = time.monotonic() - _VALID_S
    if _admitted.get(key, valid_from - 1) < valid_from and _asked(properties):
        _admitted[key] = time.monotonic()


def forget_admissions() -> None:
    """Ask again before the next client: the brokers were lost, they may come back changed."""
    _admitted.clear()


def _asked(properties: Mapping[str, Any]) -> bool:
    """Return whether the brokers answered; see `ensure_admitted` for what it raises."""
    met: list[tuple[float, KafkaError]] = []
    settings: dict[str, Any] = {
        **properties,
        "error_cb": lambda error: met.append((time.monotonic(), error)),
    }
    admin = AdminClient(settings)
    question = TopicCollection([_NO_TOPIC])
    answer = admin.describe_topics(question, request_timeout=_DEADLINE_S)[_NO_TOPIC]
    while not answer.done():
        admin.poll(_PAUSE_S)
        since, refusal = next((m for m in met if _is_refusal(m[1])), (0.0, None))
        now = time.monotonic()
        if refusal is not None and now - since > _PATIENCE_S:
            raise _named(refusal, str(properties.get("bootstrap.servers")))
        if refusal is None and met and now - met[0][0] > _AWAY_S:
            return False
    error = answer.exception()
    # Whoever is told that there is no such topic, or that he may not see it, was let in.
    return error is None or error.args[0].code() > KafkaError.NO_ERROR


def _is_refusal(error: KafkaError) -> bool:
    return error.code() == KafkaError._AUTHENTICATION or _hint(error) != ""  # noqa: SLF001


def _hint(error: KafkaError) -> str:
    text = error.str()
    return next((hint for sign, hint in _HINTS.items() if sign in text), "")


def _named(error: KafkaError, bootstrap: str) -> ConfigError:
    return ConfigError(
        f"Kafka at {bootstrap} does not let us in: {error.name()}: {error.str()}",
        hint=_hint(error)
        or "Check sasl.username, sasl.password and sasl.mechanism in kafka.client.",
    )
