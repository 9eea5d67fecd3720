"""`cdc schema`: the schemas of a topic as the registry has them, and what changed between them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cdc.cli.shared import DEFAULT_FILE, ConfigFile, Json, outline_of, print_json, print_rows
from cdc.errors import ConfigError
from schemas.avro import table_schema
from schemas.evolution import avro_differences
from schemas.registry import Registry

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, help="Show the schemas of a topic, or compare two versions."
)
TopicName = Annotated[str, typer.Argument(help="A topic, or a subject of the registry.")]
_DIFFERENT = 1


@app.command()
def show(
    topic: TopicName,
    version: Annotated[
        int | None, typer.Option("--version", help="Which one; the newest when left out.")
    ] = None,
    key: Annotated[bool, typer.Option("--key", help="The key's schema.")] = False,
    config: ConfigFile = DEFAULT_FILE,
    json: Json = False,
) -> None:
    """Show a table's columns as they are in the topic; --json prints the Avro schema.

    Example: cdc schema show shopdb.public.orders
    """
    with Registry(outline_of(config).kafka.registry) as registry:
        subject, versions = _subject(registry, topic, "key" if key else "value")
        chosen = versions[-1] if version is None else version
        schema = _version(registry, subject, chosen, versions)
    if json:
        print_json({"subject": subject, "version": chosen, "versions": versions, "schema": schema})
        return
    print(f"{subject} version {chosen} of {', '.join(map(str, versions))}")
    print_rows(("column", "type", "native", "key", "nullable"), _columns(schema))


@app.command()
def diff(
    topic: TopicName,
    old: Annotated[
        int | None, typer.Option("--from", help="Version; the one before the newest.")
    ] = None,
    new: Annotated[int | None, typer.Option("--to", help="Version; the newest.")] = None,
    config: ConfigFile = DEFAULT_FILE,
    json: Json = False,
) -> None:
    """Say what changed between two versions, and what of it breaks readers.

    Exit code 0 when nothing changed, 1 when something did.

    Example: cdc schema diff shopdb.public.orders --from 1 --to 3
    """
    with Registry(outline_of(config).kafka.registry) as registry:
        subject, versions = _subject(registry, topic, "value")
        after = versions[-1] if new is None else new
        before = max((v for v in versions if v < after), default=after) if old is None else old
        schemas = [_version(registry, subject, v, versions) for v in (before, after)]
    found = avro_differences(*schemas)
    if json:
        changes = [
            {"kind": d.kind, "column": d.column, "sentence": d.sentence, "breaks": d.breaks}
            for d in found
        ]
        print_json({"subject": subject, "from": before, "to": after, "differences": changes})
    else:
        print(f"{subject} {before} → {after}: {len(found) or 'no'} differences")
        for difference in found:
            print(f"  {difference.sentence}{' (breaks readers)' if difference.breaks else ''}")
    if found:
        raise typer.Exit(_DIFFERENT)


def _subject(registry: Registry, topic: str, part: str) -> tuple[str, list[int]]:
    for subject in (f"{topic}-{part}", topic):
        versions = registry.versions(subject)
        if versions:
            return subject, versions
    raise ConfigError(
        f"the registry has no schema of {topic}",
        hint="A topic gets one with its first record; subjects named otherwise are given whole.",
    )


def _version(registry: Registry, subject: str, version: int, versions: list[int]) -> dict[str, Any]:
    found = registry.version(subject, version)
    if found is None:
        known = ", ".join(map(str, versions))
        raise ConfigError(f"{subject} has no version {version}", hint=f"known: {known}")
    return found


def _columns(schema: dict[str, Any]) -> list[tuple[object, ...]]:
    if any(field["name"] == "before" for field in schema.get("fields", ())):
        table = table_schema(schema)
        return [
            (
                column.name,
                column.type.logical,
                column.type.native,
                "yes" if column.name in table.key else "",
                "yes" if column.nullable else "no",
            )
            for column in table.columns
        ]
    return [(field["name"], field["type"], "", "", "") for field in schema.get("fields", ())]
