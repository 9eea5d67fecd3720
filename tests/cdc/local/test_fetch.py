"""Parts: what the table says is what runs, byte for byte."""

from __future__ import annotations

import gc
import hashlib
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cdc.local import LocalStackError, fetch, java, parts
from cdc.local.cache import cache_folder, locked, made_once
from cdc.local.parts import Part

CONTENT = b"the bytes of a jar"
PART = Part("Test", "org.example:thing:1.0", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


class Repository:
    """Stands in for the Maven repository, and counts how often it was asked."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.asked = 0

    def __call__(self, part: Part, folder: Path, report: fetch.Report) -> Path:
        self.asked += 1
        report(len(self.content))
        path = folder / part.filename
        path.write_bytes(self.content)
        return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CDC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> Repository:
    stand_in = Repository(CONTENT)
    monkeypatch.setattr(fetch, "ask_repository", stand_in)
    return stand_in


def test_a_part_is_downloaded_once(repository: Repository) -> None:
    [path] = fetch.fetch([PART])
    assert path.read_bytes() == CONTENT
    assert fetch.fetch([PART]) == [path]
    assert repository.asked == 1


def test_a_download_with_one_flipped_byte_is_refused(
    repository: Repository, own_cache: Path
) -> None:
    repository.content = b"The bytes of a jar"
    with pytest.raises(LocalStackError, match=f"the parts table says {PART.sha256}"):
        fetch.fetch([PART])
    assert list((own_cache / "parts").iterdir()) == []


def test_a_cached_part_with_one_flipped_byte_is_refused_with_the_remedy(
    repository: Repository,
) -> None:
    [path] = fetch.fetch([PART])
    path.write_bytes(b"The bytes of a jar")
    with pytest.raises(LocalStackError, match="is not org") as refused:
        fetch.fetch([PART])
    assert f"rm '{path}'" in refused.value.hint
    path.unlink()
    fetch.fetch([PART])
    assert repository.asked == 2


def test_a_download_that_breaks_leaves_nothing(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(part: Part, folder: Path, _report: fetch.Report) -> Path:
        (folder / part.filename).write_bytes(b"half")
        raise LocalStackError("the line went dead")

    monkeypatch.setattr(fetch, "ask_repository", breaks)
    with pytest.raises(LocalStackError, match="went dead"):
        fetch.fetch([PART])
    assert list((own_cache / "parts").iterdir()) == []


def test_the_real_repository_gives_the_real_bytes() -> None:
    smallest = min(parts.kafka_parts(), key=lambda part: part.size)
    [path] = fetch.fetch([smallest])
    assert path.stat().st_size == smallest.size


# jgo never closes the response of a 404, whose socket then complains when it is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_part_that_the_repository_lacks_is_named_with_a_remedy() -> None:
    lacking = Part("Test", "org.apache.kafka:kafka_2.13:0.0.0", 1, "0" * 64)
    with pytest.raises(LocalStackError, match="0 could not be fetched") as refused:
        fetch.fetch([lacking])
    assert "network" in refused.value.hint
    del refused
    gc.collect()


def test_without_the_extra_its_name_is_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "jgo.maven", None)
    with pytest.raises(LocalStackError) as refused:
        fetch.fetch([PART])
    assert refused.value.hint == "pip install 'tailrace[local]'"


def test_two_processes_make_a_folder_once(tmp_path: Path) -> None:
    program = """if True:
        from cdc.local.cache import made_once
        def make(folder):
            print("made", flush=True)
            (folder / "whole").touch()
        assert (made_once("thing", make) / "whole").exists()"""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        for _ in range(4)
    ]
    said = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0] * 4
    assert "".join(said) == "made\n"


def test_a_folder_whose_making_failed_is_made_again() -> None:
    def fails(folder: Path) -> None:
        (folder / "half").touch()
        raise LocalStackError("disk full")

    with pytest.raises(LocalStackError):
        made_once("thing", fails)
    folder = made_once("thing", lambda folder: (folder / "whole").touch())
    assert [path.name for path in folder.iterdir()] == ["whole"]


def test_who_waits_too_long_for_a_lock_is_told() -> None:
    told = threading.Event()
    with (
        locked("thing"),
        pytest.raises(LocalStackError, match="another process has held"),
        locked("thing", deadline=0.2, waiting=told.set),
    ):
        pass
    assert told.is_set()


def test_the_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CDC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "tailrace"


def test_a_cache_folder_that_cannot_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CDC_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(LocalStackError, match="cannot be made") as refused:
        cache_folder()
    assert "CDC_CACHE" in refused.value.hint


@pytest.mark.parametrize("version", parts.POSTGRES_VERSIONS)
@pytest.mark.parametrize("system", ["linux", "darwin"])
@pytest.mark.parametrize("machine", ["x86_64", "arm64"])
def test_every_postgres_version_is_there_for_every_platform(
    version: int, system: str, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "this_platform", lambda: f"{system}-{machine}")
    assert parts.postgres_part(version).version.startswith(f"{version}.")


def test_a_platform_without_binaries_is_named_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parts, "this_platform", lambda: "sunos-sparc")
    with pytest.raises(LocalStackError, match="no PostgreSQL 18 binaries for sunos-sparc") as no:
        parts.postgres_part(18)
    assert "compose.yaml" in no.value.hint


def test_without_java_the_remedy_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "_candidates", list)
    with pytest.raises(LocalStackError, match="no Java 17 or newer was found") as no:
        java.java.__wrapped__()
    assert "tailrace[local]" in no.value.hint
    assert "JAVA_HOME" in no.value.hint
