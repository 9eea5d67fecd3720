"""How to reach MariaDB: encryption, identity, and the settings every connection of ours pins.

A URL says where and as whom: `mariadb://user:password@host:3306/database`, with `%40` and the like
for what a URL cannot hold, and the options of MariaDB's own clients behind it: `?ssl-mode=…`
(DISABLED, PREFERRED, REQUIRED, VERIFY_CA, VERIFY_IDENTITY), `ssl-ca`, `ssl-cert`, `ssl-key`.

Sources: MariaDB documentation, "Server System Variables", "MariaDB Error Codes".
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import msgspec
import pymysql
from pymysql.constants import CLIENT, CR, ER

from cdc.connections.hosts import is_loopback
from cdc.errors import ConfigError, SourceUnavailable, Unavailable

__all__ = [
    "Address",
    "Connection",
    "Login",
    "address",
    "code_of",
    "connect",
    "fetch",
    "guard",
    "pin",
    "quoted",
]

Connection: TypeAlias = "pymysql.connections.Connection[Any]"

_SCHEMES = ("mariadb", "mysql")
_PORT = 3306
_SSL_MODES = ("DISABLED", "PREFERRED", "REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY")
_OPTIONS = ("ssl-mode", "ssl-ca", "ssl-cert", "ssl-key")

_CONNECT_S = 10
_PINNED: Mapping[str, str | int] = {
    "time_zone": "+00:00",
    "sql_mode": "STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION",
    "sql_safe_updates": 0,
    "sql_auto_is_null": 0,
}
"""What shapes the text of a value, and what a value that does not fit becomes: an error."""

_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 20_000}
"""A peer that vanished is noticed in under half a minute (s; the last in ms), where known."""

_REFUSED: Mapping[int, str] = {
    ER.ACCESS_DENIED_ERROR: "check the user and the password in `url`",
    1698: "check the user in `url`: the server lets it in without a password alone, from a socket",
    ER.DBACCESS_DENIED_ERROR: "GRANT ALL PRIVILEGES ON {database}.* TO {user};",
    ER.BAD_DB_ERROR: "CREATE DATABASE {database};",
    ER.HOST_NOT_PRIVILEGED: "let this host in: CREATE USER {user}@'this host' …",
    CR.CR_SSL_CONNECTION_ERROR: "turn on TLS on the server, or add ?ssl-mode=DISABLED to `url`",
    CR.CR_AUTH_PLUGIN_CANNOT_LOAD: "let {user} log in by mysql_native_password, which MariaDB has, "
    "or by caching_sha2_password, which MySQL has",
}
"""Answers to a connection attempt that no retry will change."""

_AWAY = (
    0,  # the driver's own, for a connection that is closed
    CR.CR_CONN_HOST_ERROR,
    CR.CR_SERVER_GONE_ERROR,
    CR.CR_SERVER_LOST,
    ER.CON_COUNT_ERROR,
    ER.HOST_IS_BLOCKED,
    ER.SERVER_SHUTDOWN,
    ER.NEW_ABORTING_CONNECTION,
    1203,  # a user's own limit of connections
    1226,  # the same, or of questions in an hour
    1927,  # the connection was killed
    4031,  # MySQL: it was silent for too long
    4150,  # the server is shutting down
)
"""Codes of a connection that was lost, or could not be had now."""


class Login(msgspec.Struct, frozen=True):
    """Where to connect and as whom; `application` is seen among the connection's attributes.

    `unavailable` is the error a lost connection becomes: the source's or the target's. `system` is
    what the server is called.
    """

    url: str
    application: str
    unavailable: type[Unavailable] = SourceUnavailable
    system: str = "MariaDB"


class Address(msgspec.Struct, frozen=True):
    """A URL in its parts; `ssl_mode` is one of MariaDB's own, `files` are those of TLS."""

    host: str
    port: int
    user: str
    password: str
    database: str
    ssl_mode: str
    files: Mapping[str, str]


def address(login: Login) -> Address:
    """Return the parts of the URL: verified TLS unless local or told otherwise.

    Raises `ConfigError` when it cannot be read; the text never repeats the URL.
    """
    try:
        parts = urlsplit(login.url)
        port = parts.port or _PORT
    except ValueError:
        raise _unreadable(login, "it is no URL") from None
    if parts.scheme not in _SCHEMES or not parts.hostname:
        told = "it names no host, or begins with another word than mariadb:// or mysql://"
        raise _unreadable(login, told)
    options = _options(login, parts)
    default = "PREFERRED" if is_loopback(parts.hostname) else "VERIFY_IDENTITY"
    mode = options.pop("ssl-mode", default).upper()
    if mode not in _SSL_MODES:
        raise _unreadable(login, f"ssl-mode is one of {', '.join(_SSL_MODES)}")
    return Address(
        host=parts.hostname,
        port=port,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=unquote(parts.path.removeprefix("/")),
        ssl_mode=mode,
        files=options,
    )


def _options(login: Login, parts: SplitResult) -> dict[str, str]:
    given = parse_qsl(parts.query, keep_blank_values=True)
    options = {name.replace("_", "-"): value for name, value in given}
    unknown = sorted(options.keys() - set(_OPTIONS))
    if unknown:
        raise _unreadable(login, f"{unknown[0]} is no option of it: {', '.join(_OPTIONS)}")
    return options


