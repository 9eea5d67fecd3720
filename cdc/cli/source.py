"""`cdc source NAME`: one source in this process, as a container runs it."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from pydantic import SecretStr

from cdc.cli.shared import DEFAULT_FILE, ConfigFile, SourceArgument, pipeline_of
from cdc.cli.work import Workshop, workshop
from cdc.config import Pipeline, SourceOptions, Unit
from cdc.errors import Fenced
from cdc.publish import Publisher, Written
from cdc.report import SourceReport
from cdc.retry import back_off
from cdc.status import StatusReader
from cdc.worker import SourceJob, run_source
from schemas.plan import SourceName

__all__ = ["source"]


def source(
    name: SourceArgument,
    config: ConfigFile = DEFAULT_FILE,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Fence a worker that is alive.")
    ] = False,
) -> None:
    """Run one source in this process until SIGTERM; the last transaction is committed first.

    A source has one owner. One that is alive is not disturbed unless --take-over is given.

    Example: cdc source shopdb -c tailrace.yaml
    """
    pipeline = pipeline_of(config, f"source/{name}")
    unit = pipeline.unit(f"source/{name}")
    with workshop(pipeline, unit, SourceReport) as (shop, report):
        if not take_over:
            shop.wait_for(lambda: refuse_live(pipeline, unit, report.worker))
        run_source(_job(shop, report))


def refuse_live(pipeline: Pipeline, unit: Unit, worker: str = "") -> None:
    """Raise `errors.Fenced` when somebody else than `worker` is at work."""
    reader = StatusReader(pipeline.kafka, pipeline.name, worker)
    try:
        owner = reader.live_owner(unit.address)
    finally:
        reader.close()
    if owner is not None:
        raise Fenced(
            f"{unit.address} is alive as process {owner.pid} on {owner.host} ({owner.state})",
            hint=f"Stop that worker first, or fence it: cdc source {unit.context.name} --take-over",
        )


def _job(shop: Workshop, report: SourceReport) -> SourceJob:
    unit, kafka, registry = shop.unit, shop.pipeline.kafka, shop.registry
    options = unit.options
    if not isinstance(options, SourceOptions):
        raise TypeError(f"{unit.address} is no source")
    block = SourceName(
        version("tailrace"), unit.connector.name, unit.context.name, _database(unit.config)
    )
    written = Written(options.publish, options.columns, options.on_undecodable)
    create = unit.connector.offer("create")
    return SourceJob(
        source=lambda: create(unit.context, unit.config),
        publisher=lambda: Publisher(unit.context, kafka, registry, block, written),
        control=shop.control,
        reporter=report,
        stop=shop.stop,
        back_off=back_off,
    )


def _database(config: Any) -> str:
    """Return the database a connector's `url` names, for the envelope's source block."""
    url = getattr(config, "url", None)
    if not isinstance(url, SecretStr):
        return ""
    return urlsplit(url.get_secret_value()).path.strip("/")
