"""What stands beside a target of MariaDB or MySQL: `cdc check`, `cdc verify` and `cdc drop`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from cdc.connections.mariadb import address, connect
from cdc.connector import Context, Finding
from cdc.errors import CdcError
from cdc.mariadb.readable import MariaDBTable
from cdc.verify.readable import Wanted
from sinks.mapping import fixed_targets
from sinks.mariadb.barriers import BarrierTable
from sinks.mariadb.catalog import place_of
from sinks.mariadb.cursors import CursorTable, has
from sinks.mariadb.dialect import Dialect
from sinks.mariadb.options import Options
from sinks.mariadb.preflight import findings
from sinks.mariadb.reservation import Reservation
from sinks.mariadb.target import begin_session, login_of
from sinks.mariadb.transactions import named_errors, writing

__all__ = ["checked", "dropped", "table_of"]


def checked(context: Context, config: Options, dialect: Dialect) -> Iterator[Finding]:
    """Look at the server, our own tables, and every table the mapping names."""
    try:
        login = login_of(context, config, dialect)
        connection = connect(login)
    except CdcError as error:
        yield Finding("fail", "connection", str(error), error.hint)
        return
    with closing(connection), named_errors(login):
        yield Finding("ok", "connection", "reachable, and the login is accepted")
        yield from findings(
            connection,
            address(login).database,
            dialect,
            fixed_targets(config.tables),
            may_create=config.schema_changes.creates,
            workers=config.workers,
        )


def table_of(context: Context, config: Options, dialect: Dialect, wanted: Wanted) -> MariaDBTable:
    """Return a table's rows, for `cdc verify`; it connects when it is opened."""
    login = login_of(context, config, dialect)
    place = place_of(wanted.table, address(login).database)
    return MariaDBTable(login, place, wanted, dialect.source())


def dropped(context: Context, config: Options, dialect: Dialect, *, dry_run: bool) -> Iterator[str]:
    """Forget the cursors of a sink; tables and rows stay."""
    login = login_of(context, config, dialect)
    with closing(connect(login)) as connection, named_errors(login):
        begin_session(connection, dialect)
        if not has(connection, "tailrace_cursors"):
            return
        yield f"cursors of sink {context.name} in {address(login).database}"
        if not dry_run:
            cursors = CursorTable(context, dialect)
            with writing(connection, dialect):
                BarrierTable(context, cursors, dialect).forget(connection)
                Reservation(context, dialect).forget(connection)
                cursors.forget(connection)