def _unreadable(login: Login, why: str) -> ConfigError:
    scheme = login.system.lower()
    return ConfigError(
        f"the {login.system} URL cannot be read: {why}",
        hint=f"write {scheme}://user:password@host:3306/database, with %40 for an @ in a password",
    )


def quoted(name: str) -> str:
    """Return `name` as an identifier, whatever it holds."""
    return "`" + name.replace("`", "``") + "`"


def connect(login: Login, settings: Mapping[str, str | int] | None = None) -> Connection:
    """Connect in autocommit with the pinned settings and `settings` on top.

    A statement's row count is that of the rows found, changed or not. Raises `ConfigError` when
    the server refuses us for good, else `login.unavailable`.
    """
    to = address(login)
    connection = pymysql.connections.Connection(
        user=to.user,
        password=to.password.encode(),  # text would be taken for Latin-1
        host=to.host,
        port=to.port,
        database=to.database or None,
        charset="utf8mb4",
        client_flag=CLIENT.FOUND_ROWS,
        autocommit=True,
        read_timeout=_CONNECT_S,
        program_name=login.application,
        defer_connect=True,
        **_encryption(to),
    )
    with _connecting(login):
        connection.connect(_socket(to))
        # A statement may take as long as it needs; a peer that is gone is noticed all the same.
        vars(connection)["_read_timeout"] = None  # there is no public way
        pin(connection, {**_PINNED, **(settings or {})})
    return connection


def pin(connection: Connection, settings: Mapping[str, str | int]) -> None:
    """Set variables of the session. Raises as the driver does for one that is not known."""
    names = ", ".join(f"SESSION {name} = %s" for name in settings)
    with connection.cursor() as cursor:
        cursor.execute(f"SET {names}", tuple(settings.values()))


def _socket(to: Address) -> socket.socket:
    try:
        made = socket.create_connection((to.host, to.port), _CONNECT_S)
    except OSError as error:
        raise pymysql.OperationalError(CR.CR_CONN_HOST_ERROR, str(error)) from error
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        option = getattr(socket, name, None)
        if option is not None:
            made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made


def _encryption(to: Address) -> dict[str, Any]:
    """Return the driver's options. Raises `ConfigError` for a file that cannot be read."""
    if to.ssl_mode == "DISABLED":
        return {"ssl_disabled": True}
    if to.ssl_mode == "PREFERRED":
        return {}
    try:
        context = ssl.create_default_context(cafile=to.files.get("ssl-ca"))
        if "ssl-cert" in to.files:
            context.load_cert_chain(to.files["ssl-cert"], to.files.get("ssl-key"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"a file of TLS cannot be read: {error}",
            hint="ssl-ca, ssl-cert and ssl-key in `url` are paths of PEM files",
        ) from error
    context.check_hostname = to.ssl_mode == "VERIFY_IDENTITY"
    if to.ssl_mode == "REQUIRED":
        context.verify_mode = ssl.CERT_NONE
    return {"ssl": context}


def fetch(
    connection: Connection, query: str, parameters: Sequence[Any] = ()
) -> list[tuple[Any, ...]]:
    """Return the rows of a query; `%s` stands for a parameter where any are given."""
    with connection.cursor() as cursor:
        cursor.execute(query, parameters or None)
        return list(cursor.fetchall())


def code_of(error: pymysql.Error) -> int:
    """Return the number of an error, 0 where it has none."""
    first = error.args[0] if error.args else 0
    return first if isinstance(first, int) else 0


@contextmanager
def guard(login: Login) -> Iterator[None]:
    """Turn a lost connection into our error; errors of a statement pass through."""
    try:
        yield
    except pymysql.Error as error:
        if code_of(error) not in _AWAY:
            raise
        raise _lost(error, login) from error


@contextmanager
def _connecting(login: Login) -> Iterator[None]:
    """As `guard`, and turn what no retry will change into `ConfigError`."""
    try:
        yield
    except pymysql.Error as error:
        remedy = _remedy(error, login)
        if remedy is None:
            raise _lost(error, login) from error
        text = f"{_place(login)} refuses the connection: {error.args[-1]}"
        raise ConfigError(text, hint=remedy) from error


def _remedy(error: pymysql.Error, login: Login) -> str | None:
    cause = getattr(error, "original_exception", None)
    if isinstance(cause, ssl.SSLError):
        return "name the authority with ssl-ca=FILE in `url`, and a host the certificate holds"
    to = address(login)
    found = _REFUSED.get(code_of(error))
    return found and found.format(user=quoted(to.user), database=quoted(to.database))


def _lost(error: pymysql.Error, login: Login) -> Unavailable:
    text = str(error.args[-1] if error.args else "") or "the connection was lost"
    hint = "the worker tries again; look at the server's log if it does not come back"
    return login.unavailable(f"{_place(login)} is not reachable: {text}", hint=hint)


def _place(login: Login) -> str:
    to = address(login)
    return f"{login.system} at {to.host}:{to.port}"
