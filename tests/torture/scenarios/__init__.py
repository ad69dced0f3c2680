"""The scenarios, by what is faulty. Importing this package lists them all."""

from tests.torture.scenarios import events, machine, postgres, processes, rabbitmq

__all__ = ["events", "machine", "postgres", "processes", "rabbitmq"]
