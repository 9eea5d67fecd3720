"""The registry, real and misbehaving: nothing breaking is ever registered, every error is named."""

from __future__ import annotations

import json
import secrets
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from schemas.avro import envelope_schema, key_schema, message_schema, table_schema
from schemas.errors import ConfigError, DataError, RegistryUnavailable, SchemaIncompatible
from schemas.registry import Registry, RegistryConfig
from schemas.subjects import Strategy
from schemas.table import Column, TableId, TableSchema, Type
from schemas.types import LOGICAL


def table(*columns: Column) -> TableSchema:
    identity = Column("id", Type("int64", "postgres bigint"), nullable=False)
    return TableSchema(TableId("public", "orders"), (identity, *columns), ("id",))


def numeric(precision: int, scale: int) -> Column:
    native = f"postgres numeric({precision},{scale})"
    return Column("total", Type("decimal", native, precision, scale))


@pytest.fixture
def topic() -> str:
    return f"shop.public.t{secrets.token_hex(4)}"


Open = Callable[[RegistryConfig], Registry]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Make registries that are closed after the test."""
    with ExitStack() as stack:
        yield lambda config: stack.enter_context(Registry(config))


@pytest.fixture
def ours(registry: Any, opened: Open) -> Registry:
    return opened(RegistryConfig(url=registry.url))


def test_a_schema_is_registered_once_and_read_back(
    ours: Registry, topic: str, opened: Open
) -> None:
    schema = envelope_schema(table(numeric(10, 2)), topic)
    identity = ours.register(f"{topic}-value", schema)
    assert ours.register(f"{topic}-value", schema) == identity
    another = opened(ours.config)
    assert another.register(f"{topic}-value", schema) == identity
    assert another.versions(f"{topic}-value") == [1]
    assert table_schema(another.get(identity)) == table(numeric(10, 2))
    assert another.latest(f"{topic}-value") == (identity, another.get(identity))
    assert another.version(f"{topic}-value", 1) == another.get(identity)


def test_every_logical_type_is_accepted_by_the_registry(ours: Registry, topic: str) -> None:
    names = enumerate(sorted(LOGICAL))
    columns = [Column(f"c {n}.ü", Type(name, precision=9, scale=2)) for n, name in names]
    whole = table(*columns)
    assert ours.register(f"{topic}-value", envelope_schema(whole, topic))
    assert ours.register(f"{topic}-key", key_schema(whole, topic))
    assert ours.register(f"{topic}.message-value", message_schema(topic))


def test_a_new_subject_is_given_its_level_before_its_first_version(
    ours: Registry, topic: str
) -> None:
    subject = f"{topic}-value"
    ours.register(subject, envelope_schema(table(), topic))
    assert level_of(ours, subject) == "BACKWARD"


def test_workers_that_register_a_new_subject_at_once_get_one_version(
    ours: Registry, opened: Open, topic: str
) -> None:
    several = [opened(ours.config) for _ in range(6)]
    schema = envelope_schema(table(), topic)
    for number in range(8):
        subject = f"{topic}.{number}-value"
        with ThreadPoolExecutor(len(several)) as pool:
            asked = [pool.submit(one.register, subject, schema) for one in several]
            assert len({one.result() for one in asked}) == 1
        assert ours.versions(subject) == [1]
        assert level_of(ours, subject) == "BACKWARD"


def level_of(registry: Registry, subject: str) -> str | None:
    return registry._ask(lambda client: client.get_compatibility(subject))


def test_columns_come_and_go_in_new_versions(ours: Registry, topic: str) -> None:
    subject = f"{topic}-value"
    first = ours.register(subject, envelope_schema(table(numeric(10, 2)), topic))
    wider = table(numeric(12, 2), Column("note", Type("string")))
    second = ours.register(subject, envelope_schema(wider, topic))
    third = ours.register(subject, envelope_schema(table(), topic))
    assert len({first, second, third}) == 3
    assert ours.versions(subject) == [1, 2, 3]


def test_a_version_that_was_there_before_gets_its_old_id(
    ours: Registry, topic: str, opened: Open
) -> None:
    subject = f"{topic}-value"
    first = ours.register(subject, envelope_schema(table(), topic))
    ours.register(subject, envelope_schema(table(numeric(10, 2)), topic))
    assert opened(ours.config).register(subject, envelope_schema(table(), topic)) == first
    assert ours.versions(subject) == [1, 2]


def test_another_scale_is_refused_though_the_registry_would_take_it(
    ours: Registry, topic: str
) -> None:
    subject = f"{topic}-value"
    ours.register(subject, envelope_schema(table(numeric(10, 2)), topic))
    with pytest.raises(SchemaIncompatible) as caught:
        ours.register(subject, envelope_schema(table(numeric(10, 3)), topic))
    assert "column total was numeric(10,2) and is numeric(10,3)" in str(caught.value)
    assert subject in caught.value.hint
    assert ours.versions(subject) == [1]


def test_the_newest_version_is_what_a_new_one_is_compared_with(
    ours: Registry, topic: str, opened: Open
) -> None:
    subject = f"{topic}-value"
    ours.register(subject, envelope_schema(table(), topic))
    ours.register(subject, envelope_schema(table(numeric(10, 2)), topic))
    with pytest.raises(SchemaIncompatible, match=r"numeric\(10,3\)"):
        ours.register(subject, envelope_schema(table(numeric(10, 3)), topic))
    wider = envelope_schema(table(numeric(10, 2), Column("n", Type("int64"))), topic)
    opened(ours.config).register(subject, wider)
    narrower = envelope_schema(table(numeric(10, 2), Column("n", Type("int32"))), topic)
    with pytest.raises(SchemaIncompatible, match="int64 cannot be read as int32"):
        ours.register(subject, narrower)


def test_another_type_and_another_key_are_spelled_out_together(ours: Registry, topic: str) -> None:
    subject = f"{topic}-value"
    ours.register(subject, envelope_schema(table(Column("v", Type("int64"))), topic))
    changed = TableSchema(
        TableId("public", "orders"), (Column("id", Type("uuid")), Column("v", Type("date"))), ("v",)
    )
    with pytest.raises(SchemaIncompatible) as caught:
        ours.register(subject, envelope_schema(changed, topic))
    for part in ("the key was (id) and is (v)", "column id was", "int64 cannot be read as date"):
        assert part in str(caught.value)


def test_what_our_check_lets_pass_the_registry_still_judges(
    ours: Registry, topic: str, opened: Open
) -> None:
    subject = f"{topic}-value"
    ours._ask(lambda client: client.set_compatibility(subject, "FULL"))
    nested = {"type": "record", "name": "R", "namespace": topic, "fields": []}
    one: dict[str, Any] = {**nested, "fields": [{"name": "a", "type": "string", "default": ""}]}
    other: dict[str, Any] = {**nested, "fields": [{"name": "b", "type": "int", "default": 0}]}
    registry = opened(ours.config.model_copy(update={"compatibility": "FULL"}))
    registry.register(subject, {**one, "fields": [{"name": "a", "type": "string"}]})
    with pytest.raises(SchemaIncompatible, match="refused the schema"):
        registry.register(subject, other)


def test_a_subject_set_to_none_takes_what_its_owner_allowed(ours: Registry, topic: str) -> None:
    subject = f"{topic}-value"
    ours.register(subject, envelope_schema(table(numeric(10, 2)), topic))
    ours._ask(lambda client: client.set_compatibility(subject, "NONE"))
    ours.register(subject, envelope_schema(table(numeric(10, 3)), topic))
    assert ours.versions(subject) == [1, 2]


def test_an_unknown_subject_has_no_versions(ours: Registry, topic: str) -> None:
    assert ours.versions(topic) == []
    assert ours.latest(topic) is None
    assert ours.version(topic, 1) is None


def test_an_unknown_id_is_the_fault_of_one_record(ours: Registry) -> None:
    with pytest.raises(DataError, match="no schema 999999"):
        ours.get(999_999)


def test_a_url_that_is_no_registry_is_named_with_the_right_ending(
    registry: Any, opened: Open
) -> None:
    wrong = registry.url.partition("/apis")[0] + "/elsewhere"
    with pytest.raises(ConfigError, match="does not answer like a schema registry") as caught:
        opened(RegistryConfig(url=wrong)).latest("t")
    assert "/apis/ccompat/v7" in caught.value.hint


class Misbehaving(BaseHTTPRequestHandler):
    """Answers every request as its server was told; counts them."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.seen.append((self.path, dict(self.headers)))
        if server.status == 0:
            server.released.wait(10)
            return
        self.send_response(server.status)
        self.send_header("Content-Length", str(len(server.body)))
        self.end_headers()
        self.wfile.write(server.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture
def misbehaving() -> Iterator[Callable[[int, bytes], Any]]:
    """Start a server that gives one answer to everything; status 0 never answers."""
    running: list[tuple[Any, threading.Thread]] = []

    def start(status: int, body: bytes = b"", tls: ssl.SSLContext | None = None) -> Any:
        server: Any = HTTPServer(("127.0.0.1", 0), Misbehaving)
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.status, server.body, server.seen = status, body, []
        server.released = threading.Event()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def url_of(server: Any) -> str:
    return f"http://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_registry_in_trouble_is_asked_again_by_the_worker_not_here(
    misbehaving: Callable[..., Any], status: int, opened: Open
) -> None:
    server = misbehaving(status, b'{"error_code": 50001, "message": "no disk"}')
    with pytest.raises(RegistryUnavailable, match="no disk"):
        opened(RegistryConfig(url=url_of(server))).latest("t")
    assert len(server.seen) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_denied_access_is_a_mistake_in_the_pipeline_file(
    misbehaving: Callable[..., Any], status: int, opened: Open
) -> None:
    server = misbehaving(status, b'{"error_code": 40101, "message": "who?"}')
    with pytest.raises(ConfigError, match="denied access") as caught:
        opened(RegistryConfig(url=url_of(server))).latest("t")
    assert "bearer" in caught.value.hint


