"""What a connector's module offers: its file name is its registration and its `type:` in YAML.

A source module (`cdc/sources/NAME.py`, or an entry point in `cdc.sources`) and a target module
(`sinks/targets/NAME.py`, or an entry point in `sinks.targets`) define, by these names:

    Config                 one flat pydantic model, extra fields forbidden; its field descriptions
                           are the option table of the connector's page
    create(context, config)  → Source or Target; does no I/O before `open`
    check(context, config)   → Iterator[Finding]: every precondition, one by one, with its repair
    discover(config)         → Iterator[TableSchema]: what is there, for `cdc init` (optional)
    drop(context, config, dry_run)  → Iterator[str]: what is left behind outside Kafka (optional)
    readable(context, config, wanted)  → Readable: the rows of one table, for `cdc verify`
                           (optional; a source's is a ReadableSource)
    take_over(context, config, stored)  → dict: a source's position behind what another program
                           wrote, from the offset it stored, as bytes (optional)
"""

from __future__ import annotations

from typing import Literal

import msgspec

from cdc.kafka import KafkaConfig

__all__ = ["Context", "Finding"]


class Context(msgspec.Struct, frozen=True):
    """Who a connector works for: the pipeline and its own name in it.

    `kafka` is the pipeline's, for a target that cannot keep its cursors itself.
    """

    pipeline: str
    name: str
    kafka: KafkaConfig | None = None


class Finding(msgspec.Struct, frozen=True):
    """One line of `cdc check`: what was looked at, how it stands, what repairs it.

    `repair` is exact: SQL or a command to paste. "fail" makes `cdc check` exit 3.
    """

    level: Literal["ok", "warn", "fail"]
    subject: str
    message: str
    repair: str = ""
