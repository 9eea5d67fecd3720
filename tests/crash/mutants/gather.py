"""What a run leaves behind, as the checker wants it."""

from __future__ import annotations

from crash.collect import journal, rows_of, target_facts
from crash.evidence import Evidence, Flow, SlotSample
from crash.topics import TopicReader, committed, positions_partition, stored_position

__all__ = ["gathered"]


def gathered(
    urls: tuple[str, str], servers: tuple[str, str], flow: Flow, slots: list[SlotSample]
) -> Evidence:
    """Fill `flow` from the source's and the target's database, the broker and the registry."""
    source, target = urls
    reader = TopicReader(*servers)
    for table in flow.tables:
        flow.records += reader.records(f"{flow.name}.public.{table}", table)
    partition = positions_partition(flow.name)
    history = committed(servers[0], f"{flow.name}.positions", [partition])
    found = (stored_position(message, flow.name) for message in history)
    flow.positions = [stored for stored in found if stored is not None]
    flow.slots = slots
    flow.dead = list(reader.dead(f"{flow.name}.dead", "one"))
    flow.effects = target_facts(target)
    flow.source_rows = {table: rows_of(source, source, table) for table in flow.tables}
    flow.target_rows = {table: rows_of(target, source, table) for table in flow.tables}
    return Evidence(journal(source), [flow])
