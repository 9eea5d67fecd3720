"""OAUTHBEARER: the client fetches its token by itself, the real broker takes it as a login.

The broker checks what its unsecured validator checks: form, subject and lifetime of the token.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest

from cdc.errors import ConfigError
from cdc.positions import PositionsTopic
from fix_pipeline import At, item_batch
from fix_tls import Authority, Door, SecureKafka

CLIENT, SECRET = "tailrace-worker", "client-secret"


def token(subject: str) -> str:
    now = int(time.time())
    claims = {"sub": subject, "iat": now, "exp": now + 600}
    parts = (json.dumps(part).encode() for part in ({"alg": "none"}, claims))
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts) + "."


class _Issuer(BaseHTTPRequestHandler):
    """Gives a token to the one client it knows (RFC 6749, client credentials)."""

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        asked = parse_qs(self.rfile.read(size).decode())
        known = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        fine = self.headers.get("Authorization") == f"Basic {known}"
        fine = fine and asked.get("grant_type") == ["client_credentials"]
        answer: dict[str, Any] = {"error": "invalid_client"}
        if fine:
            answer = {"access_token": token(CLIENT), "token_type": "Bearer", "expires_in": 600}
        body = json.dumps(answer).encode()
        self.send_response(200 if fine else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


@pytest.fixture
def issuer(authority: Authority) -> Iterator[str]:
    """Give the address of a token server, behind TLS of our authority."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Issuer)
    identity = authority.identity("issuer", ("127.0.0.1",))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(identity.cert, identity.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}/token"
    server.shutdown()
    thread.join()
    server.server_close()


Client = Callable[[str], dict[str, str]]


@pytest.fixture
def client(issuer: str, authority: Authority) -> Client:
    """Make a `kafka.client` block with a client secret."""
    return lambda secret: {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(authority.ca),
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": CLIENT,
        "sasl.oauthbearer.client.secret": secret,
        "sasl.oauthbearer.token.endpoint.url": issuer,
        "https.ca.location": str(authority.ca),
    }


def test_changes_and_positions_travel_with_a_token(
    secure_kafka: SecureKafka, door: Door, client: Client
) -> None:
    secure_kafka.allow_everything(CLIENT)
    pipeline = door(secure_kafka.broker.address("SECURE"), client(SECRET))
    publisher = pipeline.publisher()
    publisher.acquire()
    publisher.add(item_batch(10, [1]))
    publisher.commit()
    publisher.close()
    stored = PositionsTopic(pipeline.kafka, pipeline.name).read(pipeline.source)
    assert stored.position == At(10).encode()


def test_a_client_the_token_server_does_not_know_is_named(
    secure_kafka: SecureKafka, door: Door, client: Client
) -> None:
    pipeline = door(secure_kafka.broker.address("SECURE"), client("wrong-secret"))
    with pytest.raises(ConfigError) as caught:
        pipeline.publisher().acquire()
    assert "token" in str(caught.value).lower()
    assert "wrong-secret" not in f"{caught.value} {caught.value.hint}"
