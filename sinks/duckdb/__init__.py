"""The parts of the DuckDB target: its file, its catalogue, its staging, its tables."""

__all__: list[str] = []
