"""Dashboard and alerts ask only for metrics that workers have, by labels they carry."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from cdc.metrics import NAMES, Metrics
from fix_docker import DOCKER

DASHBOARD: dict[str, Any] = json.loads((DOCKER / "grafana/dashboards/tailrace.json").read_text())
ALERTS = yaml.safe_load((DOCKER / "prometheus" / "alerts.yml").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
RULES = [rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]]
VARIABLES = [variable["query"]["query"] for variable in DASHBOARD["templating"]["list"]]
LABELS = {"pipeline", "unit", "error", "state", "table", "rule", "le"}


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\bcdc_\w+", expression))


def samples() -> set[str]:
    """The names a worker's page really has, histograms by their parts."""
    made = Metrics("shop", "source/shopdb")
    made.committed(1, 1, 1.0)
    made.latency_seconds.observe(1)
    made.state("running")
    for name in ("cdc_lag_bytes", "cdc_lag_rows", "cdc_lag_seconds", "cdc_slot_retained_bytes"):
        made.show(name, 1.0)
    made.retried(ValueError())
    made.invalid("public.items", "email", 1)
    made.snapshots({"public.items": (1, 2)})
    return set(re.findall(r"^(cdc_\w+)\{", made.page().decode(), re.MULTILINE))


@pytest.mark.parametrize("expression", [*QUERIES, *RULES, *VARIABLES])
def test_a_query_names_metrics_that_exist(expression: str) -> None:
    named = metrics_in(expression)
    assert named
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in named} <= set(NAMES)
    assert named - samples() <= {"cdc_unit_restarts_total"}  # the supervisor's, not a worker's


def test_every_metric_is_shown() -> None:
    shown = {re.sub(r"_bucket$", "", name) for query in QUERIES for name in metrics_in(query)}
    assert set(NAMES) - shown == set()


def test_a_legend_uses_labels_that_exist() -> None:
    legends = [target["legendFormat"] for p in DASHBOARD["panels"] for target in p["targets"]]
    assert {label for legend in legends for label in re.findall(r"{{(\w+)}}", legend)} <= LABELS


def test_panels_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_the_data_source_is_the_one_that_is_provisioned() -> None:
    folder = DOCKER / "grafana" / "provisioning"
    [source] = yaml.safe_load((folder / "datasources/prometheus.yaml").read_text())["datasources"]
    used = {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]}
    assert used == {source["uid"]}
    [provider] = yaml.safe_load((folder / "dashboards/tailrace.yaml").read_text())["providers"]
    assert provider["options"]["path"] in (DOCKER / "compose.yaml").read_text()
