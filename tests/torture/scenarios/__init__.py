"""The scenarios, by what is faulty. Importing this package lists them all."""

from tests.torture.scenarios import (
    administration,
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
    "events",
    "failover",
    "machine",
    "postgres",
    "processes",
    "rabbitmq",
    "transactions",
    "versions",
]
