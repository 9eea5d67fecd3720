"""One endpoint: how a request reaches it, and what its answer means to the worker.

| answer | means |
|---|---|
| 2xx; 404 and 410 to a delete | done |
| 408, 425, 429, 5xx; no answer, or too late | `TargetUnavailable`, the circuit opens |
| 3xx, 401, 403, 405, 407, 501 | stop: the configuration is wrong, every request would be refused |
| any other 4xx | `DataError`: this one is refused |

Source: RFC 9110 (status codes, 10.2.3 Retry-After), RFC 6585 (429).
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Protocol

import httpx
import msgspec

from cdc.errors import CdcError, ConfigError, DataError, PreflightFailed
from sinks.http.auth import Auth, ClientCredentials
from sinks.http.circuit import Circuit

__all__ = ["Endpoint", "Reach", "Request", "retry_after"]

_LATER = frozenset({408, 425, 429})
_MISCONFIGURED = {
    401: "Check `auth`: the endpoint does not know us.",
    403: "Check `auth`: the endpoint does not let us do this.",
    405: "Check `method` and `path` of the request.",
    407: "A proxy on the way asks for a login.",
    501: "Check `method` of the request.",
}
_GONE = frozenset({404, 410})
_READ_BYTES = 64 * 1024
_SAID = 300
"""Bytes of an answer that are read, characters that go into a reason."""


class Reach(Protocol):
    """What of the configuration says how to reach the endpoint."""

    url: str
    headers: dict[str, str]
    auth: Auth | None
    timeout: float
    concurrency: int

    def verify(self) -> ssl.SSLContext | bool:
        """Return how the certificate is judged."""
        ...


class Request(msgspec.Struct, frozen=True):
    """One request. `name` is how it may be printed: without the values in its path."""

    method: str
    path: str
    name: str
    key: str
    body: bytes | None = None


def retry_after(value: str | None) -> float:
    """Return the seconds that a Retry-After header asks for, 0 for none or a moment that is past.

    >>> retry_after("120"), retry_after("Fri, 31 Dec 1999 23:59:59 GMT"), retry_after("soon")
    (120.0, 0.0, 0.0)
    """
    if not value:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


class Endpoint:
    """Sends requests over connections that are kept; for `concurrency` threads at once.

    `httpx.Client` may be shared between threads, as its docstring says.
    """

    def __init__(self, reach: Reach, circuit: Circuit) -> None:
        self._reach = reach
        self._circuit = circuit
        self.concurrency = reach.concurrency
        self._flow = None if reach.auth is None else reach.auth.flow()
        # It would log each request with its URL, and so with values of rows.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._client = httpx.Client(
            base_url=reach.url,
            headers={"User-Agent": "tailrace", **reach.headers},
            auth=self._flow,
            timeout=reach.timeout,
            verify=reach.verify(),
            limits=httpx.Limits(max_keepalive_connections=self.concurrency),
            follow_redirects=False,
            trust_env=False,
        )

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def at_once(self) -> int:
        """Return how many requests may be under way now: after a failure the trial alone."""
        return 1 if self._circuit.is_on_trial else self.concurrency

    def send(self, request: Request) -> None:
        """Send `request` and return once it is done.

        Raises `errors.DataError` when this one is refused, `errors.TargetUnavailable` when it is to
        be sent again, `errors.Stop` and `errors.ConfigError` when none would be taken.
        """
        opened = self._circuit.check()
        headers = {"Idempotency-Key": request.key}
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        response, said = self._answer(request, headers, opened)
        gone = request.method == "DELETE" and response.status_code in _GONE
        if not (response.is_success or gone):
            raise self._failure(request, response, said, opened)
        self._circuit.succeeded(opened)

    def look(self) -> int:
        """Return the status of a HEAD of the base URL, which changes nothing; raises as `send`."""
        request = Request("HEAD", "", f"HEAD {self._reach.url}", "")
        opened = self._circuit.check()
        response, said = self._answer(request, {}, opened)
        if response.status_code in (401, 403, 407) or response.is_server_error:
            raise self._failure(request, response, said, opened)
        return response.status_code

    def _answer(
        self, request: Request, headers: Mapping[str, str], opened: int
    ) -> tuple[httpx.Response, str]:
        """Return an answer and the beginning of what it says."""
        deadline = time.monotonic() + 2 * self._reach.timeout
        said = b""
        try:
            with self._client.stream(
                request.method, request.path, content=request.body, headers=dict(headers)
            ) as response:
                for piece in response.iter_bytes():
                    said += piece
                    if len(said) > _READ_BYTES or time.monotonic() > deadline:
                        break  # it is left unread, and its connection is closed
        except httpx.TransportError as error:
            text = str(error) or type(error).__name__
            reason = self._shown(f"{request.name}: {text}")
            raise self._circuit.failed(opened, reason) from error
        except httpx.InvalidURL as error:
            raise DataError(f"{request.name}: the path is no URL: {error}") from error
        return response, said[:_READ_BYTES].decode(errors="replace")

    def _failure(
        self, request: Request, response: httpx.Response, said: str, opened: int
    ) -> CdcError:
        status, reason = response.status_code, self._reason(request, response, said)
        if status in _LATER or (response.is_server_error and status not in _MISCONFIGURED):
            wanted_s = retry_after(response.headers.get("Retry-After"))
            return self._circuit.failed(opened, reason, wanted_s)
        if response.is_redirect:
            place = self._shown(response.headers.get("Location", ""))[:_SAID]
            return ConfigError(reason, hint=f"It points to {place}: set `url` to where it is.")
        if status in _MISCONFIGURED:
            return PreflightFailed(reason, hint=_MISCONFIGURED[status])
        self._circuit.succeeded(opened)  # it works, though it does not take this
        return DataError(reason)

    def _reason(self, request: Request, response: httpx.Response, said: str) -> str:
        text = f"{request.name}: {response.status_code} {response.reason_phrase}".rstrip()
        line = " ".join(self._shown(said).split())
        shown = "".join(character for character in line if character.isprintable())[:_SAID]
        return f"{text}: {shown}" if shown else text

    def _shown(self, text: str) -> str:
        """Return `text` without any secret it may repeat."""
        secrets = [] if self._reach.auth is None else list(self._reach.auth.secrets())
        if isinstance(self._flow, ClientCredentials):
            secrets += self._flow.tokens
        for secret in filter(None, secrets):
            text = text.replace(secret, "***")
        return text
