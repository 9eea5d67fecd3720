"""`make differential`: random operations captured by us and by a live Debezium at once.

    python tests/differential/run.py --operations 100000 --seed 1

One server, one Kafka; each capturer has its own publication and slot, made before the first
operation. Both topics of each table are then read and compared (`compare`); exit code 1 when an
event differs without a rule that says why.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import psycopg
from confluent_kafka.admin import NewTopic
from psycopg.conninfo import conninfo_to_dict
from rich.console import Console
from rich.table import Table

from bench.peers import Connect
from cdc.kafka import admin_client
from cdc.local import LocalKafka, LocalPostgres, LocalRegistry
from cdc.sources.postgres import Config, discover
from differential.compare import NORMALISED, Comparison
from differential.events import messages, our_events, their_events
from differential.workload import SCHEMA, TABLES, Workload
from fix_pipeline import wait_until
from size.worker import Place, SourceWorker

NAME = "debezium"
SETTINGS = "../../differential/debezium"
"""From the folder where the peers' settings lie."""

FAR_S = 900.0


class Scene:
    """The servers, both capturers running, and what they wrote."""

    def __init__(self, place: Place, url: str) -> None:
        self.place = place
        self._url = url

    def prepare(self) -> None:
        """Make tables, Debezium's publication and slot, and its topics."""
        with psycopg.connect(self._url, autocommit=True) as db:
            db.execute(SCHEMA.read_bytes())
            db.execute(f"CREATE PUBLICATION {NAME} FOR TABLES IN SCHEMA public")
            make = "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')"
            db.execute(make, (NAME,))
        admin = admin_client(self.place.kafka)
        names = [f"{NAME}.public.{table}" for table in (*TABLES, "marker")] + [f"{NAME}.message"]
        for future in admin.create_topics([NewTopic(name, 1, 1) for name in names]).values():
            future.result(30)

    def connector(self) -> dict[str, object]:
        """Return what peers/…/debezium.properties leaves open."""
        parts = conninfo_to_dict(self._url)
        return {
            "name": NAME,
            "port": parts["port"],
            "user": parts["user"],
            "password": parts["password"],
            "database": parts["dbname"],
        }

    def both_done(self, worker: SourceWorker, connect: Connect) -> None:
        """Wait until the last row is in both topics."""
        kafka = self.place.kafka

        def their_last() -> bool:
            assert connect.running(NAME)
            return next(messages(kafka, f"{NAME}.public.marker"), None) is not None

        worker.until(lambda: self.place.written("marker"), "our last event", FAR_S)
        wait_until(their_last, f"their last event\n{connect.log}", FAR_S)

    def compared(self) -> Comparison:
        """Read and compare every table."""
        kafka, comparison = self.place.kafka, Comparison()
        schemas = {s.table.name: s for s in discover(Config.model_validate({"url": self._url}))}
        for table in TABLES:
            mine = our_events(messages(kafka, self.place.topic(table)), schemas[table])
            others = their_events(messages(kafka, f"{NAME}.public.{table}"))
            comparison.table(table, list(mine), list(others))
        return comparison


def differ(operations: int, seed: int, folder: Path) -> tuple[int, Comparison]:
    """Run everything; return the operations that were committed and the comparison."""
    with LocalKafka() as kafka, LocalRegistry() as registry, LocalPostgres(18) as postgres:
        url = postgres.create_database("shop")
        place = Place(kafka.bootstrap, registry.url, url, folder, "ours")
        scene = Scene(place, url)
        scene.prepare()
        with (
            SourceWorker(place, "snapshot: never") as worker,
            Connect("source", folder, kafka=kafka.bootstrap, registry=registry.url) as connect,
            psycopg.connect(url, autocommit=True) as db,
        ):
            connect.create(SETTINGS, scene.connector())
            wait_until(lambda: connect.running(NAME), f"Debezium\n{connect.log}", 120)
            worker.until_streaming(db)
            done = Workload(url, seed).run(operations)
            scene.both_done(worker, connect)
        return done, scene.compared()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    console, began = Console(width=100), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tailrace-differential-") as folder:
        done, found = differ(given.operations, given.seed, Path(folder))
    shown = Table("normalisation", "used", "why")
    for name, why in NORMALISED.items():
        shown.add_row(name, f"{found.used[name]:,}", why)
    console.print(shown)
    counts = ", ".join(f"{count:,} {op}" for op, count in sorted(found.events.items()))
    console.print(f"{done:,} operations, seed {given.seed}: events compared: {counts}")
    for text in found.different:
        console.print(text, markup=False, highlight=False)
    console.print(f"{found.unequal:,} different, {time.monotonic() - began:.0f} s")
    return 1 if found.unequal else 0


if __name__ == "__main__":
    sys.exit(main())