def test_a_page_instead_of_an_answer_is_no_registry(
    misbehaving: Callable[..., Any], opened: Open
) -> None:
    server = misbehaving(200, b"<html>welcome</html>")
    with pytest.raises(ConfigError, match="does not answer like a schema registry"):
        opened(RegistryConfig(url=url_of(server))).latest("t")


def test_silence_ends_at_the_deadline(misbehaving: Callable[..., Any], opened: Open) -> None:
    server = misbehaving(0)
    with pytest.raises(RegistryUnavailable, match=r"within 0\.2 s"):
        opened(RegistryConfig(url=url_of(server), timeout=0.2)).latest("t")


def test_nobody_there_is_unavailable(opened: Open) -> None:
    with pytest.raises(RegistryUnavailable, match="no answer"):
        opened(RegistryConfig(url="http://127.0.0.1:9")).latest("t")


def test_basic_and_bearer_credentials_reach_the_registry(
    misbehaving: Callable[..., Any], opened: Open
) -> None:
    server = misbehaving(200, b"[1, 2]")
    basic = RegistryConfig(url=url_of(server), username="me", password=SecretStr("pass:word"))
    bearer = RegistryConfig(url=url_of(server), bearer=SecretStr("a.b.c"))
    assert [opened(config).versions("t") for config in (basic, bearer)] == [[1, 2], [1, 2]]
    sent = [headers.get("Authorization") for _, headers in server.seen]
    assert sent == ["Basic bWU6cGFzczp3b3Jk", "Bearer a.b.c"]


