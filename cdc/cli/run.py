"""`cdc run`: the whole pipeline, supervised."""

from __future__ import annotations

import typer

from cdc.cli.shared import DEFAULT_FILE, ConfigFile, pipeline_of
from cdc.errors import ConfigError
from cdc.process import configure_logs, served, stop_on_signals
from cdc.supervisor import Supervisor

__all__ = ["run"]


def run(config: ConfigFile = DEFAULT_FILE) -> None:
    """Run every source and sink of the pipeline, each in a process of its own.

    Start it on several machines and the workers spread over them. SIGTERM or Ctrl-C commits what
    is under way and ends with exit code 0 within 10 seconds.

    Example: cdc run -c tailrace.yaml
    """
    pipeline = pipeline_of(config)
    if not pipeline.units():
        raise ConfigError(
            f"{config}: there is nothing to run",
            hint="Add something under `sources:` or `sinks:`.",
        )
    configure_logs(pipeline.logs, pipeline.name)
    supervisor = Supervisor(pipeline, config, stop_on_signals(watched=False))
    with served(pipeline.metrics, supervisor.page, supervisor.health):
        code = supervisor.run()
    if code:
        raise typer.Exit(code)
