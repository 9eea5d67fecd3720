"""The `cdc` command: a roof over everything; it may import all, nothing imports it."""

from cdc.cli.root import main

__all__ = ["main"]
