"""A sink of a test's own: a worker in a thread, from the test's pipeline into an empty database."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import msgspec
import psycopg
import pytest

from cdc.config import OnPoison
from cdc.connector import Context
from cdc.errors import CdcError, KafkaUnavailable
from cdc.publish import PublishConfig, Publisher
from cdc.source import Batch
from cdc.worker import Command
from fix_pipeline import ITEMS, At, Pipeline, item_batch, wait_until
from schemas.change import Cell, Change, Op, Origin, Rows, Stamp
from schemas.table import TableSchema
from sinks.applier import Applied
from sinks.job import SinkJob, SinkStatus
from sinks.mapping import Selection
from sinks.targets import postgres
from sinks.topic_lookup import Lookups
from sinks.worker import run_sink

# An insert trigger counts what is applied; an upsert that hits an existing row updates it.
AUDIT = """
CREATE TABLE items (id bigint PRIMARY KEY, name text);
CREATE TABLE audit (op text, id bigint);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO audit VALUES (TG_OP, NEW.id); RETURN NEW; END $$;
CREATE TRIGGER noted AFTER INSERT OR UPDATE ON items FOR EACH ROW EXECUTE FUNCTION note();
"""


def changes(
    commit: int,
    *items: Change,
    schema: TableSchema = ITEMS,
    first: int = 0,
    incarnation: int = 1,
) -> Rows:
    """Rows of one transaction; `first` is the ordinal of the first."""
    origin = Origin(incarnation, commit, 1_700_000_000_000_000 + commit, str(commit))
    return Rows(schema, "changes", origin, list(items), range(first, first + len(items)))


def piece(boundary: int, *rows: Rows) -> Batch:
    """A batch behind which transactions up to `boundary` are complete."""
    incarnation = rows[-1].origin.incarnation
    return Batch(list(rows), At(boundary), Stamp(incarnation, boundary))


def insert(*row: bytes | None) -> Change:
    return Change(Op.CREATE, None, row)


def update(*row: Cell) -> Change:
    return Change(Op.UPDATE, None, row)


def delete(*row: Cell) -> Change:
    return Change(Op.DELETE, row, None)


def commit(publisher: Publisher, *batches: Batch) -> None:
    """Publish `batches` in one Kafka transaction."""
    for batch in batches:
        publisher.add(batch)
    publisher.commit()


class Asked:
    """Control requests, as a list."""

    def __init__(self) -> None:
        self.commands: list[Command] = []

    def poll(self) -> Sequence[Command]:
        asked, self.commands = self.commands, []
        return asked


class Told:
    """What the worker reported."""

    def __init__(self) -> None:
        self.batches: list[Applied] = []
        self.broken: Counter[tuple[str, str]] = Counter()
        self.states: list[str] = []
        self.errors: list[CdcError] = []
        self.attempts: list[int] = []
        self.last = SinkStatus()

    def applied(self, applied: Applied) -> None:
        self.batches.append(applied)

    def invalid(self, rows: Mapping[tuple[str, str], int]) -> None:
        self.broken.update(rows)

    def rests(self, attempt: int) -> float:
        """Note before which attempt the sink rests, and let it rest a moment."""
        self.attempts.append(attempt)
        return 0.05

    def beat(self, status: SinkStatus, error: CdcError | None) -> None:
        self.last = status
        self.states.append(status.state)
        if error is not None:
            self.errors.append(error)

    @property
    def rows(self) -> int:
        return sum(batch.rows for batch in self.batches)


class Running:
    """A sink worker into any target; `start` it in a thread, or let a test call it.

    `target` is the target's module, and `options` are those of its `Config`.
    """

    def __init__(self, pipeline: Pipeline, context: Context, target: Any, **options: Any) -> None:
        self.pipeline = pipeline
        self.context = context
        given = {"tables": [f"{pipeline.source}.*"], **options}
        self.config = target.Config.model_validate(given)
        self.asked, self.told = Asked(), Told()
        self.failed: BaseException | None = None
        self._target = target
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def job(self) -> SinkJob:
        return SinkJob(
            context=self.context,
            kafka=self.pipeline.kafka,
            target=lambda: self._target.create(self.context, self.config),
            selection=Selection(self.config.tables),
            schemas=self.pipeline.registry,
            control=self.asked,
            reporter=self.told,
            stop=self._stop.is_set,
            back_off=self.told.rests,
            buffer_bytes=self.config.buffer_bytes,
        )

    def start(self) -> Self:
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def _run(self) -> None:
        try:
            run_sink(self.job())
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.failed = error

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)
            assert not self._thread.is_alive(), "the sink does not stop"

    def check(self) -> None:
        """Fail where the worker has failed."""
        if self.failed is not None:
            raise AssertionError("the sink failed") from self.failed


class Sink(Running):
    """One sink worker into Postgres."""

    def __init__(self, pipeline: Pipeline, url: str, **options: Any) -> None:
        super().__init__(pipeline, Context(pipeline.name, "mirror"), postgres, url=url, **options)
        self.url = url
        self.on_poison: OnPoison = "dead_letter"

    def job(self) -> SinkJob:
        return msgspec.structs.replace(
            super().job(),
            workers=self.config.workers,
            on_poison=self.on_poison,
            lookups=Lookups(self.config.tables, self.pipeline.kafka, self.pipeline.registry),
        )

    def query(self, text: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(text).fetchall()

    def wait_for(self, text: str, wanted: object, deadline_s: float = 30.0) -> None:
        """Wait until the query returns `wanted`; a worker that failed says why."""

        def arrived() -> bool:
            self.check()
            try:
                self.found: object = self.query(text)
            except psycopg.errors.UndefinedTable:
                return False
            return self.found == wanted

        try:
            wait_until(arrived, text, deadline_s)
        except AssertionError as error:
            found = getattr(self, "found", None)
            raise AssertionError(
                f"{error}: {found!r}, not {wanted!r}; {self.told.last} {self.told.errors[-1:]}"
            ) from self.failed

    def wait_to_fail(self, deadline_s: float = 30.0) -> BaseException:
        wait_until(lambda: self.failed, "the sink fails", deadline_s)
        assert self.failed is not None
        return self.failed


def both_apply(publisher: Publisher, workers: list[Sink]) -> int:
    """Publish until each worker has applied something; return how many commits that took."""
    commits = iter(range(1, 10_000))

    def shared() -> int:
        number = next(commits)
        commit(publisher, item_batch(number, list(range(number * 10, number * 10 + 10))))
        return number if all(worker.told.rows for worker in workers) else 0

    return int(wait_until(shared, "both workers apply something"))


@pytest.fixture
def make_publisher(pipeline: Pipeline) -> Iterator[Callable[..., Publisher]]:
    """Make publishers that own the test's source; closed after the test."""
    made: list[Publisher] = []

    def make(**options: Any) -> Publisher:
        def acquired() -> Publisher | None:
            publisher = pipeline.publisher(PublishConfig.model_validate(options))
            made.append(publisher)
            try:
                publisher.acquire()
            except KafkaUnavailable:  # a partition made this moment may have no leader yet
                return None
            return publisher

        found: Publisher = wait_until(acquired, "the source's topic is ready")
        return found

    yield make
    for publisher in made:
        publisher.close()


@pytest.fixture
def publisher(make_publisher: Callable[..., Publisher]) -> Publisher:
    return make_publisher()


def as_they_are(pipeline: Pipeline) -> dict[str, Any]:
    """Map items as they are, said with casts: then the target's columns may be narrower."""
    fields = {"id": {"from": "id", "as": "bigint"}, "name": {"from": "name", "as": "text"}}
    return {f"{pipeline.source}.*": {"rest": True, "fields": fields}}


@pytest.fixture
def make_sink(pipeline: Pipeline, pg_database: str) -> Iterator[Callable[..., Sink]]:
    made: list[Sink] = []

    def make(**options: Any) -> Sink:
        made.append(Sink(pipeline, pg_database, **options))
        return made[-1]

    yield make
    for sink in made:
        sink.stop()


@pytest.fixture
def run_into(pipeline: Pipeline) -> Iterator[Callable[..., Running]]:
    """Start workers of a sink `crm`, each into the target whose module is given."""
    made: list[Running] = []

    def start(target: Any, **options: Any) -> Running:
        context = Context(pipeline.name, "crm", pipeline.kafka)
        made.append(Running(pipeline, context, target, **options))
        return made[-1].start()

    yield start
    for running in made:
        running.stop()
