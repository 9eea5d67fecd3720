"""The schema registry: subjects, ids, and the check that comes before the first record.

A new version of a schema passes two gates before its id exists: our own `evolution.breaking`,
which knows precision, scale and logical types (Apicurio 3.3 calls decimal(10,2) → (10,3) and
micros → millis compatible, measured), then the registry's test at the subject's level. A new
subject is given a level before its first version: Apicurio's default is NONE.

Every call has a deadline and none is repeated here; the worker's error table does that.
Source: Confluent Schema Registry API reference; Apicurio serves it under /apis/ccompat/v7.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

from confluent_kafka.schema_registry import (
    RegisteredSchema,
    Schema,
    SchemaRegistryClient,
    SchemaRegistryError,
)
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    model_validator,
)

from schemas.errors import ConfigError, DataError, RegistryUnavailable, SchemaIncompatible
from schemas.evolution import breaking
from schemas.subjects import Strategy, subject

__all__ = ["AvroSchema", "Registry", "RegistryConfig"]

AvroSchema = dict[str, Any]
_T = TypeVar("_T")

_NOT_FOUND = 404
_CONFLICT = 409
_REFUSED = (_CONFLICT, 422)
_NO_ACCESS = (401, 403)
_BUSY = (408, 429)
_ABSENT_CODES = (40401, 40402, 40403, 40408)
"""Confluent's codes for an unknown subject, version, schema id, and a subject without a level."""


class RegistryConfig(BaseModel):
    """How to reach the schema registry; a bare URL in YAML is enough without secrets."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, StringConstraints(pattern=r"^https?://")] = Field(
        description="Base URL of the Confluent-compatible API; a bare host is tried as Apicurio's, "
        "too, at /apis/ccompat/v7."
    )
    username: str | None = Field(default=None, description="User of HTTP basic authentication.")
    password: SecretStr | None = Field(default=None, description="Password of that user.")
    bearer: SecretStr | None = Field(default=None, description="Token of bearer authentication.")
    ca: Path | None = Field(default=None, description="PEM file or folder of trusted authorities.")
    cert: Path | None = Field(default=None, description="PEM file of the client's certificate.")
    key: Path | None = Field(default=None, description="PEM file of the client's private key.")
    key_password: SecretStr | None = Field(default=None, description="Password of that key.")
    timeout: float = Field(default=5.0, gt=0, le=60, description="Seconds one request may take.")
    subjects: Strategy = Field(default=Strategy.TOPIC, description="How subjects are named.")
    compatibility: Literal[
        "BACKWARD",
        "BACKWARD_TRANSITIVE",
        "FORWARD",
        "FORWARD_TRANSITIVE",
        "FULL",
        "FULL_TRANSITIVE",
        "NONE",
    ] = Field(
        default="BACKWARD",
        description="Level given to a new subject. A subject at NONE gets no check, ours neither.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_url(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _whole(self) -> RegistryConfig:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together")
        if self.bearer is not None and self.username is not None:
            raise ValueError("choose either username and password or bearer")
        if self.key is not None and self.cert is None:
            raise ValueError("key needs cert, the certificate it belongs to")
        return self

    @property
    def place(self) -> str:
        """The URL as it may be shown: without credentials."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    def client(self) -> dict[str, Any]:
        """Return the properties of confluent-kafka's `SchemaRegistryClient`."""
        conf: dict[str, Any] = {"url": self.url, "timeout": self.timeout, "max.retries": 0}
        conf["cache.latest.ttl.sec"] = 0  # else the first answer is the newest version for ever
        if self.username is not None and self.password is not None:
            secret = self.password.get_secret_value()
            conf["basic.auth.user.info"] = f"{self.username}:{secret}"
        if self.bearer is not None:
            conf["bearer.auth.credentials.source"] = "STATIC_TOKEN"
            conf["bearer.auth.token"] = self.bearer.get_secret_value()
            conf["bearer.auth.logical.cluster"] = ""  # Confluent Cloud's; others ignore the header
        files = {"ca": self.ca, "certificate": self.cert, "key": self.key}
        conf |= {f"ssl.{name}.location": str(path) for name, path in files.items() if path}
        if self.key_password is not None:
            conf["ssl.key.password"] = self.key_password.get_secret_value()
        return conf


