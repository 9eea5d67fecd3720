"""What MySQL does its own way, in the words of `cdc/mariadb/dialect.py`."""

__all__: list[str] = []
