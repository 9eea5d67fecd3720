"""The pipeline file: what it accepts, and how it says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc.config import InvalidPipeline, Pipeline, load_outline, load_pipeline, parse_pipeline
from cdc.errors import ConfigError

ISSUE_EXAMPLE = """\
pipeline: shop
kafka: {bootstrap: "127.0.0.1:9092", registry: "http://127.0.0.1:8081"}
sources:
  shopdb: {type: acme, url: "${SHOPDB_URL}", tables: ["public.*", "!public.audit_*"]}
sinks:
  crm:
    type: acme
    url: ${CRM_URL}
    tables:
      shopdb.public.customers:
        to: crm.clients
        fields: {client_id: id, name: full_name, signed_up: {from: created_at, as: date}}
"""
ENVIRONMENT = {"SHOPDB_URL": "acme://app:hunter22@db/shop", "CRM_URL": "acme://crm/x"}

MODULE = '''"""A connector of someone else's."""
from pydantic import BaseModel, ConfigDict, Field, SecretStr

class Mapping(BaseModel):
    model_config = ConfigDict(extra="forbid")
    to: str | None = None
    fields: dict[str, str | dict[str, str]] = Field(default_factory=dict)

class Config(BaseModel):
    """Options."""
    model_config = ConfigDict(extra="forbid")
    type: str
    url: SecretStr = Field(description="Where it is")
    tables: list[str] | dict[str, Mapping | None] = Field(default_factory=list)
    workers: int = Field(default=1, ge=1, description="How many")

