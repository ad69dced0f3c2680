"""The scenarios, by what is faulty. Importing this package lists them all."""

from tests.torture.scenarios import (
    administration,
    events,
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
    "machine",
    "postgres",
    "processes",
    "rabbitmq",
    "transactions",
    "versions",
]
