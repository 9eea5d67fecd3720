"""The parts of the MariaDB source: connection, binary log, transactions, tables, snapshots."""

__all__: list[str] = []
