"""One run: workers of some code, on databases and a pipeline of their own, on a shared stack."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import psycopg
from confluent_kafka import OFFSET_BEGINNING, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from cdc.kafka import KafkaConfig
from cdc.local.process import end_of_log
from cdc.status import Heartbeat, StatusReader
from crash.collect import floor_of
from crash.evidence import Floor
from crash.mutants.proxy import KafkaProxy, PostgresProxy
from crash.topics import consumer, positions_partition
from fix_pipeline import wait_until

__all__ = ["Broken", "Ground", "Servers", "Worker"]

HERE = Path(__file__).parent
OPERATOR, FENCED = 3, 5
"""Exit codes of a worker that stopped by name, and of one that found another owner."""


PATIENCE_S = 120.0
"""Nothing takes so long, not even on a machine with other things to do."""


class Broken(Exception):
    """The workers did not do what a bug may do: they crashed, or something never came."""


class Worker:
    """One `cdc source` or `cdc sink` process; dies with `close`."""

    def __init__(self, name: str, argv: list[str], env: dict[str, str], folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(argv, cwd=folder, env=env, stdout=log, stderr=log)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self.process.poll()

    def kill(self) -> None:
        """SIGKILL; what it held open stays open at the other side until that notices."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM, and wait until what it had begun is committed."""
        if self.running:
            self.process.terminate()
        try:
            self.process.wait(15.0)
        except subprocess.TimeoutExpired:
            self.kill()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)


class Servers(Protocol):
    """What a run needs of the servers: a local stack has it, and so have the tests' servers."""

    kafka: Any
    registry: Any
    postgres: Any


