"""A worker is given the secrets of its own unit, and what it says shows none of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc.config import parse_pipeline
from cdc.errors import ConfigError

FILE = """
pipeline: shop
kafka: {bootstrap: "127.0.0.1:9092", registry: "http://127.0.0.1:8081"}
sources:
  shopdb: {type: postgres, url: "postgresql://a:${SOURCE_PASSWORD}@db/shop"}
sinks:
  crm: {type: postgres, url: "postgresql://b:${CRM_PASSWORD}@db/crm", tables: ["shopdb.*"]}
"""
PATH = Path("pipeline.yaml")
OWN = {"SOURCE_PASSWORD": "only-mine"}


def test_a_worker_needs_no_secret_of_another_unit() -> None:
    made = parse_pipeline(FILE, PATH, OWN, "source/shopdb")
    assert set(made.units()) == {"source/shopdb"}


def test_a_worker_that_lacks_its_own_secret_is_told_where_it_belongs() -> None:
    with pytest.raises(ConfigError, match="SOURCE_PASSWORD"):
        parse_pipeline(FILE, PATH, {"CRM_PASSWORD": "x"}, "source/shopdb")


def test_the_whole_pipeline_needs_every_secret() -> None:
    with pytest.raises(ConfigError, match="CRM_PASSWORD"):
        parse_pipeline(FILE, PATH, OWN)


def test_a_mistake_outside_the_units_is_still_told_to_a_worker() -> None:
    wrong = FILE.replace("bootstrap:", "bootstrop:")
    with pytest.raises(ConfigError, match="bootstrap"):
        parse_pipeline(wrong, PATH, OWN, "source/shopdb")


def test_no_error_shows_a_secret() -> None:
    wrong = FILE.replace("type: postgres, url", "type: postgres, ulr")
    with pytest.raises(ConfigError) as caught:
        parse_pipeline(wrong, PATH, OWN, "source/shopdb")
    assert "only-mine" not in f"{caught.value} {caught.value.hint}"
