"""The `cdc` command inside this process: fast, and with what it printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from cdc.cli import root


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Cdc = Callable[..., Ended]


@pytest.fixture
def cdc(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cdc:
    monkeypatch.setenv("CDC_CONFIG", "tailrace.yaml")
    monkeypatch.setenv("CDC_DEBUG", "")

    def run(*arguments: str) -> Ended:
        capfd.readouterr()
        code = root._run(list(arguments))
        out, err = capfd.readouterr()
        return Ended(code, out, err)

    return run
