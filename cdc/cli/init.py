"""`cdc init`: a commented pipeline file for a database, with its tables as they are found."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from pydantic import ValidationError

from cdc import plugins
from cdc.cli.proposal import match_tables, proposal_text
from cdc.cli.shared import Json, print_json
from cdc.errors import ConfigError
from cdc.plugins import Connector
from schemas.table import TableId, TableSchema

__all__ = ["init", "pipeline_text"]

_SCHEMES = {"postgresql": "postgres"}
_TO_CONFIRM = """\
# A proposal by names and types, with how sure it is. Look at each line, correct it, take the first
# `# ` of each away, and let `cdc check` and `cdc map try` say what they make of it.
"""


def init(
    urls: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE [TARGET]",
            help="Where the source is, and a database to propose a mapping into; no password is "
            "written.",
        ),
    ],
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

    With a target too, a mapping between both is proposed, by names and types, for you to confirm.

    Example: cdc init postgresql://cdc@db.example/shop --name shopdb
    """
    url, *targets = urls
    _refuse(targets, output, force=force)
    source = name or _safe(urlsplit(url).path.strip("/")) or "source"
    connector = plugins.load("source", kind or _type(url))
    tables = _discovered(connector, url)
    variable = f"{re.sub(r'[^A-Z0-9]', '_', source.upper())}_URL"
    sinks = "".join(_proposal(source, tables, target) for target in targets)
    text = pipeline_text(source, connector.name, variable, tables, sinks)
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


def _refuse(targets: list[str], output: Path, *, force: bool) -> None:
    if len(targets) > 1:
        raise ConfigError("a pipeline file is made for one source, and one target")
    if str(output) != "-" and output.exists() and not force:
        raise ConfigError(f"{output} exists", hint="Name another with -o, or add --force.")


def _type(url: str) -> str:
    scheme = urlsplit(url).scheme
    return _SCHEMES.get(scheme, scheme) or "postgres"


def _proposal(source: str, tables: list[TableSchema], target: str) -> str:
    """Return a mapping into the tables of another database, every line a comment.

    Its tables are looked at as a source's are. Raises `errors.ConfigError` for other targets.
    """
    kind = _type(target)
    if kind not in plugins.types("source"):
        raise ConfigError(
            f"the tables of a {kind} cannot be looked at",
            hint="A mapping is proposed into postgresql://, mariadb:// and mysql:// URLs.",
        )
    there = _discovered(plugins.load("source", kind), target)
    foreign = [table for table in there if not _is_ours(table.table)]
    return _TO_CONFIRM + proposal_text(source, kind, *match_tables(tables, foreign))


def _is_ours(table: TableId) -> bool:
    return table.schema == "tailrace" or table.name.startswith("tailrace_")


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


def pipeline_text(
    source: str, kind: str, variable: str, tables: list[TableSchema], sinks: str = ""
) -> str:
    """Return a pipeline file that publishes `tables`; `sinks`, or an example, stands below."""
    listed = "".join(_line(table) for table in tables) or '      - "*.*"\n'
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
{sinks or _example(source, kind, tables)}"""


def _example(source: str, kind: str, tables: list[TableSchema]) -> str:
    example = next((t for t in tables if t.key), None)
    table = str(example.table) if example is not None else "public.customers"
    return f"""\
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
