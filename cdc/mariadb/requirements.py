"""What a server must be and log for its log to be read: refused at the start, told by `cdc check`.

What turns the log on, and which settings beside the format must be how, is each server's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cdc.connector import Finding
from cdc.errors import PreflightFailed
from cdc.mariadb.catalog import Catalog

__all__ = ["LATER", "OTHER", "ROWS", "Wanted", "is_other", "logs", "refuse", "required"]

OTHER = "a MySQL server is read by `type: mysql`, MariaDB by `type: mariadb`"
LATER = "and end the sessions that had another one"

Wanted = Mapping[str, tuple[str, str]]
"""Variable → the value it must have, and what gives it."""

ROWS: Wanted = {"binlog_format": ("ROW", f"SET GLOBAL binlog_format = 'ROW'; {LATER}")}


def is_other(catalog: Catalog, version: str) -> bool:
    """Tell whether a server of this version speaks another dialect than that of `catalog`."""
    return ("MariaDB" in version) != (catalog.dialect.name == "MariaDB")


def logs(catalog: Catalog) -> bool:
    """Tell whether the server writes a binary log."""
    return catalog.variable("log_bin") == "1"


def refuse(catalog: Catalog, logging: str, wanted: Wanted) -> None:
    """Raise `errors.PreflightFailed` for a server whose log cannot be read.

    `logging` is what makes one write a log.
    """
    version = catalog.value("SELECT VERSION()")
    if is_other(catalog, version):
        raise PreflightFailed(
            f"the server is {version}: this source reads the log of {catalog.dialect.name}",
            hint=OTHER,
        )
    if not logs(catalog):
        raise PreflightFailed("the server writes no binary log", hint=logging)
    for name, (value, repair) in wanted.items():
        found = catalog.variable(name)
        if found != value:
            raise PreflightFailed(
                f"{name} is {found}: rows cannot be read from the log", hint=repair
            )


def required(catalog: Catalog, logging: str, wanted: Wanted) -> Iterator[Finding]:
    """Yield of each of the same how it stands; the settings only where there is a log."""
    if not logs(catalog):
        yield Finding("fail", "log_bin", "the server writes no binary log", logging)
        return
    yield Finding("ok", "log_bin", "ON")
    for name, (value, repair) in wanted.items():
        found = catalog.variable(name)
        right = found == value
        yield Finding("ok" if right else "fail", name, found, "" if right else repair)
