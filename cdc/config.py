"""The pipeline file: YAML → checked models, every mistake at once.

Two passes, so that one run of `cdc check` tells everything: the structure (`Pipeline`), then each
source and sink with the options of its own connector, chosen by `type:`. A problem names the YAML
path, the line, and for an unknown key the nearest one that exists. Values from outside
(`${NAME}`, `${file:…}`) never appear in a message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from cdc.columns import ColumnRule
from cdc.connector import Context
from cdc.document import Document, Keys, Problem, dotted, parse
from cdc.errors import CdcError, ConfigError
from cdc.kafka import KafkaConfig
from cdc.options import known_keys
from cdc.plugins import Connector, Kind, load, nearest
from cdc.publish import PublishConfig
from cdc.quarantine import OnUndecodable

__all__ = [
    "InvalidPipeline",
    "LogConfig",
    "MetricsConfig",
    "OnPoison",
    "Pipeline",
    "PipelineFile",
    "SinkOptions",
    "SourceOptions",
    "Unit",
    "load_outline",
    "load_pipeline",
    "parse_pipeline",
]


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", value):
        raise ValueError("a name is 1 to 64 letters, digits, `-` or `_`, the first no sign")
    return value


Name = Annotated[str, AfterValidator(_name)]
"""Pipelines, sources and sinks: their names become parts of topic names."""


class MetricsConfig(BaseModel):
    """The `metrics:` block: where /metrics, /healthz and /readyz are served."""

    model_config = ConfigDict(extra="forbid")

    host: str = Field(default="127.0.0.1", description="Address; `0.0.0.0` opens it to others")
    port: int | None = Field(
        default=9464, ge=0, le=65535, description="Port; 0 takes a free one, null serves nothing"
    )


class LogConfig(BaseModel):
    """The `logs:` block."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["auto", "console", "json"] = Field(
        default="auto", description="`auto` is console on a terminal and JSON elsewhere"
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is shown"
    )


class SourceOptions(BaseModel):
    """What every source takes beside the options of its connector."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(description="Connector; `cdc connectors` lists them")
    publish: PublishConfig = Field(
        default_factory=PublishConfig, description="How changes are written to Kafka"
    )
    columns: dict[str, ColumnRule] = Field(
        default_factory=dict,
        description="Columns dropped, masked, hashed or cut before Kafka, by glob",
    )
    on_undecodable: OnUndecodable = Field(
        default="stop",
        description="A row with a value that is none of its type: stop, or put it aside",
    )


OnPoison = Literal["dead_letter", "block_key", "stop"]
"""What a sink does with a record the target can never take."""


class SinkOptions(BaseModel):
    """What every sink takes beside the options of its connector."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(description="Connector; `cdc connectors` lists them")
    on_poison: OnPoison = Field(
        default="dead_letter",
        description="A record the target can never take: put it aside, that and all later ones of "
        "its key, or stop",
    )


class PipelineFile(BaseModel):
    """The top level of a pipeline file."""

    model_config = ConfigDict(extra="forbid")

    pipeline: Name = Field(description="Name; first part of the internal topics' names")
    kafka: KafkaConfig = Field(description="Brokers and schema registry")
    sources: dict[Name, dict[str, Any]] = Field(
        default_factory=dict, description="Where changes come from, by name"
    )
    sinks: dict[Name, dict[str, Any]] = Field(
        default_factory=dict, description="Where changes go to, by name"
    )
    metrics: MetricsConfig = Field(
        default_factory=MetricsConfig, description="The endpoint for Prometheus and health checks"
    )
    logs: LogConfig = Field(default_factory=LogConfig, description="Logs on standard error")


class Unit(msgspec.Struct, frozen=True):
    """One source or sink, ready to be run; `address` is how commands and topics name it."""

    kind: Kind
    context: Context
    connector: Connector
    config: BaseModel
    options: SourceOptions | SinkOptions

    @property
    def address(self) -> str:
        """`source/NAME` or `sink/NAME`."""
        return f"{_BLOCKS[self.kind][:-1]}/{self.context.name}"


