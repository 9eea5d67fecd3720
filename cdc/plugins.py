"""Finding connectors: by file name, or by entry point, never through a list that must be edited.

`cdc/sources/postgres.py` is the source type `postgres`, `sinks/targets/postgres.py` the target
type of that name. A distribution of someone else's offers a module under the entry point groups
`cdc.sources` and `sinks.targets`. What a module defines is said in `cdc/connector.py`.
"""

from __future__ import annotations

import importlib
import importlib.util
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import msgspec
from pydantic import BaseModel

from cdc.errors import ConfigError

__all__ = ["Connector", "Kind", "load", "nearest", "types"]

Kind = Literal["source", "target"]

_PACKAGES: dict[Kind, str] = {"source": "cdc.sources", "target": "sinks.targets"}
"""Package of our own connectors, and at the same time the group of others' entry points."""

_REQUIRED = ("Config", "create")


class Connector(msgspec.Struct, frozen=True):
    """One connector: its module, and what the module offers (`cdc/connector.py`)."""

    kind: Kind
    name: str
    module: ModuleType

    @property
    def config(self) -> type[BaseModel]:
        """The model of the connector's options."""
        found = self.module.Config
        if not (isinstance(found, type) and issubclass(found, BaseModel)):
            raise ConfigError(f"{self.module.__name__}.Config is not a pydantic model")
        return found

    def offer(self, name: str) -> Any:
        """Return the module's function `name`. Raises `errors.ConfigError` when it has none."""
        found = getattr(self.module, name, None)
        if found is None:
            raise ConfigError(f"the {self.kind} type `{self.name}` offers no `{name}`")
        return found

    def page(self) -> str:
        """Return the connector's page, the empty string when there is none beside it."""
        path = Path(self.module.__file__ or "").with_suffix(".md")
        return path.read_text() if path.is_file() else ""

    def summary(self) -> str:
        """Return the first line of the page, without its mark-up."""
        first = next(iter(self.page().splitlines()), "")
        return first.lstrip("# ").strip() or (self.module.__doc__ or "").partition("\n")[0]


def types(kind: Kind) -> list[str]:
    """Return every type of this kind that is installed, in order."""
    return sorted({*_files(kind), *_entries(kind)})


def load(kind: Kind, name: str) -> Connector:
    """Return the connector called `name`.

    Raises `errors.ConfigError` when there is none, when two claim the name, when its library is
    not installed, or when its module does not define what a connector defines.
    """
    files, entries = _files(kind), _entries(kind)
    if name in files and name in entries:
        raise ConfigError(
            f"{kind} type `{name}` is ours and also offered by {entries[name].value}",
            hint="Uninstall that distribution, or ask its author for another name.",
        )
    if name in entries:
        module = _imported(kind, name, entries[name].value)
    elif name in files:
        module = _imported(kind, name, f"{_PACKAGES[kind]}.{name}")
    else:
        raise ConfigError(f"no {kind} type is called `{name}`", hint=nearest(name, types(kind)))
    missing = [part for part in _REQUIRED if not hasattr(module, part)]
    if missing:
        raise ConfigError(
            f"{module.__name__} is no {kind} connector: it lacks {', '.join(missing)}",
            hint="cdc/connector.py says what a connector's module defines.",
        )
    return Connector(kind, name, module)


def nearest(word: str, known: list[str]) -> str:
    """Return "did you mean …?", or the whole list when nothing is near and it is short."""
    found = get_close_matches(word, known, n=1, cutoff=0.5)
    if found:
        return f"did you mean `{found[0]}`?"
    return f"known: {', '.join(known)}" if known else ""


def _files(kind: Kind) -> set[str]:
    spec = importlib.util.find_spec(_PACKAGES[kind])
    folders = spec.submodule_search_locations if spec is not None else None
    paths = (path for folder in folders or () for path in Path(folder).glob("*.py"))
    return {path.stem for path in paths if not path.stem.startswith("_")}


def _entries(kind: Kind) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=_PACKAGES[kind])}


def _imported(kind: Kind, name: str, path: str) -> ModuleType:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        top = (error.name or "").partition(".")[0]
        if top in {"cdc", "sinks", "schemas", path.partition(".")[0]}:
            raise
        raise ConfigError(
            f"the {kind} type `{name}` needs the library {top}, which is not installed",
            hint=f'pip install "tailrace[{name}]"',
        ) from error
