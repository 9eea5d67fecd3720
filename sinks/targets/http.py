"""An HTTP endpoint as a target: each change a request, effectively once by its key.

    cursors: do the spans start there? ─▶ requests, in order by row ─▶ cursors: one transaction
    in Kafka                               each with its own key        in Kafka

The endpoint keeps no cursor, so a request that was answered and a cursor that moved are not one
transaction: a worker that dies in between sends the same requests again. They carry the same keys,
for a key is the place of its change in the source and no change is ever merged into another
(`sinks/changes.py`). What the endpoint makes of a key it knows decides: nothing, and each
change has its effect once; the same again, and for requests that are idempotent in order it ends
the same.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import structlog
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from cdc.connector import Context, Finding
from cdc.errors import CdcError, ConfigError, DataError, TargetUnavailable
from cdc.failpoints import failpoint
from schemas.table import TableSchema
from sinks.changes import one_by_one
from sinks.http.auth import Auth
from sinks.http.circuit import Circuit
from sinks.http.delivery import Delivery
from sinks.http.endpoint import Endpoint
from sinks.http.plan import Batching, Form, Forms
from sinks.kafka.cursors import CursorTopic, kafka_of
from sinks.kafka.sole import SoleTarget, forget
from sinks.mapping import Tables
from sinks.options import BufferBytes, Topics
from sinks.refusals import rehearsed
from sinks.target import RowsRefused, Span, Step

__all__ = ["Config", "HttpTarget", "check", "create", "drop"]

_log = structlog.get_logger(__name__)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def _row_at(method: Literal["PUT", "PATCH", "DELETE"]) -> Form:
    return Form(method=method)


class Config(BaseModel):
    """A sink that sends changes to an HTTP endpoint."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["http"] = Field(default="http", description="The connector's name")
    url: str = Field(pattern=r"^https?://", description="Where paths begin")
    tables: Topics
    upsert: Form | Literal["skip", "refuse"] = Field(
        default_factory=lambda: _row_at("PUT"), description="Request for a new or changed row"
    )
    partial: Form | Literal["skip", "refuse"] = Field(
        default_factory=lambda: _row_at("PATCH"),
        description="Request for a changed row of which the log did not carry every value",
    )
    delete: Form | Literal["skip", "refuse"] = Field(
        default_factory=lambda: _row_at("DELETE"), description="Request for a deleted row"
    )
    truncate: Form | Literal["skip", "refuse"] = Field(
        default="refuse", description="Request for an emptied table; `refuse`: a dead letter"
    )
    batch: int = Field(default=1, ge=1, le=10_000, description="Changes in one request")
    batch_method: Literal["POST", "PUT", "PATCH"] = Field(
        default="POST", description="Method of a request for several changes"
    )
    batch_path: str = Field(
        default="/", pattern="^/[^{}]*$", description="Path of a request for several changes"
    )
    concurrency: int = Field(
        default=1, ge=1, le=64, description="Requests under way at once, of different rows"
    )
    headers: dict[str, str] = Field(
        default_factory=dict, description="Further headers; secrets belong under `auth`"
    )
    auth: Auth | None = Field(default=None, description="Who we are; none when left out")
    ca: Path | None = Field(
        default=None, description="PEM file of the authority to trust instead of the system's"
    )
    timeout: float = Field(
        default=10.0, gt=0, le=600, description="Seconds to connect, and to wait for an answer"
    )
    buffer_bytes: BufferBytes = 1024 * 1024
    _circuit: Circuit = PrivateAttr(default_factory=Circuit)

    @field_validator("tables")
    @classmethod
    def _one_by_one(cls, value: Tables) -> Tables:
        return one_by_one(value)

    @model_validator(mode="after")
    def _no_secret_in_the_url(self) -> Config:
        if "@" in urlsplit(self.url).netloc:
            raise ValueError("a user and a password belong under `auth`, not into `url`")
        return self

    @property
    def circuit(self) -> Circuit:
        """The circuit, one for all sessions of a worker."""
        return self._circuit

    def verify(self) -> ssl.SSLContext | bool:
        """Return how the endpoint's certificate is judged. Raises `errors.ConfigError`."""
        if self.ca is None:
            return True
        try:
            return ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"ca: {self.ca} is no PEM file of an authority: {error}") from error

    def forms(self) -> Forms:
        """Return the requests by what they are for."""
        return {
            "upsert": self.upsert,
            "partial": self.partial,
            "delete": self.delete,
            "truncate": self.truncate,
        }


