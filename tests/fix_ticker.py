"""A pipeline with a source of someone else's that counts: `cdc` as a real command, no database.

The connector is found through entry points, as any third party's would be. It numbers its rows and
continues behind its position; `fail` and `stop_at` make it fail in the ways a source may.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import to_builtins

from cdc.cli.status import shown_state
from cdc.kafka import KafkaConfig
from cdc.status import StatusReader
from fix_pipeline import wait_until

TICKER = '''"""A source that counts."""
from __future__ import annotations
import time
from pathlib import Path
import msgspec
from pydantic import BaseModel, ConfigDict, Field
from cdc.connector import Finding
from cdc.errors import Stop, SourceUnavailable
from cdc.source import Batch, SourceStatus
from schemas.change import Change, Op, Origin, Rows, Stamp
from schemas.table import Column, TableId, TableSchema, Type

ITEMS = TableSchema(TableId("public", "items"), (Column("id", Type("int64")),), ("id",))

class At(msgspec.Struct, frozen=True):
    number: int
    def encode(self): return {"version": 1, "number": self.number}
    def covers(self, other): return self.number >= other.number

class Config(BaseModel):
    """Options of the ticker."""
    model_config = ConfigDict(extra="forbid")
    every: float = Field(default=0.05, description="Seconds between two rows")
    fail: Path = Field(default=Path("/nowhere"), description="A file that makes it stop for good")
    away: Path = Field(default=Path("/nowhere"), description="A file that makes it unavailable")

class Ticker:
    def __init__(self, config): self.config, self.number, self.extra = config, 0, []
    def open(self, after, progress): self.number = after["number"] if after else 0
    def read(self, timeout):
        if self.config.fail.exists(): raise Stop("the ticker broke", hint="remove the file")
        if self.config.away.exists(): raise SourceUnavailable("the ticker is away")
        time.sleep(self.config.every)
        self.number += 1
        ids = [self.number, *self.extra]; self.extra = []
        changes = [Change(Op.CREATE, None, (b"%d" % i,)) for i in ids]
        origin = Origin(1, self.number, 1_700_000_000_000_000, str(self.number))
        rows = Rows(ITEMS, "changes", origin, changes, range(len(ids)))
        return Batch([rows], At(self.number), Stamp(1, self.number))
    def confirm(self, upto): pass
    def command(self, name, arguments): self.extra.append(1_000_000)
    def status(self): return SourceStatus("streaming", lag_bytes=7, retained_bytes=9)
    def close(self): pass

def create(context, config): return Ticker(config)
def check(context, config):
    yield Finding("ok", "clock", "it ticks")
    if config.fail.exists(): yield Finding("fail", "spring", "it is broken", "rm the file")
def discover(config): yield ITEMS
def drop(context, config, dry_run): yield "the ticker's nothing"
'''


class TickerHome:
    """A folder with the connector and a pipeline file, and the `cdc` run in it."""

    def __init__(self, folder: Path, bootstrap: str, registry: str) -> None:
        self.folder = folder
        self.name = f"t{secrets.token_hex(4)}"
        self.fail = folder / "fail"
        self.away = folder / "away"
        (folder / "ticker_cdc.py").write_text(TICKER)
        (folder / "ticker_cdc.md").write_text("# A ticker\n")
        info = folder / "ticker_cdc-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ticker-cdc\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[cdc.sources]\nticker = ticker_cdc\n")
        self.config = folder / "tailrace.yaml"
        self.kafka = {"bootstrap": bootstrap, "registry": registry}
        self.write({"clock": {"type": "ticker", "fail": str(self.fail), "away": str(self.away)}})
        self.processes: list[subprocess.Popen[bytes]] = []
        self._reader: StatusReader | None = None

    def write(self, sources: dict[str, Any], **more: Any) -> None:
        file = {
            "pipeline": self.name,
            "kafka": self.kafka,
            "sources": sources,
            "metrics": {"port": 0},
            **more,
        }
        self.config.write_text(json.dumps(file))

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.folder), "CDC_CONFIG": str(self.config)}

    def cdc(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run `cdc` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "cdc", *arguments],
            env=self.environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Run `cdc` in the background; its log is `cdc.log`."""
        with (self.folder / "cdc.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "cdc", *arguments],
                env=self.environment(),
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def log(self) -> str:
        path = self.folder / "cdc.log"
        return path.read_text() if path.exists() else ""

    def workers(self) -> dict[str, Any]:
        """Return every heartbeat, with the state that `cdc status` shows."""
        if self._reader is None:
            self._reader = StatusReader(KafkaConfig.model_validate(self.kafka), self.name)
        found = self._reader.read()
        return {k: {**to_builtins(h), "state": shown_state(h)} for k, h in found.items()}

    def until(
        self, condition: Callable[[dict[str, Any]], Any], what: str, unit: str = "source/clock"
    ) -> Any:
        """Wait until a worker's heartbeat meets `condition`, and return the heartbeat."""

        def met() -> Any:
            worker = self.workers().get(unit, {"state": "absent"})
            return worker if condition(worker) else None

        return wait_until(met, f"{what}\n{self.log()[-3000:]}", 60)

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._reader is not None:
            self._reader.close()


@pytest.fixture
def ticker(tmp_path: Path, kafka: Any, registry: Any) -> Iterator[TickerHome]:
    home = TickerHome(tmp_path, kafka.bootstrap, registry.url)
    yield home
    home.close()
