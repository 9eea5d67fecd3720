"""Column rules by themselves; what reaches Kafka is tested with the publisher."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from cdc.columns import ColumnRule, project
from cdc.errors import ConfigError
from schemas.table import Column, TableId, TableSchema, Type

TABLE = TableSchema(
    TableId("public", "people"),
    tuple(Column(name, Type("string")) for name in ("id", "name", "email", "born")),
    ("id",),
)


def test_the_first_glob_that_matches_decides() -> None:
    rules = {
        "public.people.id": ColumnRule(keep=True),
        "public.people.name": ColumnRule(keep=True),
        "public.people.*": ColumnRule(drop=True),
    }
    published, masks = project(TABLE, rules)
    assert [column.name for column in published.columns] == ["id", "name"]
    assert masks == {}


def test_hashing_keeps_keys_apart_and_depends_on_the_secret() -> None:
    masks = [
        project(TABLE, {"*.id": ColumnRule.model_validate({"hash": secret})})[1]["id"]
        for secret in ("a", "b")
    ]
    assert len({mask(value) for mask in masks for value in (b"1", b"2")}) == 4


@pytest.mark.parametrize("options", [{}, {"drop": True, "mask": "x"}, {"truncate": -1}])
def test_a_rule_does_exactly_one_thing(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ColumnRule.model_validate(options)


def test_a_mask_may_not_make_all_keys_one() -> None:
    with pytest.raises(ConfigError, match=r"public\.people\.id"):
        project(TABLE, {"public.people.*": ColumnRule(mask="x")})
