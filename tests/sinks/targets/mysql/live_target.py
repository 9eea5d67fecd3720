"""MySQL keeps the contract of a transactional target: the tests of the MariaDB target, all of them.

Run by `make mysql`. What the two do differently is in `live_differences.py`.
"""

from __future__ import annotations

from pathlib import Path

from borrowed import borrowed

FOLDER = Path(__file__).parents[1]
MARIADB_ONLY = ("test_a_json_column_is_a_text",)

found = {
    **borrowed(FOLDER / "test_mariadb.py", more=["system"]),
    **borrowed(FOLDER / "test_mariadb_apply.py"),
}
TestMySQL = found.pop("TestMariaDB")
for name in MARIADB_ONLY:
    found.pop(name)
globals().update(found)
