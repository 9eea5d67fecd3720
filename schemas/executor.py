"""Which executor runs a plan: the compiled one where its extension was built, else the plain one.

    CDC_EXECUTOR=auto      compiled where there is one (the default)
    CDC_EXECUTOR=plain     the readable reference, also where the other was built
    CDC_EXECUTOR=compiled  an error where it is missing

Both write the same bytes; tests hold them to it.
"""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType

from schemas.errors import ConfigError

__all__ = ["REMEDY", "SWITCH", "compiled"]

SWITCH = "CDC_EXECUTOR"

REMEDY = (
    "It is built by `pip install` where a C compiler is found, and by `make compile` in a "
    "checkout; `pip install ziglang` is a compiler."
)


def compiled(name: str) -> ModuleType | None:
    """Return the extension called `name`, as "schemas._plan"; None where plain Python is to run.

    Raises `ConfigError` when the environment demands an extension that was not built, or says
    what is no executor.
    """
    wanted = os.environ.get(SWITCH) or "auto"
    if wanted not in ("auto", "plain", "compiled"):
        raise ConfigError(f"{SWITCH}={wanted}: there are auto, plain and compiled")
    if wanted == "plain":
        return None
    try:
        return import_module(name)
    except ImportError as error:
        if wanted == "auto":
            return None
        raise ConfigError(
            f"{SWITCH}=compiled, but there is no compiled executor here: {error}", hint=REMEDY
        ) from error
