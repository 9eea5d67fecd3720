"""What `cdc source` and `cdc sink` have in common: the process around the worker's loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import msgspec
import structlog

from cdc.compacted import ensure_internal
from cdc.config import Pipeline, Unit
from cdc.control import ControlReader
from cdc.errors import CdcError
from cdc.metrics import Metrics
from cdc.process import configure_logs, served, stop_on_signals
from cdc.report import Report
from cdc.retry import until_it_answers
from cdc.status import StatusWriter
from schemas.registry import Registry

__all__ = ["Workshop", "workshop"]

_log = structlog.get_logger(__name__)
_R = TypeVar("_R", bound=Report)


class Workshop(msgspec.Struct):
    """What a worker works with. `stop` turns true when it is asked to end."""

    pipeline: Pipeline
    unit: Unit
    report: Report
    control: ControlReader
    registry: Registry
    stop: Callable[[], bool]

    def wait_for(self, call: Callable[[], object]) -> None:
        """Repeat `call` until the other side answers; the wait shows in status and probes."""
        until_it_answers(call, self.stop, lambda error: self.report.stand("waiting", error))


@contextmanager
def workshop(
    pipeline: Pipeline, unit: Unit, make: Callable[[Metrics, StatusWriter], _R], worker: str = ""
) -> Iterator[tuple[Workshop, _R]]:
    """Set a worker's process up, and say how it ended.

    Kafka may be away at first: that is waited for, visibly. An error of ours is the last word of
    the heartbeat, and passes.
    """
    configure_logs(pipeline.logs, pipeline.name, unit.address)
    stop = stop_on_signals()
    metrics = Metrics(pipeline.name, unit.address)
    report = make(metrics, StatusWriter(pipeline.kafka, pipeline.name, unit.address, worker))
    control = ControlReader(pipeline.kafka, pipeline.name, unit.address)
    registry = Registry(pipeline.kafka.registry)
    with served(pipeline.metrics, metrics.page, report.health) as endpoint:
        report.endpoint = endpoint.address if endpoint is not None else ""
        shop = Workshop(pipeline, unit, report, control, registry, stop)
        try:
            shop.wait_for(lambda: ensure_internal(pipeline.kafka, pipeline.name))
            shop.wait_for(control.open)
            yield shop, report
        except CdcError as error:
            report.end("failed", error)
            raise
        except Exception as error:
            _log.exception("a bug of Tailrace, or of a connector")
            report.end("failed", CdcError(f"internal error: {type(error).__name__}: {error}"))
            raise
        finally:
            control.close()
            registry.close()
        report.end("stopped")
