"""`cdc init`: a commented pipeline file for a database, with its tables as they are found."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from pydantic import ValidationError

from cdc import plugins
from cdc.cli.shared import Json, print_json
from cdc.errors import ConfigError
from cdc.plugins import Connector
from schemas.table import TableSchema

__all__ = ["init", "pipeline_text"]

_SCHEMES = {"postgresql": "postgres"}


def init(
    url: Annotated[str, typer.Argument(help="Where the source is; its password is not written.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the source; the database's if left out.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--type", help="Connector; the URL's scheme if left out.")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="File to write; `-` prints it.")
    ] = Path("tailrace.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Write over a file.")] = False,
    json: Json = False,
) -> None:
    """Look at a database and write a pipeline file for it, every table listed, ready to edit.

    Example: cdc init postgresql://cdc@db.example/shop --name shopdb
    """
    if str(output) != "-" and output.exists() and not force:
        raise ConfigError(f"{output} exists", hint="Name another with -o, or add --force.")
    source = name or _safe(urlsplit(url).path.strip("/")) or "source"
    connector = plugins.load("source", kind or _type(url))
    tables = _discovered(connector, url)
    variable = f"{re.sub(r'[^A-Z0-9]', '_', source.upper())}_URL"
    text = pipeline_text(source, connector.name, variable, tables)
    if str(output) == "-":
        print(text, end="")
        return
    output.write_text(text)
    if json:
        found = [str(table.table) for table in tables]
        print_json({"file": str(output), "variable": variable, "tables": found})
        return
    print(f"{output}: {len(tables)} tables. Next:")
    print(f"  export {variable}=…   # the URL you gave, with its password")
    print(f"  cdc check -c {output}")


def _type(url: str) -> str:
    scheme = urlsplit(url).scheme
    return _SCHEMES.get(scheme, scheme) or "postgres"


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:64]


def _discovered(connector: Connector, url: str) -> list[TableSchema]:
    fields = connector.config.model_fields
    values: dict[str, Any] = {"url": url} if "url" in fields else {}
    if "type" in fields:
        values["type"] = connector.name
    try:
        settings = connector.config.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise ConfigError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    return sorted(connector.offer("discover")(settings), key=lambda found: found.table)


def pipeline_text(source: str, kind: str, variable: str, tables: list[TableSchema]) -> str:
    """Return a pipeline file that publishes `tables`; a sink stands below as a comment."""
    listed = "".join(_line(table) for table in tables) or '      - "*.*"\n'
    example = next((t for t in tables if t.key), None)
    table = str(example.table) if example is not None else "public.customers"
    return f"""\
# A Tailrace pipeline. `cdc check` says what is missing, `cdc run` runs it, `cdc status` watches.
pipeline: {source}

kafka:
  bootstrap: ${{KAFKA:-127.0.0.1:9092}}
  registry: ${{REGISTRY:-http://127.0.0.1:8081}}

sources:
  {source}:
    type: {kind}
    url: ${{{variable}}}  # from the environment, so that no password stands here
    # Globs work too, and `!` leaves out: ["public.*", "!public.audit_*"]
    tables:
{listed}
# sinks:
#   copy:
#     type: {kind}
#     url: ${{COPY_URL}}
#     tables:
#       "{source}.*": {{}}  # as they are
#       {source}.{table}:  # or mapped
#         to: public.other_name
#         fields: {{new_name: old_name}}
"""


def _line(table: TableSchema) -> str:
    quoted = str(table.table).replace("\\", "\\\\").replace('"', '\\"')
    count = len(table.columns)
    columns = f"{count} column{'' if count == 1 else 's'}"
    key = f"key ({', '.join(table.key)})" if table.key else "no key: inserts, no upserts"
    return f'      - "{quoted}"  # {columns}, {key}\n'
