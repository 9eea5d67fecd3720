"""The parts of the SQLite target: its connection, its catalogue, its tables, its cursors."""

__all__: list[str] = []
