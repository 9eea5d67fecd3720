"""What a person sees when a login is wrong: one clear error, its remedy, an exit code, soon."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from fix_tls import Authority, SecureKafka

CDC = Path(sys.executable).with_name("cdc")
WRONG_FILE = 2
CHECK_FAILED = 3
SECONDS = 20.0
Write = Callable[[dict[str, str]], Path]


@pytest.fixture
def write(secure_kafka: SecureKafka, tmp_path: Path) -> Write:
    """Write a pipeline file with a `kafka.client` block; its databases and registry are away."""

    def written(client: dict[str, str]) -> Path:
        url = "postgresql://nobody:secret-of-db@127.0.0.1:1/shop"
        made = {
            "pipeline": "refused",
            "kafka": {
                "bootstrap": secure_kafka.broker.address("SECURE"),
                "registry": "http://127.0.0.1:1",
                "client": client,
            },
            "sources": {"shopdb": {"type": "postgres", "url": url}},
            "sinks": {"crm": {"type": "postgres", "url": url, "tables": ["shopdb.*"]}},
            "metrics": {"port": None},
        }
        path = tmp_path / "tailrace.yaml"
        path.write_text(yaml.safe_dump(made))
        return path

    return written


def run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    started = time.monotonic()
    argv = [str(CDC), "-c", str(path), *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert time.monotonic() - started < SECONDS
    return done


@pytest.mark.parametrize(
    "command",
    ["run", "source shopdb", "sink crm", "status", "pause crm", "tail shopdb.public.customers"],
)
def test_a_wrong_kafka_password_ends_a_command(
    secure_kafka: SecureKafka, write: Write, command: str
) -> None:
    secure_kafka.add_user("anyone")
    done = run(write(secure_kafka.login("anyone", "wrong-secret")), *command.split())
    said = done.stdout + done.stderr
    assert done.returncode == WRONG_FILE, said
    assert "Authentication failed" in said
    assert "sasl.password" in said
    assert "secret" not in said
    assert "Traceback" not in said


def test_an_authority_nobody_named_ends_a_worker(
    secure_kafka: SecureKafka, write: Write, stranger: Authority
) -> None:
    password = secure_kafka.add_user("anyone")
    client = secure_kafka.login("anyone", password) | {"ssl.ca.location": str(stranger.ca)}
    done = run(write(client), "source", "shopdb")
    assert done.returncode == WRONG_FILE
    assert "ssl.ca.location" in done.stdout + done.stderr


def test_a_check_names_the_wrong_password_beside_everything_else(
    secure_kafka: SecureKafka, write: Write
) -> None:
    done = run(write(secure_kafka.login("anyone", "wrong-secret")), "check")
    assert done.returncode == CHECK_FAILED, done.stdout + done.stderr
    assert "Authentication failed" in done.stdout
    assert "secret" not in done.stdout + done.stderr
