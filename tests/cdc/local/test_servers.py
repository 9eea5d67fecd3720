"""The three servers: they start, serve, survive being hurt, and leave nothing behind."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from cdc.local import LocalKafka, LocalPostgres, LocalRegistry, LocalStack, LocalStackError
from cdc.local.parts import POSTGRES_VERSIONS
from fix_pipeline import wait_until


def make_topic(bootstrap: str) -> str:
    name = f"t-{uuid.uuid4()}"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(30)
    return name


def read_all(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": topic,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            # Asked of a broker that has just started, which may know no such topic yet; the next
            # time to ask would be in five minutes.
            "topic.metadata.refresh.interval.ms": 500,
        }
    )
    consumer.subscribe([topic])
    found: list[bytes] = []

    def all_read() -> bool:
        messages = consumer.consume(count - len(found), timeout=0.5)
        found.extend(message.value() or b"" for message in messages if message.error() is None)
        return len(found) >= count

    wait_until(all_read, f"{count} records of {topic}")
    consumer.close()
    return found


def produce_in_transaction(bootstrap: str, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": topic})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, value)
    producer.commit_transaction(30)


def test_the_broker_commits_transactions(kafka: LocalKafka) -> None:
    topic = make_topic(kafka.bootstrap)
    produce_in_transaction(kafka.bootstrap, topic, b"one")
    assert read_all(kafka.bootstrap, topic, 1) == [b"one"]


def test_the_broker_makes_no_topic_by_itself(kafka: LocalKafka) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.list_topics(topic="misspelt", timeout=10)
    assert "misspelt" not in admin.list_topics(timeout=10).topics


def test_a_killed_broker_comes_back_with_its_data_and_address() -> None:
    with LocalKafka() as kafka:
        address, topic = kafka.bootstrap, make_topic(kafka.bootstrap)
        produce_in_transaction(address, topic, b"one")
        kafka.server.kill()
        assert not kafka.server.running
        kafka.server.start()
        assert kafka.bootstrap == address
        assert read_all(address, topic, 1) == [b"one"]


def test_a_broker_that_has_another_ones_port_is_told_from_it(kafka: LocalKafka) -> None:
    _, port = kafka.bootstrap.split(":")
    with LocalKafka() as other:
        other.server.kill()
        settings = other.log.parent / "server.properties"
        own = other.bootstrap.rpartition(":")[2]
        settings.write_text(settings.read_text().replace(f":{own}", f":{port}"))
        other._ports["PLAINTEXT"] = int(port)  # as if it had been given to both
        with pytest.raises(LocalStackError, match="ended at once"):
            other.server.start()


def test_two_brokers_have_different_cluster_ids(kafka: LocalKafka) -> None:
    with LocalKafka() as other:
        ids = {
            AdminClient({"bootstrap.servers": address}).list_topics(timeout=10).cluster_id
            for address in (kafka.bootstrap, other.bootstrap)
        }
    assert len(ids) == 2


def test_a_further_listener_has_its_own_address() -> None:
    settings = {
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.login.plain.sasl.jaas.config": (
            'org.apache.kafka.common.security.plain.PlainLoginModule required user_ann="secret";'
        ),
    }
    with LocalKafka(listeners={"LOGIN": "SASL_PLAINTEXT"}, settings=settings) as kafka:
        client = AdminClient(
            {
                "bootstrap.servers": kafka.address("LOGIN"),
                "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanism": "PLAIN",
                "sasl.username": "ann",
                "sasl.password": "secret",
            }
        )
        assert client.list_topics(timeout=10).brokers


def test_the_registry_keeps_schemas_over_a_kill() -> None:
    with LocalRegistry() as registry:
        url = f"{registry.url}/subjects/s/versions"
        sent = httpx.post(url, json={"schema": '"string"'}, trust_env=False).json()
        registry.server.kill()
        registry.server.start()
        kept = httpx.get(f"{registry.url}/schemas/ids/{sent['id']}", trust_env=False)
    assert kept.json()["schema"] == '"string"'


def test_the_registry_listens_on_loopback_alone(registry: LocalRegistry) -> None:
    heard = psutil.Process(registry.server.pid).net_connections("tcp")
    addresses = {c.laddr.ip for c in heard if c.status == psutil.CONN_LISTEN}
    assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1"}


@pytest.mark.parametrize("version", POSTGRES_VERSIONS)
def test_every_postgres_version_decodes_logically(
    version: int, postgres_server: Callable[[int], LocalPostgres]
) -> None:
    url = postgres_server(version).url
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.info.server_version // 10_000 == version
        slot = f"s{uuid.uuid4().hex}"
        connection.execute(
            "select pg_create_logical_replication_slot(%s, 'pgoutput', true)", (slot,)
        )
        connection.execute("select pg_drop_replication_slot(%s)", (slot,))


def test_a_fresh_database_can_be_dropped_with_its_slots(pg_database: str) -> None:
    with psycopg.connect(pg_database, autocommit=True) as connection:
        slot = f"s{uuid.uuid4().hex}"
        connection.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
        connection.execute("create table t (id int)")
        connection.execute("begin")
        connection.execute("insert into t values (1)")
        connection.execute(f"prepare transaction '{slot}'")


def test_postgres_wants_the_password(postgres: LocalPostgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.url_of("postgres", password="wrong"))


def test_postgres_settings_can_be_overridden() -> None:
    with (
        LocalPostgres(settings={"wal_level": "replica"}) as server,
        psycopg.connect(server.url) as connection,
    ):
        assert connection.execute("show wal_level").fetchone() == ("replica",)


def test_a_killed_postgres_comes_back_with_its_data_and_address() -> None:
    with LocalPostgres() as server:
        url = server.create_database("shop")
        with psycopg.connect(url) as connection:
            connection.execute("create table kept (id int)")
        server.server.kill()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url, connect_timeout=2)
        server.server.start()
        with psycopg.connect(url) as connection:
            assert connection.execute("select count(*) from kept").fetchone() == (0,)


def test_a_paused_postgres_answers_again_after_resume() -> None:
    with LocalPostgres() as server:
        server.server.pause()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.url, connect_timeout=2)
        server.server.resume()
        psycopg.connect(server.url, connect_timeout=10).close()


def test_given_data_is_kept_and_temporary_data_is_not(tmp_path: Path) -> None:
    with LocalPostgres(data=tmp_path / "pg") as server:
        server.create_database("shop")
    with LocalPostgres(data=tmp_path / "pg") as server:
        psycopg.connect(server.url_of("shop")).close()
    with LocalPostgres() as server:
        gone = server.data
    assert not gone.exists()


def test_data_of_another_version_is_refused_by_name(tmp_path: Path) -> None:
    with LocalPostgres(17, data=tmp_path / "pg"):
        pass
    with pytest.raises(LocalStackError, match="is of PostgreSQL 17, not 18"):
        LocalPostgres(18, data=tmp_path / "pg").start()


def test_a_version_without_binaries_is_refused_by_name() -> None:
    with pytest.raises(LocalStackError, match="no PostgreSQL 9 binaries") as refused:
        LocalPostgres(9).start()
    assert "14, 15, 16, 17, 18" in refused.value.hint


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (LocalKafka(settings={"log.retention.ms": "many"}), "log.retention.ms"),
        (LocalPostgres(settings={"wal_level": "wide"}), 'invalid value for parameter "wal_level"'),
        (LocalRegistry(settings={"quarkus.http.port": "nowhere"}), "nowhere"),
    ],
    ids=["kafka", "postgres", "registry"],
)
def test_a_failed_start_shows_the_end_of_the_log(
    server: LocalKafka | LocalPostgres | LocalRegistry, reason: str
) -> None:
    with pytest.raises(LocalStackError, match="the end of its log") as failed:
        server.start()
    assert reason in str(failed.value)
    assert not server.server.running


def test_a_stack_starts_all_three_and_leaves_nothing_running() -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with LocalStack() as stack:
        AdminClient({"bootstrap.servers": stack.kafka.bootstrap}).list_topics(timeout=10)
        assert httpx.get(f"{stack.registry.url}/subjects", trust_env=False).json() == []
        psycopg.connect(stack.postgres.url).close()
    after = {child.pid for child in psutil.Process().children(recursive=True)}
    assert after <= before
