"""Bring parts into the cache and refuse what is not byte for byte what the table says.

A file is downloaded into a scratch folder, its SHA-256 is compared, and only then it is renamed to
its place: the cache never holds half a file, and never an unverified one. A file that is already
there is verified again before every use (0.1 s for all of Kafka).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from cdc.local.cache import cache_folder, locked
from cdc.local.errors import LocalStackError
from cdc.local.parts import Part

__all__ = ["fetch", "verify"]

AT_ONCE = 4  # connections; the repository answers more with 429
TIMEOUT_S = 60  # for the repository to send the next bytes
Report = Callable[[int], None]


def place(part: Part) -> Path:
    """Where a part lies in the cache; a class path is only known again without links in it."""
    return (cache_folder() / "parts").resolve() / part.filename


def verify(part: Part, path: Path) -> None:
    """Compare a file with its entry in the parts table.

    Raises:
        LocalStackError: it has other bytes.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != part.sha256:
        raise LocalStackError(
            f"{path} is not {part.maven}: its SHA-256 is {found} ({path.stat().st_size} bytes), "
            f"the parts table says {part.sha256} ({part.size} bytes)",
            hint=f"remove the file and run again; it is fetched anew: rm '{path}'",
        )


def fetch(parts: Sequence[Part]) -> list[Path]:
    """The paths of all parts, in order; missing ones are downloaded with a progress bar.

    Raises:
        LocalStackError: a part cannot be had, or has other bytes than the table says.
    """
    paths = [place(part) for part in parts]
    if not all(path.exists() for path in paths):
        console = Console(stderr=True)
        with locked("parts", waiting=lambda: console.print("waiting for another fetch to end")):
            _fetch_missing([part for part in parts if not place(part).exists()], console)
    for part, path in zip(parts, paths, strict=True):
        verify(part, path)
    return paths


def _fetch_missing(parts: Sequence[Part], console: Console) -> None:
    """Download with one bar per family, `AT_ONCE` files at a time."""
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with (
        Progress(*columns, console=console) as progress,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        bars = {
            family: progress.add_task(
                family, total=sum(part.size for part in parts if part.family == family)
            )
            for family in dict.fromkeys(part.family for part in parts)
        }

        def one(part: Part) -> None:
            download(part, lambda count: progress.advance(bars[part.family], count))

        list(pool.map(one, parts))


def download(part: Part, report: Report) -> None:
    """Fetch one part, verify it and put it in its place."""
    target = place(part)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".fetch-", dir=target.parent))
    try:
        came = ask_repository(part, scratch, report)
        verify(part, came)
        came.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def ask_repository(part: Part, folder: Path, report: Report) -> Path:
    """Download a part below `folder` through jgo, which verifies nothing that we rely on."""
    try:
        from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415 - an extra, slow to load
    except ImportError as error:
        raise LocalStackError(
            "the local stack fetches its parts with jgo, which is not installed",
            hint="pip install 'tailrace[local]'",
        ) from error
    logging.getLogger("jgo").setLevel(logging.ERROR)

    @contextlib.contextmanager
    def bar(_filename: str, _total: int) -> Iterator[Report]:
        yield report

    group, artifact, version, classifier, packaging = part.coordinates
    context = MavenContext(
        resolver=PythonResolver(progress_callback=bar),
        repo_cache=folder,
        local_repos=[],
        timeout=TIMEOUT_S,
    )
    component = context.project(group, artifact).at_version(version)
    try:
        return component.artifact(classifier=classifier, packaging=packaging).resolve()
    except (RuntimeError, OSError) as error:  # requests' errors are OSErrors
        reason = type(error).__name__
        raise LocalStackError(
            f"{part.maven} could not be fetched from Maven Central ({reason})",
            hint="check the network and the proxy settings (HTTPS_PROXY), then run again; "
            "what was already fetched is kept",
        ) from error
