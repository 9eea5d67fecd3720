"""Real Kafka, schema registry and PostgreSQL as child processes, for the demo and the tests.

No Docker and no root: the servers come from package registries, pinned and verified, into the
user's cache folder. They listen on 127.0.0.1 alone and never outlive the process that started them.

    with LocalStack() as stack:
        stack.kafka.bootstrap, stack.registry.url, stack.postgres.create_database("shop")
"""

from cdc.local.errors import LocalStackError
from cdc.local.kafka import LocalKafka
from cdc.local.postgres import LocalPostgres
from cdc.local.registry import LocalRegistry
from cdc.local.stack import LocalStack

__all__ = ["LocalKafka", "LocalPostgres", "LocalRegistry", "LocalStack", "LocalStackError"]
