"""The bench itself: it runs, prints and judges; how fast anything is, no test says."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from bench import peers
from bench.measure import Measured
from bench.readback import Read, difference, row_of
from bench.report import PathResult, Results, filled, lines, load, show, write
from bench.run import arguments, run
from bench.section import markdown
from readme import README, replaced, section


def test_the_bench_runs_every_rate_and_prints_a_table(
    kafka: Any, registry: Any, postgres: Any, tmp_path: Path
) -> None:
    asked = arguments(["--smoke", "--out", str(tmp_path / "bench.json")])
    asked.out = tmp_path / "bench.json"
    printed = io.StringIO()
    servers = SimpleNamespace(kafka=kafka, registry=registry, postgres=postgres)
    run(servers, asked, Console(file=printed, width=150))
    kept = load(asked.out)
    failures = {name: path.failed for name, path in kept.paths.items()}
    assert failures == dict.fromkeys(asked.paths, "")
    sides = {(one.path, one.side) for path in kept.paths.values() for one in path.runs}
    assert sides == {
        ("stream", "tailrace"), ("stream", "plain"), ("stream", "limit"),
        ("sink", "tailrace"), ("sink", "limit"), ("sink", "consume"),
        ("rewrite", "tailrace"), ("snapshot", "tailrace"), ("snapshot", "limit"),
        ("sqlite", "tailrace"), ("sqlite", "limit"),
        ("mariadb", "tailrace"), ("mariadb", "limit"),
        ("maria-stream", "tailrace"), ("maria-stream", "limit"),
        ("duckdb", "tailrace"), ("http", "tailrace"), ("poison", "sound"), ("poison", "poison"),
    }  # fmt: skip
    assert "log → topic, rows/s" in printed.getvalue()
    assert "no peer ran" in printed.getvalue()


def stream(ours: float, peer: float, **more: Any) -> Results:
    """Results of one path: rows per second of both sides."""
    runs = [
        Measured("stream", side, rows=int(rate), seconds=1.0, cpu_s=cpu)
        for side, rate, cpu in (("tailrace", ours, 1.0), ("debezium", peer, 2.0))
        if rate
    ]
    return Results(paths={"stream": PathResult("2026-01-01", "abc", [0.1], 1, runs, **more)})


def test_a_ratio_is_of_medians_and_judged_by_its_bar() -> None:
    first = lines(stream(100_000, 15_000))[0]
    assert (first.ours, first.peer, first.ratio, first.met) == ("100,000", "15,000", "6.7 x", "met")
    assert lines(stream(130_000, 15_000))[0].met == "stretch"
    assert lines(stream(60_000, 15_000))[0].met == "missed"


def test_a_ratio_against_a_peer_that_limps_is_invalid() -> None:
    limping = lines(stream(100_000, 0.69 * 13_600))
    assert [line.ratio for line in limping[:2]] == ["invalid", "invalid"]
    assert [line.met for line in limping[:2]] == ["—", "—"]


def test_a_path_whose_sides_differ_meets_no_bar() -> None:
    assert lines(stream(100_000, 15_000, differs=["run 1: a row"]))[0].met == "differs"


@pytest.mark.parametrize(("rate", "met"), [(80_000, "met"), (79_000, "missed")])
def test_the_rate_beside_poison_is_judged_as_a_share_of_the_rate_without(
    rate: int, met: str
) -> None:
    sides = (("sound", 100_000), ("poison", rate))
    runs = [Measured("poison", side, rows=rows, seconds=1.0) for side, rows in sides]
    path = PathResult("2026-01-01", "abc", [0.1], 1, runs)
    [line] = [one for one in lines(Results(paths={"poison": path})) if "dead" in one.what]
    assert (line.ours, line.met) == (f"{rate:,}, 100,000", met)


def test_a_target_has_its_rate_cpu_and_memory_in_the_table_of_targets() -> None:
    run = Measured("duckdb", "tailrace", rows=1000, seconds=0.1, cpu_s=0.01, peak_mb=99.6)
    path = PathResult("2026-01-01", "abc", [0.1], 1, [run])
    found = {line.target: line[1:] for line in filled(Results(paths={"duckdb": path}))}
    assert found["DuckDB file"] == ("10,000", "10.0", "100", "—")
    assert found["SQLite file"] == ("—", "—", "—", "—")


def test_a_family_is_all_its_paths() -> None:
    assert arguments(["--paths", "idle,maria"]).paths == ["idle", "maria-stream", "maria-snapshot"]


def test_without_a_peer_there_is_no_ratio() -> None:
    assert lines(stream(100_000, 0))[0].ratio == "—"


def test_what_was_measured_of_other_paths_stays(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "bench.json"
    write(stream(100_000, 15_000), file)
    found = load(file)
    found.paths["sink"] = PathResult("2026-01-02", "def", [0.2], 1)
    write(found, file)
    assert set(load(file).paths) == {"stream", "sink"}


def test_a_failure_is_printed(tmp_path: Path) -> None:
    printed = io.StringIO()
    show(stream(1, 0, failed="the broker went away"), Console(file=printed, width=150))
    assert "the broker went away" in printed.getvalue()


OURS = {"id": 7, "amount": Decimal("1.50"), "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)}
PEERS = {"id": 7, "amount": Decimal("1.50"), "at": "2026-01-02T03:04:05Z"}


def test_a_row_spelled_in_two_ways_is_the_same_row() -> None:
    assert row_of({**OURS, "attrs": '{"a": 1}'}) == row_of({**PEERS, "attrs": '{"a":1}'})


@pytest.mark.parametrize("change", [{"id": 8}, {"amount": Decimal("1.51")}, {"at": "2026-01-02"}])
def test_a_row_with_another_value_is_another_row(change: dict[str, Any]) -> None:
    assert row_of(OURS) != row_of({**PEERS, **change})


def test_reading_back_finds_a_missing_and_a_changed_row() -> None:
    whole = Read(2, {1: (1, "a"), 2: (2, "b")})
    assert difference(whole, whole, {1, 2}) == ""
    assert "2 records of ours, 1 of" in difference(whole, Read(1, {1: (1, "a")}), {1})
    assert "order 2" in difference(whole, Read(2, {1: (1, "a"), 2: (2, "c")}), {1, 2})
    assert "order 3" in difference(whole, whole, {3})


@pytest.mark.parametrize("family", ["connect", "source", "sink", "maria"])
def test_every_jar_of_the_peers_is_pinned_by_its_sum(family: str) -> None:
    parts = peers.parts(family)
    assert len(parts) > 20
    assert all(len(part.sha256) == 64 and part.size > 0 for part in parts)
    assert len({part.filename for part in parts}) == len(parts)


def test_a_setting_without_a_value_is_an_error() -> None:
    with pytest.raises(KeyError):
        peers.settings("stream", {"name": "x"})


def test_the_settings_of_a_peer_are_those_of_its_file() -> None:
    values = {"name": "x", "topic": "t", "port": 1, "database": "d", "user": "u", "password": "p"}
    found = peers.settings("sink", values)
    assert found["insert.mode"] == "upsert"
    assert found["connection.url"].startswith("jdbc:postgresql://127.0.0.1:1/d")


def test_the_readme_says_of_speed_what_was_measured() -> None:
    assert section(README.read_text("utf-8"), "speed") == markdown()


def test_the_section_names_a_path_that_failed_and_sides_that_differ(tmp_path: Path) -> None:
    found = stream(100_000, 15_000, differs=["run 2: order 5"])
    found.paths["sink"] = PathResult("2026-01-01", "abc", [0.1], 1, failed="no broker")
    found.machine = {"cores": "2", "processor": "p", "memory": "m", "system": "s"}
    found.versions = dict.fromkeys(
        ("postgres", "kafka", "python", "executor", "java", *peers.versions()), "1"
    )
    write(found, tmp_path / "results.json")
    text = " ".join(markdown(tmp_path / "results.json").split())
    assert "stream: run 2: order 5; sink: no broker; no peer ran beside snapshot" in text


def test_a_section_is_replaced_between_its_markers() -> None:
    text = "a\n<!-- x: made -->\nold\n<!-- /x -->\nb\n"
    assert replaced(text, "x", "new\n") == "a\n<!-- x: made -->\nnew\n<!-- /x -->\nb\n"
    with pytest.raises(LookupError):
        replaced(text, "y", "new\n")