@pytest.fixture
def behind_tls(misbehaving: Callable[..., Any], authority: Any) -> Any:
    """A registry that answers only to clients with a certificate of `authority`."""
    mine = authority.identity("registry", hosts=("127.0.0.1",))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.ca))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(mine.cert, mine.key)
    return misbehaving(200, b"[1]", context)


def secure(server: Any, **files: Any) -> RegistryConfig:
    url = url_of(server).replace("http:", "https:")
    return RegistryConfig.model_validate({"url": url, "timeout": 5, **files})


def test_a_client_certificate_opens_the_registry(
    behind_tls: Any, authority: Any, opened: Open
) -> None:
    me = authority.identity("worker")
    config = secure(behind_tls, ca=authority.ca, cert=me.cert, key=me.key)
    assert opened(config).versions("t") == [1]


def test_without_a_client_certificate_nothing_is_answered(
    behind_tls: Any, authority: Any, opened: Open
) -> None:
    with pytest.raises(RegistryUnavailable):
        opened(secure(behind_tls, ca=authority.ca)).versions("t")


def test_an_unknown_authority_is_a_mistake_in_the_pipeline_file(
    behind_tls: Any, opened: Open
) -> None:
    with pytest.raises(ConfigError, match="not trusted") as caught:
        opened(secure(behind_tls)).versions("t")
    assert "kafka.registry.ca" in caught.value.hint


