"""Chunks follow the order of the key's own type, wherever its operators live.

An extension outside the role's search_path (`CREATE EXTENSION citext SCHEMA extensions` is usual
on managed servers) orders its type by its operator class, but `key > value` finds operators by
search_path: text's `>` would be taken for citext's, and rows between two chunks would be lost.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from fix_capture import Capture

WORDS = [chr(letter + (32 if letter % 2 else 0)) * 3 for letter in range(ord("A"), ord("Z") + 1)]
"""BBB, aaa, …: every second one in upper case, so that text and citext order them differently."""


@pytest.mark.parametrize("path", ["public", "''", "public, extensions"])
def test_no_row_is_lost_whatever_the_search_path(
    capture: Capture, db: psycopg.Connection[Any], path: str
) -> None:
    db.execute("CREATE SCHEMA extensions")
    db.execute("CREATE EXTENSION citext SCHEMA extensions")
    db.execute("CREATE TABLE public.word (w extensions.citext, n int, PRIMARY KEY (w, n))")
    with db.cursor() as cursor:
        cursor.executemany("INSERT INTO public.word VALUES (%s, 1)", [(word,) for word in WORDS])
    db.execute(f"ALTER DATABASE {db.info.dbname} SET search_path = {path}")
    capture.options["tables"] = ["public.word"]
    capture.options["chunk_rows"] = 3
    capture.until_snapshot_done()
    assert sorted(row[0].decode() for row in capture.model.rows("public.word")) == sorted(WORDS)
