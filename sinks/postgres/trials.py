"""Which of many rows the server refuses: each is tried where it lies, in staging.

    16 rows at once ─▶ the next 16
         └─ refused ─▶ one by one ─▶ those refused, and why

A search from outside sends every row several times and waits for seven answers each time; a
function of the session tries all of them in one call. What it finds says where to cut, and is no
verdict: whoever asks tries the pieces again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from psycopg import sql

__all__ = ["WORTH_IT", "refused"]

_TOGETHER = 16
WORTH_IT = 2 * _TOGETHER
"""Rows from which on it pays to ask."""
_NAME = sql.Identifier("pg_temp", "tailrace_tries")
_MAKE = """
CREATE OR REPLACE FUNCTION {name}(OUT tailrace_line bigint, OUT tailrace_why text)
RETURNS SETOF record LANGUAGE plpgsql AS {body}
"""
_BODY = """
#variable_conflict use_column
DECLARE
    tailrace_rows record;
    tailrace_row tid;
BEGIN
    FOR tailrace_rows IN
        SELECT array_agg(place ORDER BY line) AS places, min(line) AS first
        FROM (SELECT ctid AS place, row_number() OVER (ORDER BY line) AS line
              FROM {stage} WHERE step = {step}) numbered
        GROUP BY (line - 1) / {together} ORDER BY min(line)
    LOOP
        BEGIN
            {several};
        EXCEPTION WHEN OTHERS THEN
            tailrace_line := tailrace_rows.first - 1;
            FOREACH tailrace_row IN ARRAY tailrace_rows.places LOOP
                tailrace_line := tailrace_line + 1;
                BEGIN
                    {one};
                EXCEPTION WHEN OTHERS THEN
                    tailrace_why := SQLERRM;
                    RETURN NEXT;
                END;
            END LOOP;
        END;
    END LOOP;
END
"""

Insert = Callable[[sql.Composable], sql.Composable]
"""Makes the merge of those rows of a step for which a condition on staging, `s`, holds."""


def refused(
    connection: psycopg.Connection[Any], stage: sql.Identifier, step: int, insert: Insert
) -> Mapping[int, str]:
    """Try the rows of a step, and return the numbers, from 0, of those refused, and why.

    Staging numbers its rows. What is taken stays. Raises as psycopg does, also where there is no
    PL/pgSQL.
    """
    body = sql.SQL(_BODY).format(
        stage=stage,
        step=sql.Literal(step),
        together=sql.Literal(_TOGETHER),
        several=insert(sql.SQL("s.ctid = ANY (tailrace_rows.places)")),
        one=insert(sql.SQL("s.ctid = tailrace_row")),
    )
    text = sql.Literal(body.as_string(connection))
    connection.execute(sql.SQL(_MAKE).format(name=_NAME, body=text))
    rows = connection.execute(sql.SQL("SELECT * FROM {}()").format(_NAME)).fetchall()
    return {line - 1: why for line, why in rows}
