"""`cdc verify` of what a sink made in a real MySQL. Run by `make mysql`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from borrowed import borrowed

tests = borrowed(
    Path(__file__).parents[3] / "cdc/cli/test_verify_engines.py",
    more=["shop", "Mirror", "filled"],
)
Mirror, filled = tests.pop("Mirror"), tests.pop("filled")
globals().update(tests)


@pytest.fixture
def mirror(shop: Any, server: Any) -> Any:
    return filled(Mirror("mysql", shop, server))
