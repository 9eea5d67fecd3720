"""The page about topics says what the code does."""

from __future__ import annotations

from pathlib import Path

import schemas
from schemas.avro import envelope_schema
from schemas.table import Column, TableId, TableSchema, Type
from schemas.types import LOGICAL

PAGE = Path(schemas.__file__).with_name("schemas.md").read_text("utf-8")


def row_of(name: str) -> str:
    logical = LOGICAL[name]
    avro = logical.avro(Type(name, precision=1))
    form = ", ".join(filter(None, [avro["type"], avro.get("logicalType")]))
    return f"| `{name}` | {form} |{' yes' if logical.lossy else ''} |"


def test_the_table_of_types_is_the_table_of_the_code() -> None:
    table = PAGE.partition("<!-- types: begin -->\n")[2].partition("<!-- types: end -->")[0]
    assert table.splitlines()[2:] == [row_of(name) for name in sorted(LOGICAL)]


def test_every_field_and_property_of_an_envelope_is_on_the_page() -> None:
    kind = Type("enum", "postgres mood", labels=("ok",))
    column = Column("v", kind, default="1", generated=True)
    envelope = envelope_schema(TableSchema(TableId("s", "t"), (column,)), "t")
    value = envelope["fields"][0]["type"][1]["fields"][0]
    properties = [*envelope, *value, *value["type"][1]]
    names = [field["name"] for field in envelope["fields"]]
    names += [name for name in properties if name.startswith("cdc.")]
    assert [name for name in names if f"`{name}`" not in PAGE] == []
