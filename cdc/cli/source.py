"""`cdc source NAME`: one source in this process, as a container runs it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from pydantic import SecretStr

from cdc.cli.shared import DEFAULT_FILE, ConfigFile, pipeline_of
from cdc.compacted import ensure_internal
from cdc.config import Pipeline, SourceOptions, Unit
from cdc.control import ControlReader
from cdc.errors import CdcError, Fenced
from cdc.kafka import KafkaConfig
from cdc.metrics import Metrics
from cdc.process import configure_logs, served, stop_on_signals
from cdc.publish import Publisher
from cdc.report import SourceReport
from cdc.retry import back_off, until_it_answers
from cdc.status import StatusReader, StatusWriter
from cdc.worker import SourceJob, run_source
from schemas.plan import SourceName
from schemas.registry import Registry

__all__ = ["source"]


def source(
    name: Annotated[str, typer.Argument(help="A name under `sources:`.")],
    config: ConfigFile = DEFAULT_FILE,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Fence a worker that is alive.")
    ] = False,
) -> None:
    """Run one source in this process until SIGTERM; the last transaction is committed first.

    A source has one owner. One that is alive is not disturbed unless --take-over is given.

    Example: cdc source shopdb -c tailrace.yaml
    """
    pipeline = pipeline_of(config)
    unit = pipeline.unit(f"source/{name}")
    configure_logs(pipeline.logs, pipeline.name, unit.address)
    stop = stop_on_signals()
    metrics = Metrics(pipeline.name, unit.address)
    status = StatusWriter(pipeline.kafka, pipeline.name, unit.address)
    report = SourceReport(metrics, status)
    with served(pipeline.metrics, metrics.page, report.health) as endpoint:
        report.endpoint = endpoint.address if endpoint is not None else ""
        try:
            _work(pipeline, unit, report, stop, take_over=take_over)
        except CdcError as error:
            report.end("failed", error)
            raise
        report.end("stopped")


def _work(
    pipeline: Pipeline,
    unit: Unit,
    report: SourceReport,
    stop: Callable[[], bool],
    *,
    take_over: bool,
) -> None:
    def waiting(error: CdcError) -> None:
        report.stand("waiting", error)

    kafka, name = pipeline.kafka, pipeline.name
    until_it_answers(lambda: ensure_internal(kafka, name), stop, waiting)
    if not take_over:
        until_it_answers(lambda: _refuse_live(kafka, name, unit), stop, waiting)
    control = ControlReader(kafka, name, unit.address)
    registry = Registry(kafka.registry)
    try:
        until_it_answers(control.open, stop, waiting)
        run_source(_job(pipeline, unit, (registry, control, report), stop))
    finally:
        control.close()
        registry.close()


def _refuse_live(kafka: KafkaConfig, pipeline: str, unit: Unit) -> None:
    """Raise `errors.Fenced` when somebody else is at work."""
    reader = StatusReader(kafka, pipeline)
    try:
        owner = reader.live_owner(unit.address)
    finally:
        reader.close()
    if owner is not None:
        raise Fenced(
            f"{unit.address} is alive as process {owner.pid} on {owner.host} ({owner.state})",
            hint=f"Stop that worker first, or fence it: cdc source {unit.context.name} --take-over",
        )


def _job(
    pipeline: Pipeline,
    unit: Unit,
    parts: tuple[Registry, ControlReader, SourceReport],
    stop: Callable[[], bool],
) -> SourceJob:
    registry, control, report = parts
    options = unit.options
    if not isinstance(options, SourceOptions):
        raise TypeError(f"{unit.address} is no source")
    block = SourceName(
        version("tailrace"), unit.connector.name, unit.context.name, _database(unit.config)
    )
    create = unit.connector.offer("create")
    return SourceJob(
        source=lambda: create(unit.context, unit.config),
        publisher=lambda: Publisher(
            unit.context, pipeline.kafka, registry, block, (options.publish, options.columns)
        ),
        control=control,
        reporter=report,
        stop=stop,
        back_off=back_off,
    )


def _database(config: Any) -> str:
    """Return the database a connector's `url` names, for the envelope's source block."""
    url = getattr(config, "url", None)
    if not isinstance(url, SecretStr):
        return ""
    return urlsplit(url.get_secret_value()).path.strip("/")
