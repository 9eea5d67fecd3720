"""The parts of the PostgreSQL target: its catalogue, its staging and merges, its cursors."""

__all__: list[str] = []
