"""Names of subjects by strategy."""

from __future__ import annotations

import pytest

from schemas.subjects import Strategy, subject

SCHEMA = {"type": "record", "name": "Envelope", "namespace": "shop.public.orders", "fields": []}


@pytest.mark.parametrize(
    ("strategy", "key", "name"),
    [
        (Strategy.TOPIC, False, "shop.public.orders-value"),
        (Strategy.TOPIC, True, "shop.public.orders-key"),
        (Strategy.RECORD, False, "shop.public.orders.Envelope"),
        (Strategy.TOPIC_RECORD, True, "shop.public.orders-shop.public.orders.Envelope"),
    ],
)
def test_a_subject_is_named_by_its_strategy(strategy: Strategy, *, key: bool, name: str) -> None:
    assert subject(strategy, "shop.public.orders", SCHEMA, key=key) == name


def test_a_record_without_namespace_is_its_name() -> None:
    assert subject(Strategy.RECORD, "t", {"type": "record", "name": "Value"}) == "Value"
