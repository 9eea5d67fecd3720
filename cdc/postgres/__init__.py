"""The parts of the Postgres source: the log's stream, its transactions, the catalogue, the slot.

stream ─▶ transactions ─▶ Rows            catalog  relations  publication  slot  chunks
bytes      messages        per table      what is  shapes     what is sent       snapshots
"""

__all__: list[str] = []
