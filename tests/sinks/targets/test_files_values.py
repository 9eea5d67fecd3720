"""What lies in a file of each format, in which folder, and what can be wrong with the place."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cdc.config import parse_pipeline
from cdc.errors import ConfigError, SchemaIncompatible, StateError, TargetUnavailable
from fix_files import CONTEXT, ITEMS, PLACE, Files, items, journal, offsets, row, steps
from schemas.change import Stamp
from schemas.table import Column, Type
from schemas.types import LOGICAL
from sinks.files import store as store_module
from sinks.target import Barrier, RowsRefused, TopicPartition
from sinks.targets import files
from sinks.targets.files import Config
from sinks.testing import span

PAGE = Path("sinks/targets/files.md")


# Values

VALUES: dict[str, tuple[Type, dict[bytes, tuple[Any, Any]]]] = {
    "boolean": (Type("boolean"), {b"t": (True, True), b"f": (False, False)}),
    "int16": (Type("int16"), {b"-32768": (-32768, -32768)}),
    "int32": (Type("int32"), {b"2147483647": (2147483647, 2147483647)}),
    "int64": (Type("int64"), {b"-9223372036854775808": (-(2**63), -(2**63))}),
    "float32": (Type("float32"), {b"0.5": (0.5, 0.5)}),
    "float64": (
        Type("float64"),
        {
            b"0.30000000000000004": (0.1 + 0.2, 0.1 + 0.2),
            b"-Infinity": (-float("inf"), "-Infinity"),
        },
    ),
    "decimal": (
        Type("decimal", "", 50, 10),
        {b"12345678901234567890.0000000001": (Decimal("12345678901234567890.0000000001"), ...)},
    ),
    "date": (Type("date"), {b"2026-01-31": (date(2026, 1, 31), ...)}),
    "time": (Type("time"), {b"23:59:59.999999": (time(23, 59, 59, 999999), ...)}),
    "timestamp": (
        Type("timestamp"),
        {b"2026-01-31 08:00:00.5": (datetime(2026, 1, 31, 8, 0, 0, 500_000), ...)},  # noqa: DTZ001
    ),
    "timestamptz": (
        Type("timestamptz"),
        {b"2026-01-31 08:00:00+00": (datetime(2026, 1, 31, 8, tzinfo=UTC), ...)},
    ),
    "bytes": (Type("bytes"), {b"\\x00ff0a": (b"\x00\xff\n", ...)}),
    "uuid": (Type("uuid"), {b"0e37df36-f698-11e6-8dd4-cb9ced3df976": (..., ...)}),
    "string": (Type("string"), {b'a "b",\r\n\t\\N': (..., ...), b"": (..., ...)}),
    "json": (Type("json"), {b'{"a": 1.10}': (..., ...)}),
    "enum": (Type("enum", labels=("1", "2")), {b"1": (..., ...)}),
    "text": (Type("text", "postgres numeric"), {b"NaN": (..., ...)}),
}
"""Logical type → a type, and by the text that travels what Parquet and JSON lines hold of it."""


def test_each_logical_type_has_a_case_and_a_line_on_the_page() -> None:
    page = PAGE.read_text("utf-8")
    assert VALUES.keys() == LOGICAL.keys()
    assert [name for name in LOGICAL if f"`{name}`" not in page] == []


@pytest.mark.parametrize(("place", "kind"), [(0, "parquet"), (1, "jsonl"), (2, "csv")])
def test_a_value_is_written_in_the_form_its_type_states(
    tmp_path: Path, place: int, kind: str
) -> None:
    for name, (type_, values) in VALUES.items():
        lake = Files(str(tmp_path / name), format=kind)
        rows = [row(n, cell) for n, cell in enumerate([*values, None])]
        lake.open().apply(steps(*rows, schema=journal(Column("v", type_))), [span(None, 9)])
        texts = [cell.decode() for cell in values]
        forms = [(*forms, ...)[place] for forms in values.values()]
        wanted = [text if to is ... else to for text, to in zip(texts, forms, strict=True)]
        nothing = "" if kind == "csv" else None
        assert [found["v"] for found in lake.rows()] == [*wanted, nothing], name


def test_a_csv_tells_null_from_an_empty_text(tmp_path: Path) -> None:
    lake = Files(str(tmp_path), format="csv")
    lake.open().apply(steps(row(1, None, b"")), [span(None, 2)])
    assert lake.read(lake.names()[0]).splitlines()[1].startswith(b',"","u",')


def test_a_value_that_parquet_does_not_hold_is_refused_with_its_row(store: Files) -> None:
    odd = {
        "date": b"infinity", "time": b"24:00:00", "timestamp": b"0044-03-15 00:00:00 BC",
        "decimal": b"NaN", "int32": b"2147483648", "boolean": b"maybe", "bytes": b"hex",
    }  # fmt: skip
    target = store.open()
    for kind, cell in odd.items():
        schema = journal(Column("v", Type(kind, "", 12, 2)))
        batch = steps(row(1, None), row(2, cell), schema=schema)
        with pytest.raises(RowsRefused, match=rf"items\.v takes no such {kind}") as caught:
            target.apply(batch, [span(None, 3)])
        key = (PLACE.topic.encode(), b"0", b"2")
        assert list(caught.value.rows) == [(schema.table, key)]
        assert list(target.rehearse([[*items(1), *batch]])) == [1]
    assert store.names() == []


# Folders


def test_rows_lie_in_folders_of_their_time_and_of_a_value(tmp_path: Path) -> None:
    lake = Files(str(tmp_path), by_time="hour", by="name", format="jsonl")
    rows = [row(1, b"1", b"a/b c"), row(2, b"2", None), row(3, b"3", b"a/b c"), row(25, b"4", b"")]
    lake.open().apply(steps(*rows), [span(None, 26)])
    assert sorted({name.rpartition("/")[0] for name in lake.names()}) == [
        "shop.items/cdc_hour=2026-01-20T01/name=__HIVE_DEFAULT_PARTITION__",
        "shop.items/cdc_hour=2026-01-20T01/name=a%2Fb%20c",
        "shop.items/cdc_hour=2026-01-20T02/name=__HIVE_DEFAULT_PARTITION__",
        "shop.items/cdc_hour=2026-01-20T03/name=a%2Fb%20c",
    ]
    assert offsets(lake) == [1, 2, 3, 25]
    assert lake.open().cursors([PLACE]) == {PLACE: span(None, 26).end}


def test_a_table_without_the_column_of_the_folders_stops_the_sink(tmp_path: Path) -> None:
    with pytest.raises(SchemaIncompatible, match="no column country"):
        Files(str(tmp_path), by="country").open(ITEMS)


# Configuration, and what can be wrong


def test_changes_are_taken_one_by_one() -> None:
    config = Config.model_validate({"path": "x", "tables": {"a": {"to": "b"}, "!c": None}})
    assert isinstance(config.tables, dict)
    [table] = config.tables["a"]
    assert (table.to, table.way) == ("b", "changes")
    for wrong in ({"mode": "history"}, {"key": ["id"]}):
        with pytest.raises(ValidationError, match="one by one"):
            Config.model_validate({"path": "x", "tables": {"a": wrong}})


def test_the_pipeline_on_the_page_is_valid() -> None:
    found = re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    pipeline = parse_pipeline(found[1], Path("files.md"), {})
    assert isinstance(pipeline.sinks["archive"].config, Config)


def test_a_store_that_takes_no_files_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("a file, no folder")
    with pytest.raises(TargetUnavailable):
        Files(str(tmp_path / "lake" / "below")).open()


def test_a_store_whose_library_has_errors_of_its_own_is_tried_again(
    folder: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    class EndpointConnectionError(Exception):
        """Such as botocore's, which is no OSError."""

    def away(*_: object, **__: object) -> None:
        raise EndpointConnectionError("no route")

    target = folder.open()
    monkeypatch.setattr(store_module.os, "fsync", away)
    with pytest.raises(TargetUnavailable, match="no route"):
        target.apply(items(1), [span(None, 3)])
    monkeypatch.undo()
    target = folder.open()
    target.apply(items(1), [span(None, 3)])
    assert offsets(folder) == [1]
    assert len(folder.names()) == 1