class Pipeline(msgspec.Struct, frozen=True):
    """A whole pipeline, validated. `path` is the file it was read from."""

    path: Path
    name: str
    kafka: KafkaConfig
    sources: Mapping[str, Unit]
    sinks: Mapping[str, Unit]
    metrics: MetricsConfig
    logs: LogConfig

    def units(self) -> dict[str, Unit]:
        """Return every source and sink by address, sources first."""
        return {unit.address: unit for unit in (*self.sources.values(), *self.sinks.values())}

    def unit(self, address: str) -> Unit:
        """Return one unit by address, or by a name that only one unit has.

        Raises `errors.ConfigError` naming the nearest.
        """
        units = self.units()
        found = [a for a in units if address in {a, a.partition("/")[2]}]
        if len(found) == 1:
            return units[found[0]]
        if found:
            raise ConfigError(f"`{address}` is ambiguous", hint=f"write {' or '.join(found)}")
        raise ConfigError(f"{self.path}: no unit `{address}`", hint=nearest(address, list(units)))


class InvalidPipeline(ConfigError):
    """The pipeline file is wrong; `problems` holds every mistake, in the order of lines."""

    def __init__(self, name: str, problems: list[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: problem.line)
        super().__init__("\n".join(problem.describe(name) for problem in self.problems))


_BLOCKS: dict[Kind, str] = {"source": "sources", "target": "sinks"}
_OPTIONS: dict[Kind, type[SourceOptions | SinkOptions]] = {
    "source": SourceOptions,
    "target": SinkOptions,
}


def load_pipeline(
    path: Path, environment: Mapping[str, str] | None = None, only: str = ""
) -> Pipeline:
    """Return the pipeline in the file at `path`. Raises `InvalidPipeline`, `ConfigError`.

    With `only` ("source/shopdb") the other units are left out: one worker's container needs no
    secrets but its own.
    """
    given = os.environ if environment is None else environment
    return parse_pipeline(_text(path), path, given, only)


def load_outline(path: Path, environment: Mapping[str, str] | None = None) -> Pipeline:
    """Return the pipeline for looking at it through Kafka: its units' secrets may be unset.

    Raises `InvalidPipeline`, `ConfigError`.
    """
    given = os.environ if environment is None else environment
    document = parse(_text(path), path.name, given)
    unset = [keys for keys in document.unfilled if keys[0] in _BLOCKS.values()]
    paths = {dotted(keys) for keys in unset}
    document.problems[:] = [p for p in document.problems if p.path not in paths]
    return _checked(document, path)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(
            f"pipeline file {path}: {reason}",
            hint="Name it with -c FILE or CDC_CONFIG, or write one with `cdc init`.",
        ) from error


def parse_pipeline(
    text: str, path: Path, environment: Mapping[str, str], only: str = ""
) -> Pipeline:
    """Return the pipeline in `text`. Raises `InvalidPipeline` with every problem."""
    document = parse(text, path.name, environment)
    _leave_out_others(document, only)
    return _checked(document, path)


def _checked(document: Document, path: Path) -> Pipeline:
    shape = None
    if not document.problems or isinstance(document.data, dict):
        shape = _validated(document, PipelineFile, document.data, ())
    pipeline = "" if shape is None else shape.pipeline
    units: dict[Kind, dict[str, Unit]] = {"source": {}, "target": {}}
    for kind, block in _BLOCKS.items():
        for name, written in _blocks(document, block):
            kafka = None if shape is None else shape.kafka
            unit = _unit(document, kind, Context(pipeline, name, kafka), written)
            if unit is not None:
                units[kind][name] = unit
    if shape is None or document.problems:
        raise InvalidPipeline(str(path), document.problems)
    return Pipeline(
        path,
        shape.pipeline,
        shape.kafka,
        units["source"],
        units["target"],
        shape.metrics,
        shape.logs,
    )


def _leave_out_others(document: Document, only: str) -> None:
    """Forget every unit but `only`, and what is wrong with it; an unknown name changes nothing."""
    found = {f"{block[:-1]}/{name}": (block, name) for block, name in _units_written(document)}
    if only not in found:
        return
    for block, name in found.values():
        if (block, name) != found[only]:
            del document.data[block][name]
            place = f"{block}.{name}"
            document.problems[:] = [
                problem
                for problem in document.problems
                if problem.path != place and not problem.path.startswith((f"{place}.", f"{place}["))
            ]


def _units_written(document: Document) -> list[tuple[str, str]]:
    return [(block, name) for block in _BLOCKS.values() for name, _ in _blocks(document, block)]


def _blocks(document: Document, block: str) -> Iterator[tuple[str, dict[str, Any]]]:
    found = document.data.get(block) if isinstance(document.data, dict) else None
    if isinstance(found, dict):
        yield from ((name, unit) for name, unit in found.items() if isinstance(unit, dict))


def _unit(document: Document, kind: Kind, context: Context, written: dict[str, Any]) -> Unit | None:
    keys: Keys = (_BLOCKS[kind], context.name)
    chosen = written.get("type")
    if not isinstance(chosen, str):
        document.complain(keys, "`type` is missing", "it names the connector, as `type: postgres`")
        return None
    try:
        connector = load(kind, chosen)
        model = connector.config
    except CdcError as error:
        document.complain((*keys, "type"), str(error), error.hint)
        return None
    shared = set(_OPTIONS[kind].model_fields)
    own = {k: v for k, v in written.items() if k not in shared or k in model.model_fields}
    common = {k: v for k, v in written.items() if k in shared}
    known = [*_OPTIONS[kind].model_fields, *known_keys(model, ())]
    if "type" not in model.model_fields:
        own.pop("type", None)
    config = _validated(document, model, own, keys, known)
    options = _validated(document, _OPTIONS[kind], common, keys)
    if config is None or options is None:
        return None
    return Unit(kind, context, connector, config, options)


def _validated(
    document: Document,
    model: type[Any],
    data: object,
    keys: Keys,
    siblings: list[str] | None = None,
) -> Any:
    """Return `data` as `model`, or None after adding what is wrong to the document."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        for item in _innermost(error, data):
            _complain(document, model, (data, keys), item, siblings)
        return None


def _innermost(error: ValidationError, data: object) -> list[Any]:
    """Return the errors without those of a union's losing members beside a deeper one."""
    items: list[Any] = list(error.errors(include_url=False, include_input=False))

    def lost(item: Any) -> bool:
        loc = item["loc"]
        around = loc[:-1]
        is_tag = len(_written(data, loc)) < len(loc) and item["type"].endswith("_type")
        return is_tag and any(
            len(other["loc"]) > len(loc) and other["loc"][: len(around)] == around
            for other in items
        )

    return [item for item in items if not lost(item)]


def _complain(
    document: Document,
    model: type[BaseModel],
    where: tuple[object, Keys],
    item: Any,
    siblings: list[str] | None,
) -> None:
    data, keys = where
    loc, kind = item["loc"], item["type"]
    place = (*keys, *_written(data, loc))
    if place in document.unfilled:
        return
    if kind == "extra_forbidden":
        known = siblings if siblings and len(loc) == 1 else known_keys(model, loc[:-1])
        document.complain(place, f"unknown key `{loc[-1]}`", nearest(str(loc[-1]), known))
    elif kind == "missing":
        document.complain(place, f"`{loc[-1]}` is missing")
    else:
        document.complain(place, _sentence(item["msg"]))


def _written(data: object, loc: tuple[str | int, ...]) -> Keys:
    """Return the part of `loc` that stands in the file: tags of unions do not."""
    out: list[str | int] = []
    place: Any = data
    for key in loc:
        is_item = isinstance(place, list) and isinstance(key, int)
        if is_item or (isinstance(place, dict) and key in place):
            place = place[key]
            out.append(key)
    return tuple(out)


def _sentence(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
