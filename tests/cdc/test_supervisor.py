"""`cdc run` and `cdc source` as real processes on the real broker."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import httpx

from cdc.config import parse_pipeline
from cdc.supervisor import seats_of
from fix_pipeline import wait_until
from fix_stack import a_kafka
from fix_ticker import TickerHome


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_sink_gets_as_many_processes_as_it_has_workers() -> None:
    text = """
pipeline: p
kafka: {bootstrap: b, registry: http://r}
sources: {s: {type: postgres, url: "postgresql://h/d"}}
sinks:
  one: {type: postgres, url: "postgresql://h/d", tables: ["*"]}
  two: {type: postgres, url: "postgresql://h/d", tables: ["*"], workers: 2}
"""
    seats = seats_of(parse_pipeline(text, Path("tailrace.yaml"), {}))
    assert [(seat.name, seat.arguments) for seat in seats] == [
        ("source/s", ("source", "s")),
        ("sink/one", ("sink", "one")),
        ("sink/two/0", ("sink", "two", "--worker", "0")),
        ("sink/two/1", ("sink", "two", "--worker", "1")),
    ]


def test_a_run_streams_and_drains_on_sigterm_within_ten_seconds(ticker: TickerHome) -> None:
    supervisor = ticker.start("run")
    worker = ticker.until(lambda w: w.get("rows", 0) > 20, "rows")
    started = time.monotonic()
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(15) == 0, ticker.log()
    assert time.monotonic() - started < 10
    assert not is_alive(worker["pid"])
    assert ticker.workers()["source/clock"]["state"] == "stopped"


def test_a_killed_worker_is_started_again_and_goes_on(ticker: TickerHome) -> None:
    ticker.start("run")
    first = ticker.until(lambda w: w.get("rows", 0) > 5, "rows")
    os.kill(first["pid"], signal.SIGKILL)
    second = ticker.until(
        lambda w: w.get("pid") not in {None, first["pid"]} and w.get("rows", 0) > 5, "a successor"
    )
    assert second["position"]["number"] > first["position"]["number"]


def test_no_worker_outlives_a_killed_supervisor(ticker: TickerHome) -> None:
    supervisor = ticker.start("run")
    worker = ticker.until(lambda w: w.get("rows", 0) > 0, "rows")
    supervisor.kill()
    supervisor.wait()
    wait_until(lambda: not is_alive(worker["pid"]), "the worker ends", 15)


def test_a_worker_that_an_operator_must_see_to_stays_down_until_restarted(
    ticker: TickerHome,
) -> None:
    ticker.write(
        {
            "clock": {"type": "ticker", "fail": str(ticker.fail)},
            "other": {"type": "ticker"},
        }
    )
    ticker.start("run")
    ticker.until(lambda w: w.get("rows", 0) > 0, "rows")
    ticker.fail.touch()
    failed = ticker.until(lambda w: w["state"] == "failed", "the failure")
    assert (failed["error"], failed["hint"]) == ("the ticker broke", "remove the file")
    assert ticker.cdc("status").returncode == 3
    other = ticker.workers()["source/other"]
    assert other["state"] == "streaming"
    ticker.fail.unlink()
    assert ticker.cdc("restart", "clock").returncode == 0
    ticker.until(lambda w: w["state"] == "streaming", "streaming again")


def test_status_passes_over_what_the_file_no_longer_names(ticker: TickerHome) -> None:
    ticker.start("run")
    worker = ticker.until(lambda w: w.get("rows", 0) > 0, "rows")
    ticker.write({"renamed": {"type": "ticker"}})
    assert "source/clock" in ticker.cdc("status").stdout
    ticker.processes[0].kill()
    ticker.processes[0].wait()
    wait_until(lambda: not is_alive(worker["pid"]), "the worker ends", 15)
    wait_until(lambda: "source/clock" not in ticker.cdc("status").stdout, "it is passed over", 30)
    shown = ticker.cdc("status")
    assert (shown.returncode, "absent" in shown.stdout) == (0, True)


def test_a_run_whose_workers_all_failed_ends_with_their_exit_code(ticker: TickerHome) -> None:
    ticker.fail.touch()
    supervisor = ticker.start("run")
    assert supervisor.wait(60) == 3
    assert "the ticker broke" in ticker.log()


def test_a_source_that_is_away_is_waited_for_in_sight(ticker: TickerHome) -> None:
    ticker.start("run")
    ticker.until(lambda w: w.get("rows", 0) > 0, "rows")
    ticker.away.touch()
    retrying = ticker.until(lambda w: w["state"] == "retrying", "retrying")
    assert retrying["error"] == "the ticker is away"
    ticker.away.unlink()
    ticker.until(lambda w: w["state"] == "streaming", "streaming again")


def test_two_supervisors_share_the_sources_and_one_takes_over_from_the_other(
    ticker: TickerHome,
) -> None:
    names = [f"clock{n}" for n in range(8)]
    ticker.write({name: {"type": "ticker", "every": 0.5} for name in names})

    def owners() -> dict[str, int]:
        return {u: w["pid"] for u, w in ticker.workers().items() if w["state"] == "streaming"}

    first = ticker.start("run")
    wait_until(lambda: len(owners()) == 8, "all eight run", 60)
    alone = owners()
    second = ticker.start("run")
    moved = wait_until(
        lambda: len(found := owners()) == 8 and found.items() - alone.items(), "some moved", 60
    )
    assert len(moved) < 8
    first.kill()
    first.wait()
    wait_until(
        lambda: len(found := owners()) == 8 and not set(found.values()) & set(alone.values()),
        f"the second runs all\n{ticker.log()[-3000:]}",
        60,
    )
    assert second.poll() is None


def test_a_live_source_is_not_disturbed_unless_taken_over(ticker: TickerHome) -> None:
    owner = ticker.start("source", "clock")
    ticker.until(lambda w: w.get("rows", 0) > 0, "rows")
    refused = ticker.cdc("source", "clock")
    assert refused.returncode == 5
    assert f"process {owner.pid}" in refused.stderr
    assert "--take-over" in refused.stderr
    ticker.start("source", "clock", "--take-over")
    assert owner.wait(60) == 5, ticker.log()


def test_a_pause_holds_until_resumed(ticker: TickerHome) -> None:
    ticker.start("run")
    ticker.until(lambda w: w.get("rows", 0) > 0, "rows")
    assert ticker.cdc("pause", "source/clock").returncode == 0
    paused = ticker.until(lambda w: w["state"] == "paused", "paused")
    os.kill(paused["pid"], signal.SIGKILL)
    ticker.until(lambda w: w["state"] == "paused" and w["pid"] != paused["pid"], "still paused")
    ticker.cdc("resume", "source/clock")
    ticker.until(lambda w: w["state"] == "streaming", "streaming again")


def test_one_page_of_metrics_stands_for_all_workers(ticker: TickerHome) -> None:
    ticker.start("run")
    ticker.until(lambda w: w.get("rows", 0) > 0, "rows")
    url = re.findall(r"http://[\d.:]+/metrics", ticker.log())[0]
    page = httpx.get(url).text
    assert f'cdc_rows_total{{pipeline="{ticker.name}",unit="source/clock"}}' in page
    ready = url.replace("/metrics", "/readyz")
    assert httpx.get(ready).status_code == 200
    ticker.away.touch()
    answer = wait_until(lambda: (a := httpx.get(ready)).status_code == 503 and a, "unready")
    assert answer.text == "source/clock: retrying: the ticker is away\n"


def test_a_source_ends_in_time_though_the_broker_is_frozen(tmp_path: Path, registry: Any) -> None:
    with a_kafka() as kafka:
        home = TickerHome(tmp_path, kafka.bootstrap, registry.url)
        source = home.start("source", "clock")
        home.until(lambda w: w.get("rows", 0) > 0, "rows")
        kafka.server.pause()
        try:
            source.send_signal(signal.SIGTERM)
            assert source.wait(10) in {0, 4}, home.log()
        finally:
            kafka.server.resume()
            home.close()


def test_a_broker_that_is_away_at_the_start_is_waited_for(ticker: TickerHome) -> None:
    ticker.kafka["bootstrap"] = "127.0.0.1:1"
    ticker.write({"clock": {"type": "ticker"}})
    supervisor = ticker.start("run")
    wait_until(lambda: "waiting" in ticker.log(), "the wait is told", 60)
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(10) == 0
