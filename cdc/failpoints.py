"""Named crash points: where a test may kill the process, free in production.

`CDC_FAILPOINTS="publish.before_commit=kill:3"` kills the process with SIGKILL at the third
passage; `=raise:N` raises `FailpointHit` instead. Without the variable `failpoint` is a no-op.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable

__all__ = ["FAILPOINTS", "FailpointHit", "failpoint"]

FAILPOINTS = (
    "publish.before_position",
    "publish.before_commit",
    "publish.after_commit",
    "source.after_confirm",
    "sink.before_stage",
    "sink.before_cursor",
    "sink.before_commit",
    "sink.after_commit",
    "sink.before_release",
    "sink.before_letters",
    "sink.after_letters",
)
"""Every name in use; a test kills the worker at each of them."""


class FailpointHit(Exception):
    """Raised where `=raise` was asked for."""


def _armed(spec: str) -> Callable[[str], None]:
    passages: Counter[str] = Counter()
    plan = {}
    for entry in filter(None, spec.split(",")):
        name, _, action = entry.partition("=")
        if name not in FAILPOINTS:
            raise ValueError(f"CDC_FAILPOINTS: no failpoint is called {name}")
        what, _, count = action.partition(":")
        plan[name] = (what, int(count or 1))

    def pass_by(name: str) -> None:
        passages[name] += 1
        what, count = plan.get(name, ("", 0))
        if passages[name] != count:
            return
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise FailpointHit(name)

    return pass_by


def _free(_name: str) -> None:
    """Do nothing: no failpoint is armed."""


failpoint: Callable[[str], None] = (
    _armed(os.environ["CDC_FAILPOINTS"]) if os.environ.get("CDC_FAILPOINTS") else _free
)
