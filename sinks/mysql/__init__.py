"""What MySQL does its own way, in the words of `sinks/mariadb/dialect.py`."""

__all__: list[str] = []
