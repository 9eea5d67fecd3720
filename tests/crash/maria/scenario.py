"""One pipeline between two MariaDB servers: its workers, and the evidence it leaves behind.

with Stage(mariadb=True) as stage, Scenario(stage, layouts, folder) as scenario:
    ...load and misfortunes...
    scenario.settle()
    anomalies = check(scenario.evidence())
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pymysql
from confluent_kafka import KafkaException

from cdc.connections.mariadb import Login, connect, fetch
from cdc.errors import Unavailable
from crash.crew import Crew, Launch, Worker
from crash.evidence import Anomaly, CutSample, Evidence, Flow, Stored
from crash.maria import ground
from crash.maria.ground import FLOOR, LAST, TABLES
from crash.samplers import Sampler
from crash.scenario import ROOT, Layout
from crash.stage import Stage
from crash.topics import TopicReader, committed, positions_partition, stored_position
from fix_pipeline import wait_until

CURSORS = "select `partition`, next_offset from tailrace_cursors where sink = %s and topic = %s"
ACCOUNTS = "select cast(id as char), version, balance from accounts"
SETTLE_S = 150.0


class CutSampler(Sampler):
    """Cursors and accounts of a target in one snapshot, over and over."""

    def __init__(self, url: str, sink: str, topic: str) -> None:
        super().__init__(f"cuts-{sink}")
        self._url, self._sink, self._topic = url, sink, topic
        self.samples: list[CutSample] = []

    def watch(self) -> None:
        """Look until it is over, or until the server goes down."""
        try:
            with closing(connect(Login(self._url, "storm"))) as connection:
                while not self.is_over:
                    self._look(connection)
        except (Unavailable, pymysql.err.OperationalError, pymysql.err.InterfaceError):
            return

    def _look(self, connection: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("start transaction with consistent snapshot")
        try:
            cursors = fetch(connection, CURSORS, (self._sink, self._topic))
            accounts = fetch(connection, ACCOUNTS)
        except pymysql.err.ProgrammingError:  # before the sink's first start
            return
        finally:
            connection.rollback()
        state = {key: (int(version), int(balance)) for key, version, balance in accounts}
        sample = CutSample(dict(cursors), state)
        if not self.samples or self.samples[-1] != sample:
            self.samples.append(sample)


class Scenario:
    """Fresh databases and a fresh pipeline; the workers run from `enter` to `exit`."""

    def __init__(self, stage: Stage, layouts: Sequence[Layout], folder: Path) -> None:
        self.stage, self._layouts = stage, layouts
        self.name = f"s{secrets.token_hex(3)}"
        self.observed: list[Anomaly] = []
        self.source = stage.source.create_database(self.name)
        ground.make_source(self.source)
        self.targets = {x.sink: stage.target.create_database(self._target(x)) for x in layouts}
        for url in self.targets.values():
            ground.make_target(url)
        config = folder / f"{self.name}.yaml"
        config.write_text(json.dumps(self._pipeline()))  # JSON is YAML
        self.launch = Launch(ROOT, config, folder)
        seats = [seat for layout in layouts for seat in layout.seats(layout.source)]
        self.crew = Crew([Worker(name, arguments, self.launch) for name, arguments in seats])
        self._cuts = {
            x.sink: CutSampler(self.targets[x.sink], x.sink, self._topic(x, "accounts"))
            for x in layouts
        }

    def _target(self, layout: Layout) -> str:
        return f"{self.name}_{layout.sink}"

    def _topic(self, layout: Layout, table: str) -> str:
        return f"{layout.source}.{self.name}.{table}"

    def _pipeline(self) -> dict[str, Any]:
        stage, sources, sinks = self.stage, {}, {}
        for layout in self._layouts:
            sources[layout.source] = {
                "type": "mariadb",
                "url": stage.source_url(self.name),
                "tables": [f"{self.name}.*"],
                "chunk_rows": 500,
                "publish": {"partitions": {"*.*": layout.partitions}},
            }
            sinks[layout.sink] = {
                "type": "mariadb",
                "url": stage.target_url(self._target(layout)),
                "tables": {self._topic(layout, "*"): {"to": "{table}"}},
                "workers": layout.workers,
            }
        places = {"bootstrap": stage.bootstrap(), "registry": stage.registry_url()}
        whole = {"pipeline": self.name, "kafka": places, "metrics": {"port": None}}
        return {**whole, "sources": sources, "sinks": sinks}

    def __enter__(self) -> Self:
        self.crew.start()
        for sampler in self._cuts.values():
            sampler.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.crew.end()
        for sampler in self._cuts.values():
            sampler.end()

    def wait_for_positions(self) -> None:
        """Wait until every source has a position: what commits from now on is in its stream."""
        for layout in self._layouts:
            what = f"a position of {layout.source}\n{self.crew.tails()}"
            wait_until(lambda layout=layout: self._has_begun(layout), what, 60.0)

    def _has_begun(self, layout: Layout) -> bool:
        try:
            return bool(self._positions(layout))
        except KafkaException:  # its topic is being made
            return False

    def _positions(self, layout: Layout) -> list[Stored]:
        topic, partition = f"{self.name}.positions", positions_partition(layout.source)
        history = committed(self.stage.kafka.bootstrap, topic, [partition])
        found = [stored_position(message, layout.source) for message in history]
        return [stored for stored in found if stored is not None]

    def wait_for_looks(self, count: int) -> None:
        """Wait until every target was seen to move so often."""
        for layout in self._layouts:
            seen, what = self._cuts[layout.sink].samples, f"{layout.sink} to move"
            wait_until(lambda seen=seen: len(seen) >= count, what, 60.0)

    def settle(self) -> None:
        """Wait for the last row everywhere, then for all the others."""
        last = f"insert into reborn (id, round, version) values ({LAST}, 0, {ground.VERSION})"
        ground.run(self.source, last)
        deadline = time.monotonic() + SETTLE_S
        while not self._equal() and time.monotonic() < deadline:
            time.sleep(0.3)

    def _equal(self) -> bool:
        return all(
            ground.rows_of(target, table) == ground.rows_of(self.source, table)
            for target in self.targets.values()
            for table in TABLES
        )

    def evidence(self) -> Evidence:
        """Collect what is known; call it when all is settled."""
        flows = [self._flow(layout) for layout in self._layouts]
        return Evidence(ground.journal(self.source), flows, [*self.observed, *self.crew.stopped])

    def _flow(self, layout: Layout) -> Flow:
        reader = TopicReader(self.stage.kafka.bootstrap, self.stage.registry.url)
        topics = {self._topic(layout, table): table for table in TABLES}
        target = self.targets[layout.sink]
        return Flow(
            name=layout.source,
            floor=FLOOR,
            partitions=layout.partitions,
            one_worker=layout.workers == 1,
            tables=tuple(TABLES),
            records=list(reader.records_of(topics)),
            positions=self._positions(layout),
            cuts=list(self._cuts[layout.sink].samples),
            effects=ground.target_facts(target),
            source_rows={table: ground.rows_of(self.source, table) for table in TABLES},
            target_rows={table: ground.rows_of(target, table) for table in TABLES},
        )
