"""HTTP keeps the contract of a target of single changes, against a real server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fix_http import Endpoint
from sinks.testing_changes import ChangesContract


class TestHttp(ChangesContract):
    """The suite, with a request for each change."""

    @pytest.fixture
    def system(self, make_endpoint: Callable[..., Endpoint]) -> Endpoint:
        return make_endpoint()


class TestHttpAtOnce(ChangesContract):
    """The suite, with requests of several rows under way at once."""

    @pytest.fixture
    def system(self, make_endpoint: Callable[..., Endpoint]) -> Endpoint:
        return make_endpoint(concurrency=8)
