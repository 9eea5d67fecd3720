"""`cdc check` of a MySQL server and its log; tables are `cdc.mariadb.preflight`'s."""

from __future__ import annotations

from collections.abc import Iterator

from cdc.connections.mariadb import address
from cdc.connector import Finding
from cdc.errors import CdcError
from cdc.mariadb.catalog import Catalog
from cdc.mariadb.connection import quoted
from cdc.mariadb.preflight import images, retention
from cdc.mariadb.requirements import logs, required
from cdc.mysql.opening import LOGGING, WANTED

__all__ = ["findings"]


def findings(catalog: Catalog) -> Iterator[Finding]:
    """Look at what the log has, for how long, and whether we may ask."""
    yield from required(catalog, LOGGING, WANTED)
    if not logs(catalog):
        return
    yield images(catalog)
    yield retention(catalog)
    yield Finding("ok", "server_uuid", catalog.variable("server_uuid"))
    yield _rights(catalog)


def _rights(catalog: Catalog) -> Finding:
    try:
        place = catalog.log_end()
    except CdcError as error:
        user = quoted(address(catalog.login).user)
        return Finding(
            "fail", "log end", str(error), f"GRANT {catalog.dialect.grants} ON *.* TO {user}@'%';"
        )
    return Finding("ok", "log end", f"{place.file}:{place.offset}")
