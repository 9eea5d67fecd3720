"""`cdc sink NAME`: one sink in this process; `cdc sink rewind NAME`: its cursors moved back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cdc.cli.rewind import rewind
from cdc.cli.shared import DEFAULT_FILE, ConfigFile, SinkArgument, pipeline_of
from cdc.cli.work import Workshop, workshop
from cdc.errors import CdcError, ConfigError
from cdc.process import tune
from cdc.report import Report
from cdc.retry import back_off
from sinks.applier import Applied
from sinks.job import SinkJob, SinkStatus
from sinks.mapping import Selection
from sinks.topic_lookup import Lookups
from sinks.worker import run_sink

__all__ = ["SinkReport", "app", "run"]


class SinkReport(Report):
    """The `sinks.job.SinkReporter` of a sink."""

    def applied(self, applied: Applied) -> None:
        """Count one target transaction."""
        self.committed(applied.rows, applied.bytes, applied.seconds)
        self.repeats_dropped(applied.dropped)
        self.dead_lettered(applied.dead)
        if applied.newest_ms:
            latency = time.time() - applied.newest_ms / 1000
            self.metrics.latency_seconds.observe(max(0.0, latency))

    def invalid(self, rows: Mapping[tuple[str, str], int]) -> None:
        """Count rows that broke a rule of the mapping, by table and rule."""
        for (table, rule), count in rows.items():
            self.metrics.invalid(table, rule, count)

    def beat(self, status: SinkStatus, error: CdcError | None) -> None:
        """Tell the present state."""
        facts = {
            "waiting": "" if error is not None else status.waiting,
            "lag_rows": status.lag_rows,
            "lag_seconds": status.lag_seconds,
        }
        self.stand(status.state, error, facts)


class _NameOrCommand(TyperGroup):
    """`cdc sink crm` runs the sink crm; `cdc sink rewind crm` is a command of its own."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if args and args[0] in self.commands:
            return super().resolve_command(ctx, args)
        return "run", self.commands["run"], args


app = typer.Typer(
    cls=_NameOrCommand,
    no_args_is_help=True,
    subcommand_metavar="NAME | rewind NAME",
    context_settings={"ignore_unknown_options": True},
    help="Run one sink in this process until SIGTERM, or rewind it.\n\nExample: cdc sink crm",
)
app.command("rewind")(rewind)


@app.command("run")
def run(
    name: SinkArgument,
    config: ConfigFile = DEFAULT_FILE,
    worker: Annotated[
        int, typer.Option("--worker", min=0, help="Which of the sink's `workers`, from 0.")
    ] = 0,
) -> None:
    """Run one sink in this process until SIGTERM; `run` may be left out.

    Example: cdc sink crm -c tailrace.yaml
    """
    pipeline = pipeline_of(config, f"sink/{name}")
    unit = pipeline.unit(f"sink/{name}")
    settings: Any = unit.config
    workers = int(getattr(settings, "workers", 1))
    if worker >= workers:
        raise ConfigError(
            f"sink {name} has {workers} workers, numbered from 0",
            hint=f"Raise `sinks.{name}.workers`, or start one of these.",
        )
    mark = str(worker) if workers > 1 else ""
    with workshop(pipeline, unit, SinkReport, mark) as (shop, report):
        tune()
        run_sink(_job(shop, report, workers))


def _job(shop: Workshop, report: SinkReport, workers: int) -> SinkJob:
    unit = shop.unit
    settings: Any = unit.config
    options: Any = unit.options
    create = unit.connector.offer("create")
    return SinkJob(
        context=unit.context,
        kafka=shop.pipeline.kafka,
        target=lambda: create(unit.context, unit.config),
        selection=Selection(settings.tables),
        schemas=shop.registry,
        control=shop.control,
        reporter=report,
        stop=shop.stop,
        back_off=back_off,
        workers=workers,
        buffer_bytes=settings.buffer_bytes,
        on_poison=options.on_poison,
        lookups=Lookups(settings.tables, shop.pipeline.kafka, shop.registry),
    )
