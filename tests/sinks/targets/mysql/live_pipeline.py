"""Postgres → Kafka → MySQL as a user runs it, killed on the way, compared by `cdc verify`.

Run by `make mysql`.
"""

from __future__ import annotations

from pathlib import Path

from borrowed import borrowed

globals().update(borrowed(Path(__file__).parents[2] / "test_mariadb_pipeline.py"))
