"""One pipeline on a stage: its databases, its workers, and the evidence it leaves behind.

with Stage() as stage, Scenario(stage, Setting(), folder) as scenario:
    ...load and misfortunes...
    scenario.settle()
    anomalies = check(scenario.evidence())
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from crash.collect import floor_of, journal, rows_of, target_facts
from crash.crew import Crew, Launch, Worker
from crash.evidence import Anomaly, Evidence, Floor, Flow
from crash.samplers import CutSampler, SlotSampler
from crash.stage import Stage
from crash.topics import TopicReader, committed, positions_partition, stored_position
from fix_pipeline import wait_until

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TABLES = (
    *("accounts", "plain", "toasted", "whole", "renamed"),
    *("reborn", "bulk", "wiped", "shifting", "refused"),
)


@dataclass(frozen=True)
class Layout:
    """One source, its sink, and over how many partitions and workers it is spread."""

    source: str
    sink: str
    partitions: int = 1
    workers: int = 1
    without: tuple[str, ...] = ()

    @property
    def tables(self) -> tuple[str, ...]:
        return tuple(table for table in TABLES if table not in self.without)

    def seats(self, source: str) -> Iterator[tuple[str, list[str]]]:
        """Yield what each worker is called here, and its arguments."""
        yield f"source/{self.source}", ["source", source, "--take-over"]
        if self.workers == 1:
            yield f"sink/{self.sink}", ["sink", self.sink]
            return
        for number in range(self.workers):
            yield f"sink/{self.sink}/{number}", ["sink", self.sink, "--worker", str(number)]


SINGLE = Layout("bank", "one")
SPREAD = Layout("quad", "four", partitions=4, workers=3)


@dataclass
class Setting:
    """What runs: whose code, in which layouts, with which options beside the usual ones."""

    code: Path = ROOT
    layouts: tuple[Layout, ...] = (SINGLE, SPREAD)
    environment: dict[str, str] = field(default_factory=dict)
    source_options: dict[str, Any] = field(default_factory=dict)
    sink_options: dict[str, Any] = field(default_factory=dict)
    publish: dict[str, Any] = field(default_factory=dict)
    settle_s: float = 120.0
    grace_s: float = 40.0
    """How long the rows may still differ once a row written last has arrived."""


class Scenario:
    """Fresh databases and a fresh pipeline; the workers run from `enter` to `exit`."""

    def __init__(self, stage: Stage, setting: Setting, folder: Path) -> None:
        self.stage, self.setting, self.folder = stage, setting, folder
        self.name = f"s{secrets.token_hex(3)}"
        self.observed: list[Anomaly] = []
        self.config = folder / f"{self.name}.yaml"
        self.source = stage.source.create_database(self.name)
        self.targets = {
            layout.sink: stage.target.create_database(f"{self.name}_{layout.sink}")
            for layout in setting.layouts
        }
        for url, script in [(self.source, "source.sql"), *self._target_scripts()]:
            with psycopg.connect(url) as connection:
                connection.execute((HERE / script).read_bytes())
        self.config.write_text(json.dumps(self._pipeline()))  # JSON is YAML
        self.launch = Launch(setting.code, self.config, folder, setting.environment)
        self.crew = Crew(
            [
                Worker(name, arguments, self.launch)
                for layout in setting.layouts
                for name, arguments in layout.seats(self.called(layout))
            ]
        )
        self.floors: dict[str, Floor] = {}
        self.slots = {x.source: self._slot_sampler(x) for x in setting.layouts}
        self.cuts = {x.source: self._cut_sampler(x) for x in setting.layouts}

    def _target_scripts(self) -> list[tuple[str, str]]:
        return [(url, "target.sql") for url in self.targets.values()]

    def _slot_sampler(self, layout: Layout) -> SlotSampler:
        names = (self.name, self.called(layout))
        return SlotSampler(self.source, self.stage.kafka.bootstrap, names)

    def _cut_sampler(self, layout: Layout) -> CutSampler:
        topic = self.topic(layout, "accounts")
        return CutSampler(self.targets[layout.sink], layout.sink, topic)

    def called(self, layout: Layout) -> str:
        """Return a source's name, which its topics begin with: nobody else's on this stage."""
        return f"{layout.source}_{self.name}"

    def topic(self, layout: Layout, table: str) -> str:
        return f"{self.called(layout)}.public.{table}"

    def _pipeline(self) -> dict[str, Any]:
        stage, sources, sinks = self.stage, {}, {}
        for layout in self.setting.layouts:
            sources[self.called(layout)] = {
                "type": "postgres",
                "url": stage.source_url(self.name),
                "tables": ["public.*", *(f"!public.{table}" for table in layout.without)],
                "chunk_rows": 1000,
                "publish": {
                    "partitions": {"public.*": layout.partitions},
                    **self.setting.publish,
                },
                **self.setting.source_options,
            }
            sinks[layout.sink] = {
                "type": "postgres",
                "url": stage.target_url(f"{self.name}_{layout.sink}"),
                "tables": [self.topic(layout, "*")],
                "workers": layout.workers,
                **self.setting.sink_options,
            }
        places = {"bootstrap": stage.bootstrap(), "registry": stage.registry_url()}
        whole = {"pipeline": self.name, "kafka": places, "metrics": {"port": None}}
        return {**whole, "sources": sources, "sinks": sinks}

    def __enter__(self) -> Self:
        self.crew.start()
        for sampler in (*self.slots.values(), *self.cuts.values()):
            sampler.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.crew.end()
        for sampler in (*self.slots.values(), *self.cuts.values()):
            sampler.end()

    def wait_for_slots(self, deadline_s: float = 120.0) -> None:
        """Wait until every source has a slot and a position; until then a killed one begins anew.

        What commits from now on must be in the stream.
        """
        for layout in self.setting.layouts:
            slot, sampler = f"cdc_{self.name}_{self.called(layout)}", self.slots[layout.source]
            what = f"a position of {layout.source}\n{self.crew.tails()}"
            wait_until(lambda sampler=sampler: sampler.stored, what, deadline_s)
            floor = floor_of(self.source, slot)
            assert floor is not None, f"{slot} is gone"
            self.floors[layout.source] = floor

    def backfill(self, layout: Layout, table: str) -> bool:
        """Ask for a table to be read again, by the command; whether it was accepted."""
        command = ["-m", "cdc", "-c", str(self.config), "backfill", self.called(layout)]
        environment = {"PYTHONPATH": str(self.setting.code), **self.setting.environment}
        done = subprocess.run(
            [sys.executable, *command, f"public.{table}"],
            cwd=self.folder,
            env={**outside(), **environment},
            capture_output=True,
            timeout=60,
            check=False,
        )
        return done.returncode == 0

    def settle(self) -> None:
        """Wait for the last row everywhere, then a while for all the others."""
        with psycopg.connect(self.source) as connection:
            connection.execute("insert into reborn (id, round) values (-1, 0)")
        for layout in self.setting.layouts:
            if not self._arrives(self.targets[layout.sink]):
                self.observed.append(
                    Anomaly(
                        "convergence",
                        f"{layout.source}: the last row did not arrive within "
                        f"{self.setting.settle_s:.0f} s\n{self.crew.tails()}",
                    )
                )
        deadline = time.monotonic() + self.setting.grace_s
        while not self._equal() and time.monotonic() < deadline:
            time.sleep(0.3)

    def _arrives(self, url: str) -> bool:
        deadline = time.monotonic() + self.setting.settle_s
        with psycopg.connect(url, autocommit=True) as target:
            while time.monotonic() < deadline:
                if target.execute("select 1 from reborn where id = -1").fetchone():
                    return True
                time.sleep(0.05)
        return False

    def _equal(self) -> bool:
        """Tell whether every table has the source's rows, poison aside."""
        for layout in self.setting.layouts:
            for table in layout.tables:
                ours = rows_of(self.targets[layout.sink], self.source, table)
                if ours != rows_of(self.source, self.source, table):
                    return False
        return True

    def evidence(self) -> Evidence:
        """Collect what is known; call it when all is settled."""
        flows = [self._flow(layout) for layout in self.setting.layouts]
        observed = [*self.observed, *self.crew.stopped]
        return Evidence(journal(self.source), flows, observed)

    def _flow(self, layout: Layout) -> Flow:
        kafka = self.stage.kafka.bootstrap
        reader = TopicReader(kafka, self.stage.registry.url)
        topics = {self.topic(layout, table): table for table in layout.tables}
        target = self.targets[layout.sink]
        dead = reader.dead(f"{self.name}.dead", layout.sink)
        source = self.called(layout)
        partition = positions_partition(source)
        history = committed(kafka, f"{self.name}.positions", [partition])
        found = [stored_position(message, source) for message in history]
        return Flow(
            name=layout.source,
            floor=self.floors[layout.source],
            partitions=layout.partitions,
            one_worker=layout.workers == 1,
            tables=layout.tables,
            records=list(reader.records_of(topics)),
            positions=[stored for stored in found if stored is not None],
            slots=list(self.slots[layout.source].samples),
            cuts=list(self.cuts[layout.source].samples),
            effects=target_facts(target),
            dead=list(dead),
            source_rows={t: rows_of(self.source, self.source, t) for t in layout.tables},
            target_rows={t: rows_of(target, self.source, t) for t in layout.tables},
        )


def outside() -> dict[str, str]:
    """Return what a command may know of our environment."""
    return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
