"""The Compose file: valid, pinned, closed, and true to what it mounts and runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml
from confluent_kafka.admin import AdminClient, ConfigResource

import containers
from cdc.brokers import high_watermark
from cdc.config import load_pipeline
from cdc.errors import ConfigError
from cdc.kafka import KafkaConfig
from cdc.local import LocalPostgres, LocalRegistry
from fix_docker import COMPOSE, DOCKER, check_schema, pipeline_at
from schemas.registry import RegistryConfig
from tree import ROOT

SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: s for name, s in SERVICES.items() if s["image"].startswith("tailrace:")}
WORKERS = {name: s for name, s in OURS.items() if "profiles" not in s}
SECRET = re.compile(r"password|secret|token", re.IGNORECASE)


def test_the_file_follows_the_compose_specification() -> None:
    check_schema("vendor.compose-spec", DOCKER / "compose.yaml")


def test_everything_the_issue_asks_for_is_there() -> None:
    images = {service["image"].partition(":")[0] for service in SERVICES.values()}
    assert {"apache/kafka", "apicurio/apicurio-registry", "postgres", "tailrace"} <= images
    assert {"prom/prometheus", "grafana/grafana"} <= images
    assert sorted(service["command"][0] for service in WORKERS.values()) == [
        "sink",
        "sink",
        "source",
    ]


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_pinned_to_an_exact_version(name: str) -> None:
    assert re.search(r":v?\d+\.\d+(\.\d+)?(-\w+)?(@sha256:\w+)?$", SERVICES[name]["image"])


def test_the_servers_are_of_the_versions_the_tests_run_on() -> None:
    assert SERVICES["kafka"]["image"] == containers.KAFKA_IMAGE
    assert SERVICES["registry"]["image"] == containers.REGISTRY_IMAGE
    assert SERVICES["shop"]["image"].startswith("postgres:18.")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_write_nothing_but_its_volumes(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_says_whether_it_is_well(name: str) -> None:
    if SERVICES[name].get("profiles"):
        return
    in_image = name in WORKERS and "HEALTHCHECK" in (DOCKER / "Dockerfile").read_text()
    assert in_image or "test" in SERVICES[name]["healthcheck"]


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_open_on_this_machine_alone(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert port.startswith("127.0.0.1:")


def test_no_password_stands_in_a_file_of_the_repository() -> None:
    for service in SERVICES.values():
        for variable, value in service.get("environment", {}).items():
            assert not SECRET.search(variable) or value.startswith("/run/secrets/")
    for secret in COMPOSE["secrets"].values():
        assert set(secret) == {"file"}
        assert Path(secret["file"]).parent == Path("secrets")
    assert (DOCKER / "secrets" / ".gitignore").read_text().split() == ["*", "!.gitignore"]


def test_every_volume_is_declared_and_every_mounted_file_exists() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            origin = volume.split(":")[0]
            assert (DOCKER / origin).exists() if "." in origin else origin in COMPOSE["volumes"]
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
        assert set(service.get("depends_on", [])) <= set(SERVICES)


def test_the_pipeline_of_the_workers_is_valid(tmp_path: Path) -> None:
    pipeline = load_pipeline(pipeline_at(DOCKER / "pipeline.yaml", tmp_path), {})
    units = set(pipeline.units())
    assert units == {"/".join(service["command"]) for service in WORKERS.values()}


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_runs_with_the_secrets_of_its_own_unit_alone(name: str, tmp_path: Path) -> None:
    written = pipeline_at(DOCKER / "pipeline.yaml", tmp_path)
    for secret in COMPOSE["secrets"]:
        if secret not in WORKERS[name]["secrets"]:
            (tmp_path / secret).unlink(missing_ok=True)
    unit = "/".join(WORKERS[name]["command"])
    assert set(load_pipeline(written, {}, only=unit).units()) == {unit}
    [own] = WORKERS[name]["secrets"]
    (tmp_path / own).unlink()
    with pytest.raises(ConfigError, match=own):
        load_pipeline(written, {}, only=unit)


@pytest.mark.parametrize("name", OURS)
def test_the_pipeline_file_is_where_the_image_looks_for_it(name: str) -> None:
    assert "./pipeline.yaml:/etc/tailrace/pipeline.yaml:ro" in OURS[name]["volumes"]


def test_the_operators_container_has_the_secrets_of_the_whole_pipeline() -> None:
    read = re.findall(r"file:/run/secrets/(\w+)", (DOCKER / "pipeline.yaml").read_text())
    assert set(read) == set(OURS["cdc"]["secrets"])


def test_prometheus_asks_every_worker() -> None:
    scraped = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())
    [job] = scraped["scrape_configs"]
    [targets] = job["static_configs"]
    assert sorted(targets["targets"]) == sorted(f"{name}:9464" for name in WORKERS)


def test_the_broker_knows_every_setting(kafka: Any) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    [found] = admin.describe_configs([ConfigResource("broker", "1")]).values()
    known = set(found.result(20))
    given = SERVICES["kafka"]["environment"]
    wanted = {name: variable_as_property(name) for name in given if name.startswith("KAFKA_")}
    del wanted["KAFKA_HEAP_OPTS"]
    assert {name for name, setting in wanted.items() if setting not in known} == set()


def variable_as_property(variable: str) -> str:
    return variable.removeprefix("KAFKA_").lower().replace("_", ".")


def test_the_registry_keeps_its_schemas_in_kafka(kafka: Any) -> None:
    given = SERVICES["registry"]["environment"]
    settings = {
        name.lower().replace("_", "."): value.replace("kafka:9092", kafka.bootstrap)
        for name, value in given.items()
        if name.startswith("APICURIO_")
    }
    schema = {"schema": '{"type": "string"}'}
    with LocalRegistry(settings=settings) as server:
        made = httpx.post(f"{server.url}/subjects/kept/versions", json=schema, trust_env=False)
    assert made.is_success, made.text
    block = KafkaConfig(bootstrap=kafka.bootstrap, registry=RegistryConfig(url="http://unused"))
    assert high_watermark(block, "kafkasql-journal", 0) > 0


def test_the_database_starts_with_its_settings() -> None:
    text = (DOCKER / "postgres" / "logical.conf").read_text()
    given = dict(re.findall(r"^(\w+) = '?([^'\n]+)'?$", text, re.MULTILINE))
    address = given.pop("listen_addresses")
    with LocalPostgres(18, settings=given) as server, psycopg.connect(server.url) as connection:
        shown = {name: connection.execute(f"show {name}").fetchone() for name in given}
    assert {name: row[0] for name, row in shown.items() if row} == given
    assert address == "*"


def test_the_commands_of_the_page_name_what_exists() -> None:
    page = (DOCKER / "README.md").read_text()
    named = set(re.findall(r"compose\.yaml (?:exec|run --rm) (\S+)", page))
    made = re.search(r"for name in ([\w ]+); do", page)
    assert named <= set(SERVICES)
    assert made is not None
    assert {f"{name}_password" for name in made[1].split()} == set(COMPOSE["secrets"])
    assert (ROOT / "docker" / "acls.md").exists()
