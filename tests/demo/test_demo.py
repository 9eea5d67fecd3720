"""`cdc demo` as a person runs it: a process of its own, judged by what it prints and leaves."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from typing import Any

import psutil
import pytest

from fix_pipeline import wait_until

CDC = [sys.executable, "-m", "cdc"]


def demo(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [*CDC, "demo", *arguments], capture_output=True, text=True, timeout=280, check=False
    )
    return done.returncode, done.stdout, done.stderr


def left_behind() -> list[str]:
    """Processes of the demo that are still there: its folder is on their command lines."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if "tailrace-demo-" in line:
            found.append(line)
    return found


def outcome(*arguments: str) -> tuple[int, dict[str, Any]]:
    code, out, err = demo("--once", "--json", *arguments)
    assert out, err
    return code, json.loads(out)


def test_a_bounded_run_ends_equal_and_leaves_nothing() -> None:
    code, found = outcome("--changes", "20000")
    assert code == 0
    assert found["equal"] is True
    assert sum(found["changes"].values()) >= 20_000
    for kind in ("insert", "update", "delete", "key change"):
        assert found["changes"][kind] > 0
    tables = {"customers", "products", "inventory", "orders", "order_items"}
    assert set(found["rows_compared"]) == {f"public.{t}" for t in tables} | {"crm.clients"}
    assert all(rows > 0 for rows in found["rows_compared"].values())
    assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p99"]
    assert left_behind() == []


@pytest.mark.parametrize(
    ("pair", "how", "table", "problem"),
    [
        ("postgres:mariadb", "flip", "mirror.orders", r"status: source '\w+', target 'flipped'"),
        ("mariadb:postgres", "remove", "public.order_items", "missing in the target"),
        ("postgres:postgres", "add", "public.inventory", "only in the target"),
    ],
)
def test_of_every_pair_one_wrong_row_in_the_target_is_the_only_one_found(
    pair: str, how: str, table: str, problem: str
) -> None:
    code, found = outcome("--changes", "1000", "--pair", pair, "--tamper", how)
    assert code == 1
    assert found["equal"] is False
    assert found["different"] == 1
    named = found["differences"][0]
    assert named["table"] == table
    assert re.search(problem, named["problem"])
    assert re.fullmatch(r"(sku=NOT-IN-SHOP|id=\d+|order_id=\d+, line=\d+)", named["key"])
    assert len(found["rows_compared"]) == 6
    assert all(rows > 0 for rows in found["rows_compared"].values())


def screen(master: int, until: str, deadline_s: float) -> str:
    """Read a terminal until it shows `until`."""
    seen, deadline = "", time.monotonic() + deadline_s
    while until not in seen and time.monotonic() < deadline:
        if select.select([master], [], [], 0.2)[0]:
            try:
                seen += os.read(master, 65_536).decode(errors="replace")
            except OSError:
                break
    assert until in seen, seen[-2000:]
    return seen


def test_the_live_view_moves_until_ctrl_c_and_says_how_to_look_further() -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*CDC, "demo"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "COLUMNS": "150", "LINES": "40", "TERM": "xterm"},
    )
    os.close(slave)
    seen = screen(master, "last followed change", 90)
    for word in ("captured by source/shopdb", "applied by sink/crm", "applied by sink/mirror"):
        assert word in seen
    assert re.search(r"commit → target +p50 +\d", seen)
    workers = [
        p
        for p in psutil.Process(process.pid).children(recursive=True)
        if {"source", "sink"} & set(p.cmdline())
    ]
    assert len(workers) == 3
    assert all(worker.memory_info().rss < 150e6 for worker in workers)
    process.send_signal(signal.SIGINT)
    assert "cdc local up" in screen(master, "make demo ARGS=--once", 60)
    assert process.wait(60) == 0
    os.close(master)
    wait_until(lambda: not left_behind(), "the demo's processes to end")
