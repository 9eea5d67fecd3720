"""The containers stand in for the child processes: they offer what tests may use of them."""

from __future__ import annotations

import pytest

from cdc.local import LocalKafka, LocalPostgres, LocalRegistry
from containers import ContainerKafka, ContainerPostgres, ContainerRegistry


@pytest.fixture(autouse=True)
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Describing a container asks the engine for nothing, but the client looks for one."""
    monkeypatch.setattr("testcontainers.core.container.DockerClient", lambda **_options: None)


SERVER = ("running", "start", "stop", "kill", "pause", "resume", "restart")


@pytest.mark.parametrize(
    ("local", "contained", "names"),
    [
        (LocalKafka, ContainerKafka, ("bootstrap",)),
        (LocalRegistry, ContainerRegistry, ("url",)),
        (LocalPostgres, ContainerPostgres, ("url", "url_of", "create_database", "drop_database")),
    ],
    ids=["kafka", "registry", "postgres"],
)
def test_containers_offer_what_child_processes_offer(
    local: type, contained: type, names: tuple[str, ...]
) -> None:
    for kind in (local, contained):
        assert all(hasattr(kind, name) for name in (*names, "__enter__", "__exit__"))
        assert all(hasattr(kind().server, name) for name in SERVER)


def test_a_container_is_told_what_the_child_process_is_told() -> None:
    told = ContainerKafka().server._container.env
    assert told["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert told["KAFKA_TRANSACTION_STATE_LOG_MIN_ISR"] == "1"
    assert "-c wal_level=logical" in ContainerPostgres(14).server._container._command