_APICURIO = "/apis/ccompat/v7"


class Registry:
    """One registry, with everything it ever answered remembered; for one thread."""

    def __init__(self, config: RegistryConfig) -> None:
        self.config = config
        self._registered: dict[tuple[str, str], int] = {}
        self._schemas: dict[int, AvroSchema] = {}
        self._client: SchemaRegistryClient | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def subject(self, topic: str, schema: AvroSchema, *, key: bool = False) -> str:
        """Return the subject of a topic's key or value schema, by the configured strategy."""
        return subject(self.config.subjects, topic, schema, key=key)

    def register_for(self, topic: str, schema: AvroSchema, *, key: bool = False) -> int:
        """Return the id of a topic's key or value schema, registered as `register` does."""
        return self.register(self.subject(topic, schema, key=key), schema)

    def register(self, subject: str, schema: AvroSchema) -> int:
        """Return the id of `schema` under `subject`, registering it where it is new.

        The newest version being equal costs one read, and nothing at all the second time.
        Raises `SchemaIncompatible` with every breaking difference, before anything is written;
        `RegistryUnavailable`; `ConfigError` when access is denied.
        """
        text = json.dumps(schema, sort_keys=False, separators=(",", ":"))
        if (subject, text) not in self._registered:
            self._registered[subject, text] = self._registered_id(subject, schema, text)
        return self._registered[subject, text]

    def get(self, schema_id: int) -> AvroSchema:
        """Return the schema a record names by id. Raises `DataError` when there is none."""
        if schema_id not in self._schemas:
            found = self._ask(lambda client: client.get_schema(schema_id))
            if found is None:
                raise DataError(
                    f"the schema registry {self.config.place} has no schema {schema_id}",
                    hint="The record was written with another registry, or is not ours.",
                )
            self._schemas[schema_id] = _parsed(found)
        return self._schemas[schema_id]

    def latest(self, subject: str) -> tuple[int, AvroSchema] | None:
        """Return id and schema of the newest version, None for an unknown subject."""
        found = self._ask(lambda client: client.get_latest_version(subject))
        return None if found is None else (int(found.schema_id or 0), _parsed(found.schema))

    def versions(self, subject: str) -> list[int]:
        """Return the version numbers of a subject, oldest first; none when it is unknown."""
        found: list[int] | None = self._ask(lambda client: client.get_versions(subject))
        return sorted(found or [])

    def version(self, subject: str, version: int) -> AvroSchema | None:
        """Return one version of a subject, None when there is none."""
        found = self._ask(partial(_version, subject, version))
        return None if found is None else _parsed(found.schema)

    def history(self, topic: str, schema_id: int) -> list[tuple[int, AvroSchema]]:
        """Return all versions of the schema a topic's value is written with, oldest first.

        Each comes with its id. A schema that came back word for word is the version it was at
        first.
        """
        name = self.subject(topic, self.get(schema_id))
        found = [self._ask(partial(_version, name, number)) for number in self.versions(name)]
        return [(v.schema_id or 0, _parsed(v.schema)) for v in found if v is not None]

    def close(self) -> None:
        """Close the connections; safe to call twice."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _registered_id(self, subject: str, schema: AvroSchema, text: str) -> int:
        newest = self.latest(subject)
        if newest is not None and newest[1] == schema:
            return newest[0]
        if newest is None:
            self._ask(lambda client: self._set_level(client, subject))
        else:
            self._refuse_breaking(subject, newest[1], schema)
        registered = self._ask(lambda client: client.register_schema(subject, Schema(text, "AVRO")))
        if registered is None:
            raise ConfigError(f"the schema registry {self.config.place} lost subject {subject}")
        return int(registered)

    def _set_level(self, client: SchemaRegistryClient, subject: str) -> None:
        """Give `subject` its level.

        Of two workers that do so at once, Apicurio refuses one (409): the level is there.
        """
        try:
            client.set_compatibility(subject, self.config.compatibility)
        except SchemaRegistryError as error:
            if error.http_status_code != _CONFLICT:
                raise

    def _refuse_breaking(self, subject: str, old: AvroSchema, new: AvroSchema) -> None:
        """Stop at what breaks readers, unless the subject's level says NONE.

        We give every subject a level before its first version, so NONE is somebody's decision.
        """
        found = breaking(old, new)
        if not found or self._ask(lambda client: client.get_compatibility(subject)) == "NONE":
            return
        spelled = "\n".join(f"  - {difference.sentence}" for difference in found)
        raise SchemaIncompatible(
            f"the new version of {subject} breaks readers of the old one:\n{spelled}",
            hint="Undo the change at the source; or make sure that every reader can take it and "
            "allow it once, then set the level back:\n"
            f"curl -X PUT {self.config.place}/config/{quote(subject, safe='')} "
            "-H 'Content-Type: application/json' -d '{\"compatibility\": \"NONE\"}'",
        )

    def _ask(self, call: Callable[[SchemaRegistryClient], _T]) -> _T | None:
        """Make one request; None means that what was asked for does not exist."""
        with self._named_errors():
            if self._client is None:
                self._client = SchemaRegistryClient(self.config.client())
            try:
                return call(self._client)
            except (SchemaRegistryError, ValueError) as error:
                if getattr(error, "error_code", None) in _ABSENT_CODES:
                    return None
                status = getattr(error, "http_status_code", _NOT_FOUND)
                if status != _NOT_FOUND or not self._at_apicurio():
                    raise
        return self._ask(call)

    def _at_apicurio(self) -> bool:
        """Turn, once, from a bare host to the path at which Apicurio speaks this protocol.

        Called when the host answered, but not like a registry.
        """
        if urlsplit(self.config.url).path.strip("/"):
            return False
        url = self.config.url.rstrip("/") + _APICURIO
        self.config = self.config.model_copy(update={"url": url})
        self.close()
        return True

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except SchemaRegistryError as error:
            raise _named(error, self.config.place) from error
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(
                f"TLS files for the schema registry {self.config.place}: {error}",
                hint="Check kafka.registry.ca, .cert and .key: PEM files this user can read.",
            ) from error
        except ValueError as error:  # a page instead of JSON
            raise _no_registry(self.config.place, str(error)) from error
        except Exception as error:
            if not _is_transport(error):
                raise
            raise _unreachable(error, self.config) from error


def _version(name: str, number: int, client: SchemaRegistryClient) -> RegisteredSchema:
    return client.get_version(name, number)


def _parsed(schema: Schema) -> AvroSchema:
    parsed = json.loads(schema.schema_str or "{}")
    return parsed if isinstance(parsed, dict) else {"type": parsed}


def _named(error: SchemaRegistryError, place: str) -> Exception:
    status, text = error.http_status_code, error.error_message
    if status in _NO_ACCESS:
        return ConfigError(
            f"the schema registry {place} denied access ({status}): {text}",
            hint="Check username and password, or bearer, under kafka.registry.",
        )
    if status in _REFUSED:
        return SchemaIncompatible(
            f"the schema registry {place} refused the schema: {text}",
            hint="`cdc schema diff` shows both versions.",
        )
    if status in _BUSY or status >= 500:
        return RegistryUnavailable(
            f"the schema registry {place} answered {status}: {text}",
            hint="It is asked again; look into its own log if this lasts.",
        )
    return _no_registry(place, f"{status}: {text}")


def _is_transport(error: Exception) -> bool:
    """Tell whether no answer came; the client's HTTP library may be httpx or its successor."""
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__)


def _unreachable(error: Exception, config: RegistryConfig) -> Exception:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return ConfigError(
            f"the certificate of the schema registry {config.place} is not trusted: {error}",
            hint="Name the authority that signed it: kafka.registry.ca: /path/to/ca.pem",
        )
    return RegistryUnavailable(
        f"no answer from the schema registry {config.place} within {config.timeout:g} s: "
        f"{str(error) or type(error).__name__}",
        hint="Is it running, and reachable from here? It is asked again until it answers.",
    )


def _no_registry(place: str, text: str) -> ConfigError:
    return ConfigError(
        f"{place} does not answer like a schema registry ({text})",
        hint="The URL must end where /subjects begins; Apicurio's ends in /apis/ccompat/v7.",
    )
