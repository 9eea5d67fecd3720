"""How to reach PostgreSQL: encryption, identity, and the settings every connection of ours pins.

The same text for the same value, on every connection, is what makes a snapshot row equal to a
streamed one (R9); so the settings that shape output are pinned here, at connect, where no role
or database default comes in between.

Sources: PostgreSQL 18 manual, "libpq: Parameter Key Words", "Client Connection Defaults".
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psycopg
from psycopg import conninfo, pq, sql
from psycopg.pq.abc import PGconn

from cdc.connections.hosts import is_loopback
from cdc.errors import CdcError, ConfigError, SourceUnavailable, Stop, Unavailable
from schemas.table import TableId

__all__ = [
    "PINNED",
    "Login",
    "connect",
    "connect_replication",
    "database_name",
    "guard",
    "is_local",
    "parameters",
    "qualified",
    "translate",
    "user_name",
    "whole_guard",
]

PINNED: Mapping[str, str] = {
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "3",
    "lc_monetary": "C",
    "quote_all_identifiers": "off",  # regclass and its like print names
    "xmloption": "content",
}
"""What shapes the text of a value; client_encoding is pinned beside them."""

_DEFAULTS: Mapping[str, str] = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}
"""A peer that vanished is noticed in under half a minute (seconds; tcp_user_timeout in ms)."""

_REFUSED: tuple[tuple[str, str], ...] = (
    ("password authentication failed", "check the user and the password in `url`"),
    ("no password supplied", "put the password into `url`, PGPASSWORD or a passfile"),
    ("authentication failed", "check the user and the login method in pg_hba.conf"),
    ("no pg_hba.conf entry", "let this host in with a line in pg_hba.conf"),
    ("does not exist", "create it, or name another one in `url`"),
    ("certificate verify failed", "name the authority with sslrootcert=FILE in `url`"),
    ("root certificate file", "name the authority with sslrootcert=FILE in `url`"),
    ("server certificate for", "connect by a name the certificate holds"),
    ("server does not support SSL", "turn on ssl on the server, or say sslmode=disable in `url`"),
    ("start walsender", "ALTER ROLE {user} REPLICATION;"),
    ("WAL sender process", "ALTER ROLE {user} REPLICATION;"),
    ("permission denied", "GRANT CONNECT ON DATABASE {database} TO {user};"),
    ("not permitted to log in", "ALTER ROLE {user} LOGIN;"),
)
"""Answers to a connection attempt that no retry will change; libpq gives no SQLSTATE for them."""


class Login(msgspec.Struct, frozen=True):
    """Where to connect and as whom; `application` is seen in pg_stat_activity.

    `unavailable` is the error a lost connection becomes: the source's or the target's.
    """

    url: str
    application: str
    unavailable: type[Unavailable] = SourceUnavailable


def is_local(parts: Mapping[str, str]) -> bool:
    """Tell whether every host of `parts` is this machine: a socket or a loopback address."""
    hosts = parts.get("hostaddr") or parts.get("host") or os.environ.get("PGHOST", "")
    return all(_is_loopback(host) for host in hosts.split(","))


def _is_loopback(host: str) -> bool:
    return not host or host[0] in "/@" or is_loopback(host)


def parameters(login: Login, **extra: str) -> dict[str, str]:
    """Return the libpq parameters of `login`: verified TLS unless local or told otherwise.

    Raises `ConfigError` when the URL cannot be read; the text never repeats the URL.
    """
    try:
        given = conninfo.conninfo_to_dict(login.url)
    except psycopg.ProgrammingError:
        raise ConfigError(
            "the Postgres URL cannot be read",
            hint="write postgresql://user@host:5432/database, the password after `user:`",
        ) from None
    parts = {**_DEFAULTS, **{name: str(value) for name, value in given.items()}, **extra}
    parts["application_name"] = login.application
    parts["client_encoding"] = "UTF8"
    if "sslmode" not in parts and "PGSSLMODE" not in os.environ:
        parts["sslmode"] = "prefer" if is_local(parts) else "verify-full"
    if parts.get("sslmode") == "verify-full" and not _has_own_authority(parts):
        parts["sslrootcert"] = "system"
    return parts


def _has_own_authority(parts: Mapping[str, str]) -> bool:
    named = "sslrootcert" in parts or "PGSSLROOTCERT" in os.environ
    return named or (Path.home() / ".postgresql" / "root.crt").exists()


def database_name(login: Login) -> str:
    """Return the database `login` names; libpq's own default when it names none."""
    parts = parameters(login)
    return parts.get("dbname") or os.environ.get("PGDATABASE") or parts.get("user", "")


