"""The scenarios, by what is faulty. Importing this package lists them all."""

from tests.torture.scenarios import (
    administration,
    cluster,
    events,
    failover,
    machine,
    postgres,
    processes,
    rabbitmq,
    transactions,
    versions,
)

__all__ = [
    "administration",
    "cluster",
    "events",
    "failover",
    "machine",
    "postgres",
    "processes",
    "rabbitmq",
    "transactions",
    "versions",
]