def test_missing_tls_files_are_a_mistake_in_the_pipeline_file(opened: Open) -> None:
    config = RegistryConfig.model_validate({"url": "https://127.0.0.1:9", "ca": "/nowhere/ca.pem"})
    with pytest.raises(ConfigError, match="TLS files"):
        opened(config).latest("t")


def test_no_secret_is_shown() -> None:
    config = RegistryConfig(url="http://me:hush@registry:8081", bearer=SecretStr("hush"))
    assert config.place == "http://registry:8081"
    assert "bearer=SecretStr('**********')" in repr(config)


def test_a_bare_url_is_enough() -> None:
    config = RegistryConfig.model_validate("http://registry:8081")
    assert (config.subjects, config.compatibility) == (Strategy.TOPIC, "BACKWARD")


@pytest.mark.parametrize(
    "options",
    [
        {"url": "registry:8081"},
        {"url": "http://r", "username": "me"},
        {"url": "http://r", "username": "me", "password": "x", "bearer": "y"},
        {"url": "http://r", "key": "/k.pem"},
        {"url": "http://r", "tiemout": 3},
    ],
)
def test_half_a_configuration_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RegistryConfig.model_validate(options)


def test_the_subject_follows_the_configured_strategy() -> None:
    schema = json.loads(json.dumps(envelope_schema(table(), "shop.public.orders")))
    by_topic = Registry(RegistryConfig(url="http://r"))
    by_record = Registry(RegistryConfig(url="http://r", subjects=Strategy.RECORD))
    assert by_topic.subject("t", schema, key=True) == "t-key"
    assert by_record.subject("t", schema) == "shop.public.orders.Envelope"


def test_a_topic_s_schemas_are_registered_under_the_configured_subjects(
    ours: Registry, topic: str, opened: Open
) -> None:
    by_record = opened(ours.config.model_copy(update={"subjects": Strategy.TOPIC_RECORD}))
    value, key = envelope_schema(table(), topic), key_schema(table(), topic)
    identity = ours.register_for(topic, value)
    assert ours.latest(f"{topic}-value") == (identity, value)
    assert ours.latest(f"{topic}-key") is None
    by_record.register_for(topic, key, key=True)
    assert by_record.versions(f"{topic}-{topic}.Key") == [1]


def test_a_bare_host_is_found_out_to_be_apicurio(registry: Any) -> None:
    host = registry.url.partition("/apis")[0]
    with Registry(RegistryConfig.model_validate(host)) as found:
        assert found.versions("nobody-wrote-this-value") == []
        assert found.config.url == registry.url
