"""The real registry behind TLS and a login: who may come in works, who may not learns why."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from fix_tls import Authority
from fix_tls_registry import PASSWORD, TOKEN, USER, Guarded
from schemas.errors import CdcError, ConfigError, RegistryUnavailable
from schemas.registry import Registry, RegistryConfig

SCHEMA = {"type": "record", "name": "r", "fields": [{"name": "id", "type": "long"}]}
Connect = Callable[..., Registry]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Make registries from options; all are closed after the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Registry(RegistryConfig(**options)))


def options_for(asks: str, authority: Authority) -> dict[str, Any]:
    if asks == "basic":
        return {"username": USER, "password": PASSWORD}
    if asks == "bearer":
        return {"bearer": TOKEN}
    me = authority.identity("worker")
    return {"cert": me.cert, "key": me.key}


WRONG: dict[str, tuple[dict[str, Any], type[CdcError], str]] = {
    "basic": ({"username": USER, "password": "wrong"}, ConfigError, "denied access"),
    "bearer": ({"bearer": "wrong"}, ConfigError, "denied access"),
    "certificate": ({}, RegistryUnavailable, "certificate"),
}


@pytest.mark.parametrize("asks", WRONG)
def test_a_schema_is_registered_and_read_back_through_the_door(
    guarded_registry: Guarded, authority: Authority, connect: Connect, asks: str
) -> None:
    options = options_for(asks, authority)
    ours = connect(url=guarded_registry(asks), ca=authority.ca, **options)
    subject = f"guarded-{secrets.token_hex(4)}-value"
    number = ours.register(subject, SCHEMA)
    assert ours.latest(subject) == (number, SCHEMA)


@pytest.mark.parametrize("asks", WRONG)
def test_a_stranger_is_turned_away_by_name(
    guarded_registry: Guarded, authority: Authority, connect: Connect, asks: str
) -> None:
    options, kind, words = WRONG[asks]
    url = guarded_registry(asks)
    with pytest.raises(kind, match=words) as caught:
        connect(url=url, ca=authority.ca, **options).latest("anything")
    assert "wrong" not in str(caught.value)


def test_a_registry_whose_authority_nobody_named_is_not_believed(
    guarded_registry: Guarded, stranger: Authority, connect: Connect
) -> None:
    url = guarded_registry("basic")
    with pytest.raises(ConfigError, match="not trusted") as caught:
        connect(url=url, ca=stranger.ca, username=USER, password=PASSWORD).latest("anything")
    assert "kafka.registry.ca" in caught.value.hint