def _options(parts: Mapping[str, str], settings: Mapping[str, str]) -> str:
    """Return libpq's `options`: what the URL says, then ours, so that ours win."""
    pairs = {**PINNED, **settings}.items()
    ours = [f"-c {name}={_escape(value)}" for name, value in pairs]
    return " ".join([*filter(None, [parts.get("options")]), *ours])


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


def connect(
    login: Login, settings: Mapping[str, str] | None = None
) -> psycopg.Connection[tuple[object, ...]]:
    """Connect in autocommit with the pinned settings and `settings` on top.

    Raises `ConfigError` when the server refuses us for good, else `login.unavailable`.
    """
    parts = parameters(login)
    parts["options"] = _options(parts, settings or {})
    with guard(login):
        return psycopg.Connection.connect(conninfo.make_conninfo(**parts), autocommit=True)


def connect_replication(login: Login, settings: Mapping[str, str] | None = None) -> PGconn:
    """Open a walsender connection to the database: it takes replication commands and SQL.

    Raises as `connect` does.
    """
    parts = parameters(login, replication="database")
    parts["options"] = _options(parts, settings or {})
    pgconn = pq.PGconn.connect(conninfo.make_conninfo(**parts).encode())
    if pgconn.status != pq.ConnStatus.OK:
        message = pgconn.get_error_message()
        pgconn.finish()
        raise translate(psycopg.OperationalError(message), login)
    return pgconn


def translate(error: psycopg.Error, login: Login) -> CdcError:
    """Return our error for a failed connection, or for one that was lost while in use."""
    message = str(error).strip() or type(error).__name__
    place = _place(login)
    if error.sqlstate is None:
        for text, hint in _REFUSED:
            if text in message:
                told = hint.format(**_names(login))
                return ConfigError(f"{place} refuses the connection: {message}", hint=told)
    hint = "the worker tries again; look at the server's log if it does not come back"
    return login.unavailable(f"{place} is not reachable: {message}", hint=hint)


def user_name(login: Login) -> str:
    """Return the role `login` connects as; libpq's own default when it names none."""
    return parameters(login).get("user") or os.environ.get("PGUSER") or getpass.getuser()


def _names(login: Login) -> dict[str, str]:
    names = {"user": user_name(login), "database": database_name(login)}
    return {what: sql.Identifier(name).as_string(None) for what, name in names.items()}


def _place(login: Login) -> str:
    parts = parameters(login)
    host = parts.get("host") or parts.get("hostaddr") or "local socket"
    return f"Postgres at {host}:{parts.get('port', '5432')}"


@contextmanager
def guard(login: Login) -> Iterator[None]:
    """Turn a refused or lost connection into our errors; errors of a statement pass through."""
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        if error.sqlstate is not None and error.sqlstate[:2] not in _AWAY:
            raise
        raise translate(error, login) from error


@contextmanager
def whole_guard(login: Login) -> Iterator[None]:
    """As `guard`, and turn what is left of the driver's errors into ours too.

    Raises `login.unavailable` for what passes by itself, `errors.Stop` for the rest.
    """
    try:
        with guard(login):
            yield
    except psycopg.Error as error:
        text = f"{_place(login)} answers: {str(error).strip()} ({error.sqlstate})"
        if (error.sqlstate or "")[:2] in _PASSING:
            raise login.unavailable(text, hint="the worker tries again") from error
        raise Stop(text, hint="run `cdc check`; the server's log says more") from error


_AWAY = ("08", "53", "57")
"""SQLSTATE classes: connection exception, insufficient resources, operator intervention."""
_PASSING = (*_AWAY, "40", "55")
"""And transactions rolled back by the server, and objects in use."""


def qualified(table: TableId) -> sql.Identifier:
    """Return the quoted, schema-qualified name of `table`."""
    return sql.Identifier(table.schema, table.name)
