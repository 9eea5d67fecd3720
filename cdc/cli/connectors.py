"""`cdc connectors`: what can be a source or a target here, and the options of each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer
from pydantic import BaseModel

from cdc import config, plugins
from cdc.cli.shared import Json, console, print_json, print_rows
from cdc.errors import CdcError, ConfigError
from cdc.kafka import KafkaConfig
from cdc.metrics import metrics_table
from cdc.options import fill_page, option_rows, option_table
from cdc.plugins import Connector, Kind
from sinks import mapping

__all__ = ["CONFIG_PAGE", "MAPPING_PAGE", "connectors", "filled", "pages"]

CONFIG_PAGE = Path(config.__file__).with_suffix(".md")
MAPPING_PAGE = Path(mapping.__file__).with_suffix(".md")


def connectors(
    name: Annotated[
        str | None, typer.Argument(metavar="[TYPE]", help="Show this one's options.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="source|target", help="Only of this kind.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the option table as its page has it.")
    ] = False,
    fill: Annotated[
        bool, typer.Option("--fill-pages", hidden=True, help="Make the tables of all pages anew.")
    ] = False,
    json: Json = False,
) -> None:
    """List the connectors that are installed, or the options of one.

    Example: cdc connectors postgres --kind source
    """
    if fill:
        _fill()
    elif name is None:
        _list(json=json)
    else:
        for found in _named(name, kind):
            _describe(found, markdown=markdown, json=json)


def _kinds(kind: str | None) -> list[Kind]:
    if kind not in {None, "source", "target"}:
        raise ConfigError(f"--kind {kind}: there are `source` and `target`")
    return ["source", "target"] if kind is None else [cast("Kind", kind)]


def _named(name: str, kind: str | None) -> list[Connector]:
    kinds = _kinds(kind)
    found = [plugins.load(each, name) for each in kinds if name in plugins.types(each)]
    return found or [plugins.load(kinds[0], name)]


def _list(*, json: bool) -> None:
    rows = []
    for kind in _kinds(None):
        for name in plugins.types(kind):
            try:
                said = plugins.load(kind, name).summary()
            except CdcError as error:
                said = f"{error} ({error.hint})"
            rows.append((kind, name, said))
    if json:
        print_json([{"kind": kind, "type": name, "summary": said} for kind, name, said in rows])
    else:
        print_rows(("kind", "type", ""), rows)


def _describe(found: Connector, *, markdown: bool, json: bool) -> None:
    if markdown:
        print(option_table(found.config), end="")
        return
    rows = list(option_rows(found.config))
    if json:
        names = ("option", "type", "default", "meaning")
        options = [dict(zip(names, row, strict=True)) for row in rows]
        print_json({"kind": found.kind, "type": found.name, "options": options})
        return
    console().print(f"[bold]{found.kind} {found.name}[/]: {found.summary()}")
    print_rows(("option", "type", "default", "meaning"), rows)


def pages() -> dict[Path, Any]:
    """Return every page with generated tables, and the module its tables are made from."""
    found: dict[Path, Any] = {CONFIG_PAGE: config, MAPPING_PAGE: mapping}
    for kind in _kinds(None):
        for name in plugins.types(kind):
            module = plugins.load(kind, name).module
            path = Path(module.__file__ or "").with_suffix(".md")
            if path.is_file():
                found[path] = module
    return found


def filled(path: Path, module: Any) -> str:
    """Return the page at `path` with its tables as they should be.

    A table is named after a model of `module`; `metrics` is the table of metrics.
    """

    def table(name: str) -> str:
        if name == "metrics":
            return metrics_table()
        model = KafkaConfig if name == "KafkaConfig" else getattr(module, name, None)
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise ConfigError(f"{path}: `<!-- options: {name} -->` names no model")
        return option_table(model)

    return fill_page(path.read_text(), table)


def _fill() -> None:
    for path, module in pages().items():
        path.write_text(filled(path, module))
        print(path)
