"""A sink by its pipeline file: what goes into its topic, and the commands a user gives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import yaml

from cdc.publish import Publisher
from fix_sink import Sink, changes, commit, piece
from schemas.change import Change

if TYPE_CHECKING:
    from fix_cli import Cdc


class Mirror:
    """The sink `mirror` into Postgres: changes for it, its target, and `cdc` on it."""

    def __init__(self, sink: Sink, publisher: Publisher, cdc: Cdc, folder: Path) -> None:
        self.sink, self.pipeline = sink, sink.pipeline
        self.letter_topic = f"{sink.pipeline.name}.dead"
        self.file = folder / "tailrace.yaml"
        self._publisher, self._cdc = publisher, cdc
        self._commits = 0

    def configure(self, tables: Mapping[str, Any], **options: Any) -> None:
        """Write the pipeline file for a sink with these options."""
        kafka = self.pipeline.kafka
        mirror = {"type": "postgres", "url": self.sink.url, "tables": tables}
        pipeline = {
            "pipeline": self.pipeline.name,
            "kafka": {"bootstrap": kafka.bootstrap, "registry": kafka.registry.url},
            "metrics": {"port": None},
            "sinks": {"mirror": {**mirror, **options}},
        }
        self.file.write_text(yaml.safe_dump(pipeline))

    def execute(self, *statements: str) -> None:
        """Run statements on the target."""
        with psycopg.connect(self.sink.url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def change(self, *items: Change) -> None:
        """Commit one source transaction."""
        self._commits += 1
        commit(self._publisher, piece(self._commits, changes(self._commits, *items)))

    def run(self, *arguments: str) -> Any:
        """Run a command on the pipeline file here."""
        return self._cdc(*arguments, "-c", str(self.file))

    def killed(self, point: str, *arguments: str) -> None:
        """Run a command in a process that dies at `point`."""
        ended = subprocess.run(
            [sys.executable, "-m", "cdc", *arguments, "-c", str(self.file)],
            env={**os.environ, "CDC_FAILPOINTS": f"{point}=kill"},
            timeout=60,
            capture_output=True,
            check=False,
        )
        assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
        gone = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'tailrace/%'"
        self.sink.wait_for(gone, [(0,)])

    def open(self) -> list[dict[str, Any]]:
        """Return the letters that are open."""
        found: list[dict[str, Any]] = self.run("dead", "list", "mirror", "--json").json()["letters"]
        return found

    def replay(self, *arguments: str) -> list[dict[str, Any]]:
        """Replay letters, and return what is told of each."""
        told = self.run("dead", "replay", "mirror", *arguments, "--json")
        letters: list[dict[str, Any]] = told.json()["letters"]
        return letters

    def raw(self) -> int:
        """How many records the topic of the letters holds."""
        return len(self.pipeline.read(self.letter_topic))