def test_a_store_of_an_unknown_kind_is_a_mistake_in_the_file() -> None:
    with pytest.raises(ConfigError, match="gopher"):
        Files("gopher://somewhere").open()


def test_a_topic_whose_files_could_not_be_named_stops_the_sink(folder: Files) -> None:
    with pytest.raises(ConfigError, match="longer than file systems"):
        folder.open().cursors([TopicPartition("x" * 101, "id", 0)])


def test_a_truncation_of_another_form_than_a_row_stops_the_sink(folder: Files) -> None:
    barrier = Barrier(ITEMS, Stamp(1, 1), snapshot=False, spans=[span(None, 1)], partitions=1)
    with pytest.raises(StateError, match="truncation"):
        folder.open().meet(barrier)


def test_a_check_counts_the_files_and_names_a_gap(folder: Files) -> None:
    target = folder.open()
    for start, end in ((None, 3), (3, 6), (6, 9)):
        target.apply(items(end - 1), [span(start, end)])
    [found] = files.check(CONTEXT, folder.config)
    assert (found.level, found.message.partition(" are ")[0]) == ("ok", "3 files of 1 partitions")
    Path(folder.path, folder.names()[1]).unlink()
    [found] = files.check(CONTEXT, folder.config)
    assert (found.level, "a gap from offset 3 to 6" in found.message) == ("fail", True)
