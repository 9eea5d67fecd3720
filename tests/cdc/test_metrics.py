"""Metrics, probes and logs of a worker."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import httpx
import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from cdc import logs
from cdc.endpoint import Endpoint, Health, listening_socket, merge_pages
from cdc.errors import ConfigError, KafkaUnavailable
from cdc.metrics import NAMES, Metrics
from cdc.retry import LONGEST_S, back_off, until_it_answers


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("shop", "source/shopdb")


@pytest.fixture
def url(metrics: Metrics, health: Health) -> Iterator[str]:
    endpoint = Endpoint(listening_socket("127.0.0.1", 0), metrics.page, health)
    yield f"http://{endpoint.address}"
    endpoint.close()


def samples(page: bytes) -> dict[str, float]:
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def used(metrics: Metrics) -> Metrics:
    metrics.committed(1000, 50_000, 0.004)
    metrics.retried(KafkaUnavailable("x"))
    metrics.state("streaming")
    metrics.snapshots({"public.orders": (5, 10)})
    metrics.show("cdc_lag_bytes", 0)
    return metrics


def test_every_metric_has_a_documented_name(metrics: Metrics) -> None:
    page = used(metrics).page().decode()
    made = {line.split(" ")[2] for line in page.splitlines() if line.startswith("# HELP")}
    assert made == set(NAMES) - {"cdc_unit_restarts_total"}


def test_a_commit_is_counted(metrics: Metrics) -> None:
    found = samples(used(metrics).page())
    assert found["cdc_rows_total"] == 1000
    assert found["cdc_batch_rows_sum"] == 1000
    assert found["cdc_commit_seconds_count"] == 1
    assert found["cdc_resident_bytes"] > 10_000_000


def test_only_the_present_state_is_shown(metrics: Metrics) -> None:
    metrics.state("starting")
    metrics.state("streaming")
    assert 'state="streaming"' in metrics.page().decode()
    assert 'state="starting"' not in metrics.page().decode()


def test_the_endpoint_serves_metrics_and_probes(url: str, health: Health) -> None:
    with httpx.Client(base_url=url) as client:
        assert "cdc_rows_total" in client.get("/metrics").text
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        health.beat(ready=True, reason="streaming")
        assert client.get("/readyz").text == "streaming\n"
        health.beaten = time.monotonic() - 1000
        assert client.get("/healthz").status_code == 503
        assert client.get("/nothing").status_code == 404


def test_a_taken_port_is_named_with_the_remedy() -> None:
    with listening_socket("127.0.0.1", 0) as taken:
        with pytest.raises(ConfigError) as caught:
            listening_socket("127.0.0.1", taken.getsockname()[1])
        assert "metrics.port" in caught.value.hint


def test_the_pages_of_several_workers_merge_into_one() -> None:
    pages = [Metrics("shop", unit).page() for unit in ("source/a", "sink/b")]
    merged = merge_pages(pages)
    families = list(text_string_to_metric_families(merged.decode()))
    rows = next(family for family in families if family.name == "cdc_rows")
    assert [sample.labels["unit"] for sample in rows.samples] == ["source/a", "sink/b"]
    assert merged.decode().count("# TYPE cdc_rows_total") == 1


def test_the_back_off_grows_to_a_bound_with_jitter() -> None:
    assert back_off(0) < 1
    assert back_off(100) == LONGEST_S
    assert len({back_off(3) for _ in range(20)}) > 1


def test_a_call_is_repeated_until_it_answers_and_each_failure_is_told() -> None:
    answers = iter([KafkaUnavailable("one"), KafkaUnavailable("two"), "up"])
    told: list[str] = []

    def call() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    found = until_it_answers(call, lambda: False, lambda error: told.append(str(error)))
    assert (found, told) == ("up", ["one", "two"])
    assert until_it_answers(call, lambda: True, lambda _: None) is None


def test_an_error_that_waiting_does_not_mend_passes_at_once() -> None:
    def call() -> None:
        raise ConfigError("wrong password")

    with pytest.raises(ConfigError):
        until_it_answers(call, lambda: False, lambda _: None)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at postgresql://app:hun@ter2@db:5432/x now", "at postgresql://app:***@db:5432/x now"),
        ("host=db password=hunter2 user=app", "host=db password=*** user=app"),
        ("http://registry:8081/subjects", "http://registry:8081/subjects"),
        ("kafka at 127.0.0.1:9092", "kafka at 127.0.0.1:9092"),
    ],
)
def test_passwords_are_masked_in_any_text(text: str, shown: str) -> None:
    assert logs.redact(text) == shown


def test_json_logs_carry_the_unit_and_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info", unit="source/shopdb")
    log = structlog.get_logger("x")
    log.debug("unseen")
    log.warning("lost postgres://u:hunter2@h/x", error=ValueError("pw postgres://u:hunter2@h/x"))
    try:
        json.loads("postgres://u:hunter2@h/x")
    except ValueError:
        log.exception("failed")
    first, second = capsys.readouterr().err.splitlines()
    assert json.loads(first)["unit"] == "source/shopdb"
    assert "Traceback" in json.loads(second)["exception"]
    assert "hunter2" not in first + second
    structlog.reset_defaults()


def test_rows_that_broke_a_rule_are_counted_by_table_and_rule(metrics: Metrics) -> None:
    for table, rule, rows in (("a.b", "age.range", 2), ("a.b", "mail", 1), ("a.b", "mail", 3)):
        metrics.invalid(table, rule, rows)
    families = text_string_to_metric_families(metrics.page().decode())
    counted = {
        (sample.labels["table"], sample.labels["rule"]): sample.value
        for family in families
        for sample in family.samples
        if sample.name == "cdc_invalid_rows_total"
    }
    assert counted == {("a.b", "age.range"): 2, ("a.b", "mail"): 4}
