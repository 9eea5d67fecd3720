"""Who we are to the endpoint: an API key, a user, or a token from an OAuth2 server.

Source: RFC 6749, 4.4 (client credentials; the client authenticates as 2.3.1 prefers), RFC 6750.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator

import httpx
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from cdc.errors import ConfigError, TargetUnavailable

__all__ = ["Auth", "ClientCredentials"]

_EARLY_S = 30.0
_USUAL_S = 300.0
_WAYS = ("key", "bearer", "username", "token_url")


class Auth(BaseModel):
    """One of: `key` with `header`; `bearer`; `username` and `password`; `token_url` and client."""

    model_config = ConfigDict(extra="forbid")

    header: str = Field(default="X-API-Key", description="Header that carries `key`")
    key: SecretStr | None = Field(default=None, description="API key")
    bearer: SecretStr | None = Field(default=None, description="Token for `Authorization: Bearer`")
    username: str | None = Field(default=None, description="User of HTTP basic authentication")
    password: SecretStr | None = Field(default=None, description="Password of that user")
    token_url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Token endpoint of OAuth2 client credentials",
    )
    client_id: str | None = Field(default=None, description="Client of that endpoint")
    client_secret: SecretStr | None = Field(default=None, description="Secret of that client")
    scope: str = Field(default="", description="Scopes to ask for, separated by spaces")

    @model_validator(mode="after")
    def _whole(self) -> Auth:
        if sum(getattr(self, way) is not None for way in _WAYS) != 1:
            raise ValueError(f"choose one of {', '.join(_WAYS)}")
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        if len({self.token_url is None, self.client_id is None, self.client_secret is None}) > 1:
            raise ValueError("token_url, client_id and client_secret go together")
        return self

    def secrets(self) -> Iterator[str]:
        """Yield what must never be printed."""
        for secret in (self.key, self.bearer, self.password, self.client_secret):
            if secret is not None:
                yield secret.get_secret_value()

    def flow(self) -> httpx.Auth:
        """Return what adds it to requests."""
        if self.token_url is not None and self.client_secret is not None:
            return ClientCredentials(self)
        if self.username is not None and self.password is not None:
            return httpx.BasicAuth(self.username, self.password.get_secret_value())
        if self.bearer is not None:
            return _Header("Authorization", f"Bearer {self.bearer.get_secret_value()}")
        return _Header(self.header, "" if self.key is None else self.key.get_secret_value())


class _Header(httpx.Auth):
    """One header, the same in every request."""

    def __init__(self, name: str, value: str) -> None:
        self._name = name
        self._value = value

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers[self._name] = self._value
        yield request


class ClientCredentials(httpx.Auth):
    """A token that is asked for when there is none, when it ends, and once when it is refused.

    For any number of threads: one asks, the others wait for what it is given. `tokens` are the
    present one and the one before it, which requests under way may still carry.
    """

    def __init__(self, auth: Auth) -> None:
        self._auth = auth
        self._lock = threading.Lock()
        self.tokens = ("", "")
        self._until = 0.0
        self._failed = 0.0

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """Send `request` with a token; see `httpx.Auth`.

        Raises `errors.ConfigError` when the token endpoint refuses the client,
        `errors.TargetUnavailable` when it does not work.
        """
        token, is_fresh = yield from self._token()
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED and not is_fresh:
            token, _ = yield from self._token(refused=token)
            request.headers["Authorization"] = f"Bearer {token}"
            yield request

    def _token(
        self, refused: str = ""
    ) -> Generator[httpx.Request, httpx.Response, tuple[str, bool]]:
        """Return a token other than `refused`, and whether it was asked for just now.

        Who waited for one that then was not given does not ask once more, and wait as long again.
        """
        began = time.monotonic()
        with self._lock:
            if self._failed > began:
                raise TargetUnavailable(f"{self._place} gave no token a moment ago")
            is_old = self.tokens[0] == refused or time.monotonic() >= self._until
            if is_old:
                try:
                    self._take((yield self._request()))
                except BaseException:
                    self._failed = time.monotonic()
                    raise
            return self.tokens[0], is_old

    @property
    def _place(self) -> str:
        return f"the token endpoint {self._auth.token_url}"

    def _request(self) -> httpx.Request:
        auth = self._auth
        secret = "" if auth.client_secret is None else auth.client_secret.get_secret_value()
        form = {"grant_type": "client_credentials"}
        if auth.scope:
            form["scope"] = auth.scope
        asked = httpx.Request("POST", auth.token_url or "", data=form)
        return next(httpx.BasicAuth(auth.client_id or "", secret).auth_flow(asked))

    def _take(self, response: httpx.Response) -> None:
        self._until = 0.0
        response.read()
        if response.is_server_error or response.status_code in (408, 429):
            raise TargetUnavailable(f"{self._place} answers {response.status_code}")
        try:
            found = response.json()
            token = str(found["access_token"])
            lasts = float(found.get("expires_in") or _USUAL_S)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(
                f"{self._place} gives no token: it answers {response.status_code}",
                hint="Check auth.client_id, auth.client_secret and auth.scope.",
            ) from None
        self.tokens = (token, self.tokens[0])
        self._until = time.monotonic() + max(lasts - _EARLY_S, lasts / 2)