def create(context: Context, config: Config) -> HttpTarget:
    """Return the target; nothing is sent before it is opened."""
    return HttpTarget(context, config)


class HttpTarget(SoleTarget):
    """See `sinks.target.Target`; each row it is given tells of one change (`sinks.changes`)."""

    def __init__(self, context: Context, config: Config) -> None:
        super().__init__(context, kafka_of(context))
        self._config = config
        self._endpoint: Endpoint | None = None
        self._delivery: Delivery | None = None

    def open(self) -> None:
        """Make the topic of cursors where it is missing; the endpoint is first met by a request.

        Raises `errors.TargetUnavailable` while the circuit is open.
        """
        self.close()
        config = self._config
        config.circuit.check()
        self._endpoint = endpoint = Endpoint(config, config.circuit)
        batching = Batching(config.batch, config.batch_method, config.batch_path)
        self._delivery = Delivery(endpoint, config.forms(), batching)
        self._cursors.open()

    def close(self) -> None:
        """Let go of every connection, when what is under way is answered."""
        sending, self._delivery = self._delivery, None
        endpoint, self._endpoint = self._endpoint, None
        if sending is not None:
            sending.close()
        if endpoint is not None:
            endpoint.close()
        self._cursors.close()

    def prepare(self, schema: TableSchema, *, known: bool = False) -> None:  # noqa: ARG002
        """Compile the requests of a table; what the endpoint has of it is not ours to know."""
        self._live().prepare(schema)

    def apply(self, steps: Iterable[Step], spans: Sequence[Span]) -> None:
        """Send the changes, then move the cursors; an error moves them over what was sent."""
        failpoint("sink.before_stage")
        delivery = self._live()
        known = list(spans)  # those of a batch larger than memory are known at its end
        self._cursors.compare(known)
        delivery.begin(known)
        try:
            for step in steps:
                delivery.send(step)
        except RowsRefused:
            raise  # the cut is taken up again without them, from the same cursors
        except CdcError:
            self._keep(delivery.progress())
            raise
        failpoint("sink.before_cursor")
        self._cursors.advance(spans)
        delivery.end()
        failpoint("sink.after_commit")

    def _keep(self, spans: Sequence[Span]) -> None:
        """Note how far a cut has come, so that the next session sends the rest only.

        Where that fails, more is sent again, with the same keys.
        """
        if not spans:
            return
        try:
            self._cursors.advance(spans)
        except CdcError as error:
            _log.info("what was sent is sent again", reason=str(error))

    def rehearse(self, transactions: Iterable[Sequence[Step]]) -> Mapping[int, DataError]:
        """Return which steps cannot be told to the endpoint; nothing is sent."""
        return rehearsed(transactions, lambda step: self._live().judge(step))

    def _live(self) -> Delivery:
        if self._delivery is None:
            raise TargetUnavailable(f"sink {self._name} is closed")
        return self._delivery


def check(context: Context, config: Config) -> Iterator[Finding]:
    """Ask the endpoint for nothing but whether it answers and knows us."""
    url = urlsplit(config.url)
    if url.scheme == "http" and url.hostname not in _LOOPBACK and config.auth is not None:
        repair = "Write `https://` in `url`."
        yield Finding("warn", config.url, "secrets would travel in the clear", repair)
    endpoint = Endpoint(config, Circuit())
    try:
        status = endpoint.look()
        yield Finding("ok", config.url, f"answers ({status} to HEAD)")
    except CdcError as error:
        yield Finding("fail", config.url, str(error), error.hint)
    finally:
        endpoint.close()
    yield Finding(
        "ok", "cursors", f"are kept in Kafka, in {CursorTopic(kafka_of(context), context).name}"
    )


def drop(context: Context, config: Config, *, dry_run: bool) -> Iterator[str]:  # noqa: ARG001
    """Forget the cursors of this sink; the endpoint is left as it is."""
    yield from forget(context, kafka_of(context), dry_run=dry_run)
