"""The manifests: one image, one worker each, restricted, probed where the workers answer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cdc.config import load_pipeline
from fix_docker import COMPOSE, DOCKER, pipeline_at

FOLDER = DOCKER / "kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
MANIFESTS: list[dict[str, Any]] = [
    manifest
    for name in KUSTOMIZATION["resources"]
    for manifest in yaml.safe_load_all((FOLDER / name).read_text())
]
WORKERS = {m["metadata"]["name"]: m["spec"] for m in MANIFESTS if m["kind"] == "Deployment"}


def page() -> str:
    return (DOCKER / "README.md").read_text()


def pod(name: str) -> dict[str, Any]:
    found: dict[str, Any] = WORKERS[name]["template"]["spec"]
    return found


def container(name: str) -> dict[str, Any]:
    [found] = pod(name)["containers"]
    return dict(found)


def test_every_file_is_listed_and_says_what_it_is() -> None:
    listed = {*KUSTOMIZATION["resources"], "pipeline.yaml", "kustomization.yaml"}
    assert listed == {path.name for path in FOLDER.iterdir()}
    assert all(m["apiVersion"] and m["metadata"]["name"] for m in MANIFESTS)


def test_the_image_is_the_one_compose_builds() -> None:
    built = {s["image"] for s in COMPOSE["services"].values() if "build" in s}
    assert {container(name)["image"] for name in WORKERS} == built


def test_the_pipeline_is_valid_and_has_a_deployment_for_every_unit(tmp_path: Path) -> None:
    pipeline = load_pipeline(pipeline_at(FOLDER / "pipeline.yaml", tmp_path), {})
    assert set(pipeline.units()) == {"/".join(container(name)["args"]) for name in WORKERS}
    assert pipeline.kafka.client["security.protocol"].get_secret_value() == "SASL_SSL"


def test_the_secret_that_is_read_is_the_one_the_page_makes() -> None:
    read = re.findall(r"/run/secrets/tailrace/([\w.]+)", (FOLDER / "pipeline.yaml").read_text())
    assert set(read) == set(re.findall(r"--from-file=([\w.]+)", page()))


@pytest.mark.parametrize("name", WORKERS)
def test_a_pod_has_the_secrets_of_its_own_unit_alone(name: str) -> None:
    [mounted] = [v["projected"] for v in pod(name)["volumes"] if v["name"] == "secrets"]
    held = [source["secret"]["name"] for source in mounted["sources"]]
    text = (FOLDER / "pipeline.yaml").read_text()
    made = dict(re.findall(r"generic (tailrace-\w+) --from-file=(\w+)", page()))
    assert held[0] == "tailrace"
    assert len(held) == 2
    block = text[text.index(f"  {container(name)['args'][1]}:") :]
    assert re.findall(r"tailrace/(\w+)\}", block)[0] == made[held[1]]


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_has_one_pod_at_a_time(name: str) -> None:
    assert WORKERS[name]["replicas"] == 1
    assert WORKERS[name]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize("name", WORKERS)
def test_a_pod_passes_the_restricted_standard(name: str) -> None:
    outside, inside = pod(name)["securityContext"], container(name)["securityContext"]
    assert outside["runAsNonRoot"]
    assert outside["seccompProfile"] == {"type": "RuntimeDefault"}
    assert f"USER {outside['runAsUser']}:" in (DOCKER / "Dockerfile").read_text()
    assert inside == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(name)["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", WORKERS)
def test_a_pod_is_probed_where_the_worker_answers(name: str, tmp_path: Path) -> None:
    pipeline = load_pipeline(pipeline_at(FOLDER / "pipeline.yaml", tmp_path), {})
    [port] = container(name)["ports"]
    assert port["containerPort"] == pipeline.metrics.port
    probes = {kind: container(name)[f"{kind}Probe"]["httpGet"] for kind in ("liveness", "startup")}
    assert all(asked == {"path": "/healthz", "port": port["name"]} for asked in probes.values())
    ready = container(name)["readinessProbe"]["httpGet"]
    assert ready == {"path": "/readyz", "port": port["name"]}


@pytest.mark.parametrize("name", WORKERS)
def test_every_mount_has_its_volume_and_the_one_that_is_written_is_there(name: str) -> None:
    volumes = {volume["name"] for volume in pod(name)["volumes"]}
    mounts = {mount["name"]: mount for mount in container(name)["volumeMounts"]}
    assert set(mounts) == volumes
    assert mounts["spill"]["mountPath"] == "/var/lib/tailrace"
    assert {m for m, mount in mounts.items() if not mount.get("readOnly")} == {"spill", "tmp"}
