"""`cdc schema`: what the registry has of a topic, what changed, what a migration would break."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self
from urllib.parse import urlsplit

import msgspec
import orjson
import typer

from cdc.cli.shared import DEFAULT_FILE, ConfigFile, Json, outline_of, print_json, print_rows
from cdc.config import Pipeline, Unit
from cdc.errors import ConfigError
from schemas.avro import table_schema
from schemas.evolution import avro_differences
from schemas.registry import Registry

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Show schemas, compare them, or check a migration.")
TopicName = Annotated[str, typer.Argument(help="A topic, or a subject of the registry.")]
_DIFFERENT, _BREAKS = 1, 3
_DIALECTS = ("postgres", "mariadb")
"""Sources whose migrations can be read."""


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
    old: Annotated[str, typer.Argument(help="A topic, `TOPIC@VERSION`, or a file of Avro JSON.")],
    new: Annotated[
        str | None, typer.Argument(help="The same; versions of OLD when left out.")
    ] = None,
    since: Annotated[
        int | None, typer.Option("--from", help="Version of OLD; the one before the newest.")
    ] = None,
    until: Annotated[int | None, typer.Option("--to", help="Version of OLD; the newest.")] = None,
    config: ConfigFile = DEFAULT_FILE,
    json: Json = False,
) -> None:
    """Say what changed between two schemas, and what of it breaks readers.

    Two files need neither a pipeline nor a registry. Exit code 0 when nothing changed, 1 when
    something did.

    Example: cdc schema diff shopdb.public.orders --from 1 --to 3
    """
    with _Sides(config) as sides:
        if new is None:
            before, after = sides.versions(old, since, until)
        else:
            before, after = sides.one(old), sides.one(new)
    found = avro_differences(before.schema, after.schema)
    if json:
        changes = [msgspec.to_builtins(difference) for difference in found]
        facts = {"subject": before.subject, "from": before.version, "to": after.version}
        print_json({**facts, "differences": changes})
    else:
        print(f"{before} → {after}: {len(found) or 'no'} differences")
        for difference in found:
            print(f"  {difference.sentence}{' (breaks readers)' if difference.breaks else ''}")
    if found:
        raise typer.Exit(_DIFFERENT)


@app.command()
def check(
    ddl: Annotated[
        Path, typer.Option("--ddl", exists=True, dir_okay=False, help="The migration, SQL.")
    ],
    source: Annotated[
        str | None, typer.Option("--source", help="Whose it is; may be left out with one.")
    ] = None,
    schema: Annotated[
        str | None,
        typer.Option("--schema", help="Of tables without one; `public`, or the URL's database."),
    ] = None,
    config: ConfigFile = DEFAULT_FILE,
    json: Json = False,
) -> None:
    """Say what a migration would break before it is run; no database is asked.

    Looks at the registry, at the mapping of each sink and at its `schema_changes`. Exit code 0 when
    all goes on, 3 when something would stop, or cannot be known.

    Example: cdc schema check --ddl migration.sql
    """
    pipeline = outline_of(config)
    unit = _source(pipeline, source)
    with Registry(pipeline.kafka.registry) as registry:
        judge = _migration().Judge(pipeline, unit, registry)
        found = list(judge.findings(ddl.read_text("utf-8"), schema or _usual(unit)))
    broken = sum(finding.level == "breaks" for finding in found)
    if json:
        rows = [msgspec.to_builtins(finding) for finding in found]
        print_json({"ddl": str(ddl), "source": unit.context.name, "breaks": broken, "found": rows})
    else:
        rows = [(f.level, f.where, f.table, _placed(f)) for f in found]
        print_rows(("", "where", "table", "what"), rows)
        print(f"{ddl}: {broken or 'nothing'} {'breaks' if broken < 2 else 'break'}")
    if broken:
        raise typer.Exit(_BREAKS)


def _placed(finding: Any) -> str:
    return f"line {finding.line}: {finding.sentence}" if finding.line else finding.sentence


def _migration() -> Any:
    """Return `cdc.cli.migration`, whose library is an extra."""
    try:
        return import_module("cdc.cli.migration")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "reading a migration needs sqlglot", hint="pip install 'tailrace[ddl]'"
        ) from error


def _source(pipeline: Pipeline, name: str | None) -> Unit:
    if name is not None:
        return pipeline.unit(f"source/{name}")
    known = [unit for unit in pipeline.sources.values() if unit.connector.name in _DIALECTS]
    if len(known) != 1:
        raise ConfigError(
            f"{pipeline.path} has {len(known)} sources of {' or '.join(_DIALECTS)}",
            hint="Name one with --source.",
        )
    return known[0]


def _usual(unit: Unit) -> str:
    """Return the schema of tables that name none."""
    if unit.connector.name == "postgres":
        return "public"
    config: Any = unit.config
    url: str = config.url.get_secret_value()
    return urlsplit(url).path.strip("/")


class _Side(NamedTuple):
    """A schema to be compared, and where it is from."""

    subject: str
    version: int | None
    schema: dict[str, Any]

    def __str__(self) -> str:
        return self.subject if self.version is None else f"{self.subject} {self.version}"


class _Sides:
    """Finds schemas in files and, once one is asked for, in the registry."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._registry: Registry | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._registry is not None:
            self._registry.close()

    def _known(self, topic: str) -> tuple[Registry, str, list[int]]:
        if self._registry is None:
            self._registry = Registry(outline_of(self._config).kafka.registry)
        return (self._registry, *_subject(self._registry, topic, "value"))

    def versions(self, topic: str, since: int | None, until: int | None) -> tuple[_Side, _Side]:
        """Return two versions of a topic: the newest, and the one before it."""
        registry, subject, versions = self._known(topic)
        after = versions[-1] if until is None else until
        before = max((v for v in versions if v < after), default=after) if since is None else since
        older, newer = (
            _Side(subject, number, _version(registry, subject, number, versions))
            for number in (before, after)
        )
        return older, newer

    def one(self, text: str) -> _Side:
        """Return the schema of a file, or the version of a topic `text` names."""
        if Path(text).is_file():
            return _Side(text, None, _parsed(Path(text)))
        topic, at, number = text.rpartition("@")
        if not (at and number.isdigit()):
            topic, number = text, ""
        registry, subject, versions = self._known(topic)
        version = int(number) if number else versions[-1]
        return _Side(subject, version, _version(registry, subject, version, versions))


def _parsed(path: Path) -> dict[str, Any]:
    try:
        found = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict) or found.get("type") != "record":
        raise ConfigError(f"{path} is no Avro record", hint="`cdc schema show --json` prints one.")
    return found


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
