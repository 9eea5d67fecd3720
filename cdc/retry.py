"""How long to rest before the next attempt: exponential, bounded, with jitter.

Jitter keeps the workers of a pipeline from knocking together at a broker that comes back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying
from tenacity import wait_exponential_jitter as _exponential

from cdc.errors import Action, CdcError, action_for

__all__ = ["FIRST_S", "LONGEST_S", "back_off", "until_it_answers"]

FIRST_S = 0.25
LONGEST_S = 15.0

_T = TypeVar("_T")
_wait = _exponential(multiplier=FIRST_S, max=LONGEST_S, jitter=FIRST_S)


def back_off(attempt: int) -> float:
    """Return the seconds to rest before attempt number `attempt`, counted from 0.

    >>> FIRST_S <= back_off(0) <= 2 * FIRST_S and back_off(50) == LONGEST_S
    True
    """
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = attempt + 1
    return float(_wait(state))


def until_it_answers(
    call: Callable[[], _T],
    stop: Callable[[], bool],
    waiting: Callable[[CdcError], None],
) -> _T | None:
    """Return what `call` returns, repeating it while the other side is away; None on `stop`.

    `waiting` is told of each failure, so that the wait can be seen (R10). Other errors pass.
    """
    attempt = 0
    while not stop():
        try:
            return call()
        except CdcError as error:
            if action_for(error) is not Action.RETRY:
                raise
            waiting(error)
        deadline = time.monotonic() + back_off(attempt)
        attempt += 1
        while time.monotonic() < deadline and not stop():
            time.sleep(0.05)
    return None
