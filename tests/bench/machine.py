"""What the figures were measured on, and of what."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import confluent_kafka
import orjson
import psutil

from bench import peers
from bench.scene import Stack
from cdc.local.java import java
from cdc.local.parts import kafka_parts, registry_part

ROOT = Path(__file__).parents[2]


def _said(argv: Sequence[str]) -> str:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def commit() -> str:
    """The commit that is checked out, with a plus where files differ from it."""
    changed = _said(["git", "status", "--porcelain", "--untracked-files=no"])
    return _said(["git", "rev-parse", "--short=10", "HEAD"]) + ("+" if changed else "")


def facts() -> dict[str, str]:
    """Processor, cores, memory, system."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(": ")[2] if names else cpu
    memory = psutil.virtual_memory().total / 2**30
    return {
        "processor": cpu,
        "cores": str(psutil.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
    }


def versions(stack: Stack) -> dict[str, str]:
    """Every program that took part, and which executor of ours ran."""
    doctor = orjson.loads(_said([sys.executable, "-m", "cdc", "doctor", "--json"]) or "{}")
    return {
        "tailrace": str(doctor.get("tailrace", "")),
        "executor": str(doctor.get("executor", "")),
        "python": platform.python_version(),
        "confluent-kafka": confluent_kafka.version(),
        "librdkafka": confluent_kafka.libversion()[0],
        "kafka": kafka_parts()[0].version,
        "apicurio": registry_part().version,
        "postgres": str(getattr(stack.postgres, "version", "")),
        "java": str(java()[1]),
        **peers.versions(),
    }
