"""What the answers of an HTTP endpoint mean, and how it knows us; no Kafka is asked."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cdc.config import parse_pipeline
from cdc.connector import Context
from cdc.errors import ConfigError, PreflightFailed, TargetUnavailable
from cdc.kafka import KafkaConfig
from fix_http import Bench, Receiver
from fix_tls import Authority
from schemas.change import ABSENT, Stamp
from sinks.http.circuit import Circuit
from sinks.http.endpoint import retry_after
from sinks.target import RowsRefused
from sinks.targets import http
from sinks.targets.http import Config
from sinks.testing import PLACE, span
from sinks.testing_changes import changed

URL = "http://127.0.0.1:1/api"
PAGE = Path("sinks/targets/http.md")


Make = Callable[..., Bench]
PEN = changed(1, b"7", b"pen", b"1.50")


# What an answer means


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
def test_a_refused_request_names_its_change_and_says_why(
    bench: Make, receiver: Receiver, status: int
) -> None:
    receiver.faults.append((status, {}, b"name:\n\ttoo \x00long" + b"." * 5000))
    with pytest.raises(RowsRefused, match="name: too long") as caught:
        bench().send(PEN)
    assert f"PUT /{{$table}}/{{$key}}: {status}" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "fault", [(500, {}, b"down"), (503, {}, b""), (429, {}, b""), (408, {}, b""), "cut", "slow"]
)
def test_a_request_that_may_do_better_later_is_sent_again(
    bench: Make, receiver: Receiver, fault: Any
) -> None:
    receiver.faults.append(fault)
    one = bench(timeout=0.3)
    with pytest.raises(TargetUnavailable, match="PUT"):
        one.send(PEN)
    with pytest.raises(TargetUnavailable, match="PUT"):
        one.circuit.check()
    assert len(receiver.asked) == 1


def test_requests_under_way_that_nobody_answers_end_by_their_timeout(
    bench: Make, receiver: Receiver
) -> None:
    receiver.faults.extend(["slow"] * 4)
    started = time.monotonic()
    with pytest.raises(TargetUnavailable, match="PUT"):
        bench(timeout=0.5, concurrency=4).send(
            *(changed(n, b"%d" % n, b"x", None) for n in range(9))
        )
    assert time.monotonic() - started < 10
    assert len(receiver.asked) == 4


@pytest.mark.parametrize("status", [301, 302, 401, 403, 405, 501])
def test_an_answer_that_every_request_would_get_stops_the_sink(
    bench: Make, receiver: Receiver, status: int
) -> None:
    receiver.faults.append((status, {"Location": "https://else.example/"}, b""))
    with pytest.raises((ConfigError, PreflightFailed), match=str(status)) as caught:
        bench().send(PEN)
    assert caught.value.hint


def test_what_was_deleted_before_is_deleted(bench: Make, receiver: Receiver) -> None:
    for status in (404, 410):
        receiver.faults.append((status, {}, b""))
    bench().send(*(changed(n, b"7", ABSENT, ABSENT, op="d") for n in range(2)))
    assert len(receiver.asked) == 2


def test_a_pause_the_endpoint_asks_for_is_kept(bench: Make, receiver: Receiver) -> None:
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=200), usegmt=True)
    for wanted, low, high in (("120", 118, 120), (then, 190, 200)):
        receiver.faults.append((429, {"Retry-After": wanted}, b""))
        one = bench()
        with pytest.raises(TargetUnavailable) as caught:
            one.send(PEN)
        seconds = int(caught.value.hint.split(" s;")[0].split()[-1])
        assert low <= seconds <= high
        with pytest.raises(TargetUnavailable, match="429"):
            one.send(PEN)
    assert len(receiver.asked) == 2


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, 0), ("", 0), ("7", 7), ("soon", 0), ("-3", 0), ("Fri, 31 Dec 1999 23:59:59 GMT", 0)],
)
def test_a_retry_after_that_says_nothing_asks_for_nothing(
    value: str | None, seconds: float
) -> None:
    assert retry_after(value) == seconds


def test_the_circuit_opens_for_longer_with_each_failure_and_closes_with_an_answer() -> None:
    circuit = Circuit()

    def pause(wanted: float = 0.0) -> float:
        circuit._until = 0.0  # the pause before is over
        error = circuit.failed(circuit.check(), "down", wanted)
        with pytest.raises(TargetUnavailable):
            circuit.check()
        assert ("times" in str(error)) == (circuit._failures > 1)
        return circuit._until - time.monotonic()

    first, *_, last = [pause() for _ in range(10)]
    assert first < 1 < last
    assert 3500 < pause(1e9) <= 3600
    circuit._until = 0.0
    circuit.succeeded(circuit.check())
    assert pause() < 1


def test_requests_that_fail_together_are_one_failure_and_the_longest_pause_counts() -> None:
    circuit = Circuit()
    first, second, third, last = (circuit.check() for _ in range(4))
    assert "times" not in str(circuit.failed(first, "down"))
    assert "times" not in str(circuit.failed(second, "busy", 90.0))
    assert "times" not in str(circuit.failed(third, "down"))
    circuit.succeeded(last)  # sent before it opened
    assert circuit.is_on_trial
    with pytest.raises(TargetUnavailable, match="busy") as caught:
        circuit.check()
    assert "90 s" in caught.value.hint
    circuit._until = 0.0
    circuit.succeeded(circuit.check())
    assert not circuit.is_on_trial


def test_what_was_sent_before_an_outage_is_known(bench: Make, receiver: Receiver) -> None:
    one = bench()
    one.delivery.begin([span(None, 9)])
    receiver.faults.extend([(200, {}, b""), (200, {}, b""), (503, {}, b"")])
    with pytest.raises(TargetUnavailable):
        one.send(*(changed(n, b"7", b"pen", None) for n in range(4)))
    [moved] = one.delivery.progress()
    assert (moved.partition, moved.start, moved.end.offset) == (PLACE, None, 2)
    assert moved.end.stamp == Stamp(1, 100, 1)


# Who we are


SECRET = "s3cret-value"


@pytest.mark.parametrize(
    ("auth", "name", "value"),
    [
        ({"key": SECRET}, "X-API-Key", SECRET),
        ({"key": SECRET, "header": "Api"}, "Api", SECRET),
        ({"bearer": SECRET}, "Authorization", f"Bearer {SECRET}"),
        (
            {"username": "u", "password": SECRET},
            "Authorization",
            f"Basic {base64.b64encode(f'u:{SECRET}'.encode()).decode()}",
        ),
    ],
)
def test_every_request_says_who_we_are_and_no_error_does(
    bench: Make, receiver: Receiver, auth: dict[str, str], name: str, value: str
) -> None:
    receiver.faults.append((422, {}, f"bad: {SECRET}".encode()))
    one = bench(auth=auth)
    with pytest.raises(RowsRefused) as caught:
        one.send(PEN)
    assert receiver.asked[0].headers[name] == value
    assert SECRET not in f"{caught.value} {one.config!r} {one.config.auth}"
    assert "bad: ***" in str(caught.value)


def oauth(receiver: Receiver) -> dict[str, str]:
    url = f"{receiver.url}/token"
    return {"token_url": url, "client_id": "me", "client_secret": SECRET, "scope": "write"}


def test_a_token_is_asked_for_once_and_again_when_it_is_refused(
    bench: Make, receiver: Receiver
) -> None:
    one = bench(auth=oauth(receiver))
    one.send(PEN, changed(2, b"7", b"cup", None))
    token, first, second = receiver.asked
    assert token.body == "grant_type=client_credentials&scope=write"
    assert token.headers["Authorization"].startswith("Basic ")
    assert (
        first.headers["Authorization"] == second.headers["Authorization"] == "Bearer secret-token"
    )
    receiver.faults.append((401, {}, b""))
    one.send(changed(3, b"7", b"jar", None))
    assert [asked.path for asked in receiver.asked[3:]] == [
        "/api/items/7",
        "/api/token",
        "/api/items/7",
    ]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((400, {}, b'{"error": "invalid_client"}'), ConfigError),
        ((200, {}, b"no json"), ConfigError),
        ((503, {}, b""), TargetUnavailable),
    ],
)
def test_a_token_that_is_not_given_is_named(
    bench: Make, receiver: Receiver, answer: Any, error: type[Exception]
) -> None:
    receiver.faults.append(answer)
    with pytest.raises(error, match="token endpoint") as caught:
        bench(auth=oauth(receiver)).send(PEN)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"auth": {}},
        {"auth": {"key": "a", "bearer": "b"}},
        {"auth": {"username": "u"}},
        {"auth": {"token_url": "https://x/t", "client_id": "me"}},
        {"url": "https://user:pass@x/"},
        {"tables": {"s.*": {"mode": "append"}}},
        {"tables": {"s.*": {"soft_delete": "gone"}}},
        {"tables": {"s.*": {"key": ["id"]}}},
        {"batch_path": "/{id}"},
    ],
)
def test_options_that_mean_nothing_together_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate({"url": URL, "tables": ["s.*"], **wrong})


# The line


def test_a_certificate_is_verified_by_the_authority_that_is_named(
    bench: Make, authority: Authority
) -> None:
    host = "127.0.0.1"
    receiver = Receiver(authority.identity("endpoint", (host,)))
    try:
        with pytest.raises(TargetUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            bench(url=receiver.url).send(PEN)
        bench(url=receiver.url, ca=authority.ca).send(PEN)
    finally:
        receiver.close()
    assert [asked.method for asked in receiver.asked] == ["PUT"]


def test_an_authority_that_cannot_be_read_is_named(bench: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no PEM file"):
        bench(ca=tmp_path / "missing.pem")


def test_a_check_says_whether_the_endpoint_answers_and_knows_us(receiver: Receiver) -> None:
    kafka = KafkaConfig.model_validate({"bootstrap": "127.0.0.1:1", "registry": "http://r"})
    context = Context("shop", "crm", kafka)

    def levels(url: str, **options: Any) -> list[str]:
        config = Config.model_validate({"url": url, "tables": ["s.*"], **options})
        return [finding.level for finding in http.check(context, config)]

    assert levels(receiver.url) == ["ok", "ok"]
    receiver.faults.append((401, {}, b""))
    assert levels(receiver.url, auth={"key": SECRET}) == ["fail", "ok"]
    receiver.close()
    assert levels(receiver.url) == ["fail", "ok"]
    assert levels("http://127.0.0.2:1/", auth={"key": SECRET}) == ["warn", "fail", "ok"]
    assert [asked.method for asked in receiver.asked] == ["HEAD", "HEAD"]


def test_the_pipeline_on_the_page_is_valid() -> None:
    found = re.search(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    pipeline = parse_pipeline(found[1], Path("http.md"), {"CRM_KEY": SECRET})
    unit = pipeline.sinks["crm"]
    assert isinstance(unit.config, Config)
    assert unit.context.kafka == pipeline.kafka
