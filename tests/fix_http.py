"""An HTTP endpoint of a test's own: documents by path, each change once by its key, and faults."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

import pytest

from cdc.connector import Context
from schemas.change import Cell
from schemas.table import TableId, TableSchema
from sinks.http import endpoint as client
from sinks.http.circuit import Circuit
from sinks.http.delivery import Delivery
from sinks.http.plan import Batching
from sinks.target import Mapped
from sinks.targets.http import Config, HttpTarget, create

if TYPE_CHECKING:
    # plugins that are loaded later
    from fix_pipeline import Pipeline
    from fix_tls import Identity

Answer = tuple[int, dict[str, str], bytes]


class Asked(NamedTuple):
    """One request as it came in."""

    method: str
    path: str
    key: str
    headers: dict[str, str]
    body: Any

    def names(self) -> list[str]:
        """Return the names of its changes."""
        return [item["key"] for item in self.body] if isinstance(self.body, list) else [self.key]


class Receiver:
    """Answers requests. `faults` are what it does instead of working, one request each:

    an answer as (status, headers, body); "cut" breaks the connection, "cut after" does so when the
    request has had its effect; "slow" answers only when the test ends.
    """

    def __init__(self, identity: Identity | None = None) -> None:
        self.asked: list[Asked] = []
        self.known: list[str] = []
        self.documents: dict[str, dict[str, Any]] = {}
        self.faults: deque[Answer | str] = deque()
        self.judge: Callable[[Asked], Answer | None] = lambda _: None
        self.ended = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._scheme = "http"
        if identity is not None:
            self._scheme = "https"
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(identity.both)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}/api"

    def close(self) -> None:
        if self.ended.is_set():
            return
        self.ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def names(self) -> list[str]:
        """Return the names of the changes in the order they came in."""
        return [name for asked in self.asked for name in asked.names()]

    def answer(self, asked: Asked) -> Answer:
        """Work as a good endpoint does."""
        refused = self.judge(asked)
        if refused is not None:
            return refused
        if asked.path == "/api/token":
            return 200, {}, b'{"access_token": "secret-token", "expires_in": 3600}'
        if asked.key in self.known:
            return 200, {}, b""
        items = asked.body if isinstance(asked.body, list) else None
        if items is None:
            done = self._do(asked.method, asked.path, asked.key, asked.body)
        else:
            methods = {
                "upsert": "PUT",
                "partial": "PATCH",
                "delete": "DELETE",
                "truncate": "POST",
            }
            done = 200
            for item in items:
                self._do(methods[item["op"]], f"/api{item['path']}", item["key"], item["body"])
            self.known.append(asked.key)
        return done, {}, b""

    def _do(self, method: str, path: str, key: str, body: Any) -> int:
        if key in self.known:
            return 200
        if method == "PATCH" and path not in self.documents:
            return 409
        if method == "DELETE":
            found = self.documents.pop(path, None)
            return 404 if found is None else 200
        kept = self.documents.get(path, {}) if method == "PATCH" else {}
        self.documents[path] = {**kept, **(body or {})}
        self.known.append(key)
        return 200


class Watch:
    """A `judge` that takes its time, and remembers when each change was under way.

    `delay` gives the seconds for a request, `then` its answer; `most` is how many requests were
    under way at once.
    """

    def __init__(
        self,
        delay: Callable[[Asked], float] = lambda _: 0.0,
        then: Callable[[Asked], Answer | None] = lambda _: None,
    ) -> None:
        self._delay = delay
        self._then = then
        self._lock = threading.Lock()
        self._clock = 0
        self._under_way = 0
        self.most = 0
        self.began: dict[str, int] = {}
        self.ended: dict[str, int] = {}

    def __call__(self, asked: Asked) -> Answer | None:
        self._note(asked, self.began, 1)
        time.sleep(self._delay(asked))
        answer = self._then(asked)
        self._note(asked, self.ended, -1)
        return answer

    def _note(self, asked: Asked, times: dict[str, int], more: int) -> None:
        with self._lock:
            self._clock += 1
            self._under_way += more
            self.most = max(self.most, self._under_way)
            times.update((name, self._clock) for name in asked.names())

    def is_before(self, one: str, other: str) -> bool:
        """Tell whether `one` was answered before `other` came, or came before it in its request."""
        names = list(self.began)
        together = self.began[one] == self.began[other]
        if together:
            return names.index(one) < names.index(other)
        return self.ended[one] < self.began[other]


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # connections that come at once


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 20

        def _serve(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            sent = self.rfile.read(size)
            is_json = self.headers.get("Content-Type") == "application/json"
            body = json.loads(sent) if is_json else sent.decode()
            key = self.headers.get("Idempotency-Key") or ""
            asked = Asked(self.command, self.path, key, dict(self.headers), body)
            receiver.asked.append(asked)
            fault = receiver.faults.popleft() if receiver.faults else None
            if fault == "slow":
                receiver.ended.wait(20)
            if fault in ("slow", "cut"):
                self.close_connection = True
                return
            answer = fault if isinstance(fault, tuple) else receiver.answer(asked)
            if fault == "cut after":
                self.close_connection = True
                return
            self._reply(*answer)

        def _reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_PATCH = do_DELETE = do_POST = do_HEAD = _serve  # noqa: N815 - http.server's

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    return Handler


class Endpoint:
    """An empty receiver and a sink of its own; every target of it is closed after the test."""

    def __init__(self, receiver: Receiver, pipeline: Pipeline, **options: Any) -> None:
        self.receiver = receiver
        self.context = Context(pipeline.name, "crm", pipeline.kafka)
        given = {"url": receiver.url, "tables": ["shop.*"], **options}
        self.config = Config.model_validate(given)
        self.targets: list[HttpTarget] = []

    def connect(self) -> HttpTarget:
        self.targets.append(create(self.context, self.config))
        return self.targets[-1]

    def open(self, *schemas: TableSchema) -> HttpTarget:
        target = self.connect()
        target.open()
        for schema in schemas:
            target.prepare(schema)
        return target

    def rows(self, table: TableId) -> list[tuple[bytes | None, ...]]:
        begin = f"/api/{table.name}/"
        found = (doc for path, doc in self.receiver.documents.items() if path.startswith(begin))
        texts = [tuple(None if v is None else str(v).encode() for v in d.values()) for d in found]
        return sorted(texts, key=repr)

    def names(self) -> list[str]:
        return self.receiver.names()

    def refuse(self, text: bytes) -> None:
        def judge(asked: Asked) -> Answer | None:
            items = asked.body if isinstance(asked.body, list) else [{"body": asked.body}]
            bad = any((item["body"] or {}).get("name") == text.decode() for item in items)
            return (422, {}, b"no such name") if bad else None

        self.receiver.judge = judge

    def paths(self) -> list[str]:
        return [unquote(asked.path.removeprefix("/api")) for asked in self.receiver.asked]

    def close(self) -> None:
        for target in self.targets:
            target.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def make_endpoint(receiver: Receiver, pipeline: Pipeline) -> Iterator[Callable[..., Endpoint]]:
    made: list[Endpoint] = []

    def make(**options: Any) -> Endpoint:
        made.append(Endpoint(receiver, pipeline, **options))
        return made[-1]

    yield make
    for endpoint in made:
        endpoint.close()


class Bench:
    """A delivery on a receiver, without cursors."""

    def __init__(self, receiver: Receiver, schema: TableSchema, **options: Any) -> None:
        given = {"url": receiver.url, "tables": ["shop.*"], **options}
        self.schema = schema
        self.config = config = Config.model_validate(given)
        self.receiver = receiver
        self.circuit = Circuit()
        self.endpoint = client.Endpoint(config, self.circuit)
        batching = Batching(config.batch, config.batch_method, config.batch_path)
        self.delivery = Delivery(self.endpoint, config.forms(), batching)
        self.delivery.prepare(schema)

    def send(self, *rows: Sequence[Cell], schema: TableSchema | None = None) -> None:
        told_by = schema or self.schema
        self.delivery.prepare(told_by)
        self.delivery.send([Mapped(told_by, list(rows), [])])

    def close(self) -> None:
        self.delivery.close()
        self.endpoint.close()

    def sent(self) -> list[tuple[str, str, Any]]:
        asked = self.receiver.asked
        return [(one.method, one.path.removeprefix("/api"), one.body or None) for one in asked]


@pytest.fixture
def bench(receiver: Receiver) -> Iterator[Callable[..., Bench]]:
    with ExitStack() as stack:

        def make(**options: Any) -> Bench:
            from sinks.testing_changes import CHANGES

            made = Bench(receiver, CHANGES, **options)
            stack.callback(made.close)
            return made

        yield make
