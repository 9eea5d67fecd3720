"""The parts of the MariaDB target: its transactions, its catalogue, its tables, its cursors."""

__all__: list[str] = []
