"""What commands say, where it depends on what they were told."""

from __future__ import annotations

import pytest

from cdc.cli.init import pipeline_text
from cdc.cli.status import _remark
from cdc.connections.postgres import Login, parameters
from cdc.errors import ConfigError
from cdc.logs import redact
from cdc.status import Heartbeat
from schemas.table import Column, TableId, TableSchema, Type


def test_a_server_s_error_of_several_lines_takes_one_cell_of_the_status() -> None:
    beat = Heartbeat("source/shopdb", "streaming", error="no column\nLINE 1: a\n        ^")
    assert _remark(beat, "streaming") == "no column LINE 1: a ^"


@pytest.mark.parametrize(("count", "said"), [(0, "0 columns"), (1, "1 column"), (2, "2 columns")])
def test_init_counts_in_singular_and_plural(count: int, said: str) -> None:
    columns = tuple(Column(f"c{number}", Type("int64")) for number in range(count))
    table = TableSchema(TableId("public", "notes"), columns, ())
    assert f"# {said}, no key" in pipeline_text("shop", "postgres", "SHOP_URL", [table])


def test_the_form_of_a_url_is_not_masked_as_if_it_were_one() -> None:
    with pytest.raises(ConfigError) as caught:
        parameters(Login("shop", "test"))
    assert "***" not in redact(caught.value.hint)