def create(context, config): ...
def check(context, config): yield from ()
'''


@pytest.fixture(autouse=True)
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution with one module that is a source and a target, found by entry point."""
    (tmp_path / "acme_cdc.py").write_text(MODULE)
    (tmp_path / "acme_cdc.md").write_text("# Acme, in all its glory\n")
    info = tmp_path / "acme_cdc-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-cdc\nVersion: 1.0\n")
    groups = "[cdc.sources]\nacme = acme_cdc\n\n[sinks.targets]\nacme = acme_cdc\n"
    (info / "entry_points.txt").write_text(groups)
    monkeypatch.syspath_prepend(tmp_path)


def parsed(text: str, environment: dict[str, str] | None = None) -> Pipeline:
    given = ENVIRONMENT if environment is None else environment
    return parse_pipeline(text, Path("tailrace.yaml"), given)


def problems(text: str, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(InvalidPipeline) as caught:
        parsed(text, environment)
    return str(caught.value).splitlines()


def changed(old: str, new: str) -> str:
    assert old in ISSUE_EXAMPLE
    return ISSUE_EXAMPLE.replace(old, new)


def test_the_example_of_the_readme_is_valid() -> None:
    pipeline = parsed(ISSUE_EXAMPLE)
    assert pipeline.name == "shop"
    assert list(pipeline.units()) == ["source/shopdb", "sink/crm"]
    assert pipeline.kafka.registry.url == "http://127.0.0.1:8081"
    assert pipeline.unit("crm").connector.summary() == "Acme, in all its glory"


def test_an_unknown_top_level_key_is_named_with_its_line_and_the_nearest_key() -> None:
    assert problems(changed("sinks:", "sinkz:")) == [
        "tailrace.yaml:5: sinkz: unknown key `sinkz` (did you mean `sinks`?)"
    ]


def test_an_unknown_connector_option_is_named_with_the_nearest_option() -> None:
    assert problems(changed("    url: ${CRM_URL}", "    url: ${CRM_URL}\n    wokers: 2")) == [
        "tailrace.yaml:9: sinks.crm.wokers: unknown key `wokers` (did you mean `workers`?)"
    ]


def test_an_unknown_key_inside_a_union_of_blocks_is_found() -> None:
    assert problems(changed("to: crm.clients", "too: crm.clients")) == [
        (
            "tailrace.yaml:11: sinks.crm.tables.shopdb.public.customers.too: unknown key `too` "
            "(did you mean `to`?)"
        )
    ]


def test_an_unknown_type_names_the_nearest_connector() -> None:
    assert problems(changed("{type: acme,", "{type: acmee,")) == [
        (
            "tailrace.yaml:4: sources.shopdb.type: no source type is called `acmee` "
            "(did you mean `acme`?)"
        )
    ]


def test_every_mistake_is_reported_at_once_in_the_order_of_lines() -> None:
    text = (
        changed("sinks:", "sinkz: {}\nsinks:")
        .replace("pipeline: shop", "pipeline: my shop")
        .replace("    url: ${CRM_URL}\n", "    workers: 0\n")
    )
    lines = problems(text)
    assert [line.split(": ")[0] for line in lines] == [
        "tailrace.yaml:1",
        "tailrace.yaml:5",
        "tailrace.yaml:7",
        "tailrace.yaml:9",
    ]
    assert "letters, digits" in lines[0]
    assert lines[2].endswith("sinks.crm: `url` is missing")
    assert "greater than or equal to 1" in lines[3]


def test_an_unset_variable_is_reported_once_with_its_remedy() -> None:
    assert problems(ISSUE_EXAMPLE, {"CRM_URL": "x"}) == [
        (
            "tailrace.yaml:4: sources.shopdb.url: environment variable SHOPDB_URL is not set "
            "(export SHOPDB_URL=…, or give a default: ${SHOPDB_URL:-…})"
        )
    ]


def test_looking_at_a_pipeline_needs_no_secret_of_its_units(tmp_path: Path) -> None:
    path = tmp_path / "tailrace.yaml"
    path.write_text(ISSUE_EXAMPLE)
    assert list(load_outline(path, {}).units()) == ["source/shopdb", "sink/crm"]
    path.write_text(ISSUE_EXAMPLE.replace("127.0.0.1:9092", "${BROKERS}"))
    with pytest.raises(InvalidPipeline, match="BROKERS is not set"):
        load_outline(path, {})


def test_a_default_stands_in_for_an_unset_variable() -> None:
    text = changed("pipeline: shop", "pipeline: ${NAME:-spare}")
    assert parsed(text).name == "spare"
    assert parsed(text, {**ENVIRONMENT, "NAME": "given"}).name == "given"


def test_a_doubled_dollar_is_a_plain_one() -> None:
    pipeline = parsed(changed('"public.*"', '"$${x}"'))
    assert pipeline.sources["shopdb"].config.tables[0] == "${x}"


def test_a_file_secret_is_read_without_its_last_newline(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("acme://from-file\n")
    pipeline = parsed(changed("${CRM_URL}", f"${{file:{secret}}}"))
    assert pipeline.sinks["crm"].config.url.get_secret_value() == "acme://from-file"


def test_a_missing_file_secret_is_named() -> None:
    [line] = problems(changed("${CRM_URL}", "${file:/nowhere/x}"))
    assert "sinks.crm.url: secret file /nowhere/x: No such file or directory" in line


def test_a_value_cannot_change_the_structure() -> None:
    injected = {**ENVIRONMENT, "CRM_URL": "x\n    workers: 7"}
    assert parsed(ISSUE_EXAMPLE, injected).sinks["crm"].config.workers == 1


def test_no_secret_appears_in_an_error_or_a_representation() -> None:
    text = changed('tables: ["public.*", "!public.audit_*"]', 'workers: "${SHOPDB_URL}"')
    [line] = problems(text)
    assert "hunter22" not in line
    assert "hunter22" not in repr(parsed(ISSUE_EXAMPLE))


def test_a_key_given_twice_is_refused() -> None:
    [line] = problems(changed("pipeline: shop\n", "pipeline: shop\npipeline: shop2\n"))
    assert line == "tailrace.yaml:2: pipeline: this key is there twice (keep one of them)"


def test_broken_yaml_names_the_line() -> None:
    [line] = problems("pipeline: shop\nkafka: {bootstrap\n")
    assert line.startswith("tailrace.yaml:")
    [line] = problems("pipeline: shop\nkafka:\n\tbootstrap: x\n")
    assert line.startswith("tailrace.yaml:3: ")
    assert "not tabs" in line


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "sources: 4\n", "sinks: {a: 3}"])
def test_any_other_shape_is_a_problem_and_no_crash(text: str) -> None:
    assert problems(text)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_pipeline(tmp_path / "none.yaml")
    assert "No such file" in str(caught.value)
    assert "cdc init" in caught.value.hint


def test_an_ambiguous_or_unknown_unit_is_refused() -> None:
    pipeline = parsed(ISSUE_EXAMPLE.replace("  crm:", "  shopdb:"))
    with pytest.raises(ConfigError, match="ambiguous"):
        pipeline.unit("shopdb")
    with pytest.raises(ConfigError) as caught:
        pipeline.unit("source/shopbd")
    assert "source/shopdb" in caught.value.hint


def test_anchors_and_merge_keys_work() -> None:
    text = (
        "pipeline: p\nkafka: {bootstrap: b, registry: http://r}\nsinks:\n"
        "  a: &base {type: acme, url: x, workers: 3}\n  b: {<<: *base, url: y}\n"
    )
    sinks = parsed(text).sinks
    assert sinks["b"].config.workers == 3
    assert sinks["b"].config.url.get_secret_value() == "y"