class Ground:
    """See the module's text. `code` is the folder the workers are started from."""

    def __init__(self, stack: Servers, code: Path, folder: Path) -> None:
        self.stack = stack
        self.code = code
        self.folder = folder
        self.name = f"m{secrets.token_hex(4)}"
        self.slot = f"cdc_{self.name}_{self.name}"
        self.workers: list[Worker] = []
        self.proxies: list[KafkaProxy | PostgresProxy] = []
        self.source_url = stack.postgres.create_database(f"{self.name}_source")
        self.target_url = stack.postgres.create_database(f"{self.name}_target")
        self.source = self._connect(self.source_url, "source.sql")
        self.target = self._connect(self.target_url, "target.sql")
        self._admin = AdminClient({"bootstrap.servers": stack.kafka.bootstrap, "log_level": 0})
        self._status: StatusReader | None = None
        self.partitions, self.alone = 1, True
        self.floor = Floor(0, 0, frozenset())
        self._sentinels = 0

    def _connect(self, url: str, script: str) -> psycopg.Connection[Any]:
        connection: psycopg.Connection[Any] = psycopg.connect(url, autocommit=True)
        connection.execute((HERE.parent / script).read_bytes())
        return connection

    def close(self) -> None:
        """End what was started and drop what was made."""
        for worker in self.workers:
            if worker.running:
                worker.thaw()
                worker.kill()
        for proxy in self.proxies:
            proxy.close()
        if self._status is not None:
            self._status.close()
        gids = "select gid from pg_prepared_xacts where database = current_database()"
        for (gid,) in self.source.execute(gids).fetchall():
            self.source.execute(f"rollback prepared '{gid}'")
        self.source.close()
        self.target.close()
        for database in ("source", "target"):
            self.stack.postgres.drop_database(f"{self.name}_{database}")

    def found_ground(self) -> None:
        """What commits from now on must be in the stream: the slot is made."""
        found = floor_of(self.source_url, self.slot)
        assert found is not None
        self.floor = found

    def stop_workers(self) -> None:
        """Let everything that was begun end."""
        for worker in self.workers:
            worker.stop()

    def crashes(self) -> str:
        """Say which worker fell over instead of stopping by name; '' when none did."""
        for worker in self.workers:
            if b"Traceback" in worker.log.read_bytes():
                return f"{worker.name} crashed:\n{end_of_log(worker.log)}"
        return ""

    # What is configured

    def through_kafka_proxy(self) -> KafkaProxy:
        """Return a proxy the source's clients of Kafka are to go through."""
        proxy = KafkaProxy(self.stack.kafka.bootstrap)
        self.proxies.append(proxy)
        return proxy

    def through_postgres_proxy(self) -> PostgresProxy:
        """Return a proxy the source's connections to its database are to go through."""
        proxy = PostgresProxy(f"127.0.0.1:{self.stack.postgres.port}")
        self.proxies.append(proxy)
        return proxy

    def configure(self, source: dict[str, Any] | None = None, **options: Any) -> None:
        """Write the configurations: one for the source, one for the sink.

        `source` are options of the source; `workers` of the sink. Proxies made before stand
        between the source and its servers.
        """
        bootstrap, url = self.stack.kafka.bootstrap, self.source_url
        for proxy in self.proxies:
            if isinstance(proxy, KafkaProxy):
                bootstrap = proxy.address
            else:
                direct = f"127.0.0.1:{self.stack.postgres.port}"
                url = f"{url.replace(direct, proxy.address)}?sslmode=disable&gssencmode=disable"
        tables = ["public.plain", "public.toasted", "public.reborn", "public.bulk"]
        bank = {"type": "postgres", "url": url, "tables": tables, **(source or {})}
        kafka = {"bootstrap": bootstrap, "registry": self.stack.registry.url}
        one = {
            "type": "postgres",
            "url": self.target_url,
            "tables": [f"{self.name}.public.*"],
            **options,
        }
        direct_kafka = {**kafka, "bootstrap": self.stack.kafka.bootstrap}
        for name, kafka_block in (("source", kafka), ("sink", direct_kafka)):
            text = {
                "pipeline": self.name,
                "kafka": kafka_block,
                "sources": {self.name: bank},
                "sinks": {"one": one},
            }
            # JSON is YAML, and a name in it can hold anything.
            (self.folder / f"{name}.yaml").write_text(json.dumps(text))

    # Workers

    def start_source(self, failpoints: str = "") -> Worker:
        return self._start("source", ["source", self.name, "--take-over"], failpoints)

    def start_sink(self, failpoints: str = "", number: int = 0) -> Worker:
        arguments = ["sink", "one", *(["--worker", str(number)] if number else [])]
        return self._start("sink", arguments, failpoints)

    def _start(self, kind: str, arguments: list[str], failpoints: str) -> Worker:
        config = str(self.folder / f"{kind}.yaml")
        argv = [sys.executable, "-m", "cdc", *arguments, "-c", config]
        env = {k: v for k, v in os.environ.items() if not k.startswith(("CDC_", "PYTHON"))}
        env |= {"PYTHONPATH": str(self.code), "CDC_EXECUTOR": "plain", "CDC_FAILPOINTS": failpoints}
        worker = Worker(f"{kind}-{len(self.workers)}", argv, env, self.folder)
        self.workers.append(worker)
        return worker

    def run(self, *arguments: str) -> None:
        """Run a `cdc` command of the same code to its end."""
        argv = [sys.executable, "-m", "cdc", *arguments, "-c", str(self.folder / "sink.yaml")]
        env = {**os.environ, "PYTHONPATH": str(self.code)}
        done = subprocess.run(argv, env=env, cwd=self.folder, capture_output=True, check=False)
        if done.returncode:
            raise Broken(f"cdc {' '.join(arguments)}: {done.stderr.decode()[-500:]}")

    # Waiting

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> Any:
        """Wait until `condition` holds. Raises `Broken` when it does not, with the last logs."""
        try:
            return wait_until(condition, what, seconds)
        except AssertionError as error:
            raise Broken(f"{error}\n{self.logs()}") from error

    def logs(self, lines: int = 12) -> str:
        return "\n".join(f"{w.name}: {end_of_log(w.log, lines)}" for w in self.workers[-3:])

    def stopped(self) -> bool:
        """Tell whether the newest source or the newest sink stopped and said why."""
        return any(worker.exit_code == OPERATOR for worker in self._newest())

    def _newest(self) -> list[Worker]:
        newest = {worker.name.partition("-")[0]: worker for worker in self.workers}
        return list(newest.values())

    def rows(self, where: str, table: str = "plain") -> int:
        """Return how many rows of a target table meet a condition."""
        query = f"select count(*) from {table} where {where}"
        return int(self.target.execute(query).fetchone()[0])  # type: ignore[index]

    def arrive(self, where: str, table: str = "plain", wanted: int = 1) -> None:
        """Wait until the target has rows, or a worker has stopped by name."""
        self.wait(
            lambda: self.stopped() or self.rows(where, table) >= wanted,
            f"{wanted} rows of {table} where {where}",
        )

    def sentinel(self) -> None:
        """Send a row after all others and wait for it: what was to come has come."""
        self._sentinels += 1
        number = -self._sentinels
        self.source.execute("insert into reborn (id, round) values (%s, 0)", (number,))
        self.arrive(f"id = {number}", "reborn")

    def has_died(self, worker: Worker) -> bool:
        """Tell whether a failpoint killed it, or it stopped by name before it came so far.

        Raises `Broken` when it ended in another way.
        """
        if worker.running:
            return False
        if worker.exit_code not in {-signal.SIGKILL, OPERATOR}:
            raise Broken(f"{worker.name} ended with {worker.exit_code}\n{self.logs()}")
        return True

    def load_until_dead(self, worker: Worker, first: int, pause_s: float = 0.3) -> None:
        """Insert a row every `pause_s` until a failpoint has killed `worker`."""
        numbers = iter(range(first, first + 1000))
        moment = [0.0]

        def dead() -> bool:
            if self.has_died(worker):
                return True
            moment[0] -= 0.02
            if moment[0] <= 0.0:
                moment[0] = pause_s
                self.insert(next(numbers))
            return False

        self.wait(dead, f"{worker.name} to meet its failpoint")

    def linger(self, condition: Callable[[], Any], seconds: float) -> None:
        """Give something that need not happen its time to happen."""
        with contextlib.suppress(AssertionError):
            wait_until(condition, "", seconds)

    def beat(self) -> Heartbeat | None:
        """Return the newest heartbeat of the newest source, None before its first."""
        source = [worker for worker in self.workers if worker.name.startswith("source")][-1]
        if source.exit_code is not None:
            raise Broken(f"{source.name} ended with {source.exit_code}\n{self.logs()}")
        if self._status is None:
            kafka = {"bootstrap": self.stack.kafka.bootstrap, "registry": self.stack.registry.url}
            self._status = StatusReader(KafkaConfig.model_validate(kafka), self.name)
        found = self._status.read().get(f"source/{self.name}")
        return found if found is not None and found.pid == source.process.pid else None

    def told(self, state: str = "streaming") -> None:
        """Wait until the newest source says it is in `state`, and reads no table as it was."""

        def is_told() -> bool:
            beat = self.beat()
            return beat is not None and beat.state == state and not beat.snapshots

        self.wait(is_told, f"the source to be {state}")

    def source_waits(self) -> bool:
        """Tell whether the newest source says what it waits for."""
        beat = self.beat()
        return beat is not None and bool(beat.waiting)

    # Changes

    def insert(self, *numbers: int, note: str = "") -> None:
        """Insert rows into `plain`, all in one transaction."""
        self.source.execute(
            "insert into plain (id, amount, note) select i, 1, %s from unnest(%s::bigint[]) i",
            (note, list(numbers)),
        )

    @contextmanager
    def absent_standby(self) -> Iterator[None]:
        """Let commits of sessions that ask for it wait for a standby that is not there."""
        self._reload("set synchronous_standby_names = 'nobody'")
        try:
            yield
        finally:
            self._reload("reset synchronous_standby_names")

    def _reload(self, change: str) -> None:
        self.source.execute(f"alter system {change}")
        self.source.execute("select pg_reload_conf()")

    @contextmanager
    def open_transaction_in_positions(self) -> Iterator[Callable[[], None]]:
        """Hold a stranger's transaction open in the partition of our positions, until called."""
        producer = Producer(
            {"bootstrap.servers": self.stack.kafka.bootstrap, "transactional.id": self.name}
        )
        producer.init_transactions(30)
        producer.begin_transaction()
        partition = positions_partition(self.name)
        producer.produce(f"{self.name}.positions", b"{}", b"stranger", partition=partition)
        assert producer.flush(30) == 0
        try:
            yield lambda: producer.abort_transaction(30)
        finally:
            producer.purge()

    # Looks

    def slot_at(self) -> int:
        """Return the slot's confirmed_flush_lsn in bytes."""
        row = self.source.execute(
            "select (confirmed_flush_lsn - '0/0')::bigint from pg_replication_slots"
            " where slot_name = %s",
            (self.slot,),
        ).fetchone()
        return 0 if row is None or row[0] is None else int(row[0])

    def records(self, table: str) -> list[Message]:
        """Return what is readable of a table's topic now, whatever is still open there."""
        reader = consumer(self.stack.kafka.bootstrap)
        found: list[Message] = []
        reader.assign([TopicPartition(f"{self.name}.public.{table}", 0, OFFSET_BEGINNING)])
        while True:
            for message in reader.consume(1000, 1.0):
                if message.error() is None:
                    found.append(message)
                else:
                    reader.close()
                    return found

    def sharers(self, table: str) -> int:
        """Return how many workers have partitions of a table's topic."""
        [found] = self._admin.describe_consumer_groups([f"{self.name}.sink.one"]).values()
        topic = f"{self.name}.public.{table}"
        assigned = [member.assignment for member in found.result(10).members]
        return sum(any(p.topic == topic for p in a.topic_partitions) for a in assigned if a)

    def sinks_connected(self) -> int:
        row = self.target.execute(
            "select count(*) from pg_stat_activity where application_name = %s",
            (f"tailrace/{self.name}/sink/one",),
        ).fetchone()
        return int(row[0]) if row else 0
