"""What can go wrong, and what the caller does about it.

::

    FlashsaleError
    ├── SettingsError          stop; the operator corrects the environment       (exit 2)
    ├── EventRefused           dead-letter the event with its reason
    ├── StoreError             the database; ``sqlstate`` says what it answered  (exit 4)
    │   ├── EventFault         isolate the event, then dead-letter it
    │   ├── TransientFault     keep the batch and try again after a backoff
    │   ├── SystemFault        stop consuming, probe, resume by itself
    │   └── UnclassifiedFault  try again; alone and still failing: dead-letter
    └── BrokerError            RabbitMQ                                          (exit 3)
        ├── BrokerUnavailable  reconnect with backoff
        ├── BrokerMisconfigured  a command stops, a worker waits; the operator
        │                        corrects the broker
        └── PublishUnconfirmed nothing may be taken for published: publish again

An error of one room only is defined in that room; it is a FlashsaleError as well. Messages of
these errors are safe to print: they carry no credentials and no values of rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence


class FlashsaleError(Exception):
    """The root of every error that flashsale raises on purpose."""


class SettingsError(FlashsaleError):
    """The environment is wrong. ``problems`` holds every problem found, one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class EventRefused(FlashsaleError):
    """An event that can never become an order.

    ``reason`` is a stable code for machines; the text is for people and holds no part of the body.
    """

    def __init__(self, reason: str, explanation: str) -> None:
        self.reason = reason
        self.explanation = explanation
        super().__init__(f"{reason}: {explanation}")


class StoreError(FlashsaleError):
    """The database did not do what it was asked. ``sqlstate`` is None where it gave no code."""

    def __init__(self, message: str, *, sqlstate: str | None = None) -> None:
        self.sqlstate = sqlstate
        super().__init__(f"{message} (SQLSTATE {sqlstate})" if sqlstate else message)


class EventFault(StoreError):
    """A value or a reference in the statement is wrong: one of its events is at fault.

    ``row_id`` is the id of the row at fault, where the database names it.
    """

    def __init__(
        self, message: str, *, sqlstate: str | None = None, row_id: str | None = None
    ) -> None:
        self.row_id = row_id
        super().__init__(message, sqlstate=sqlstate)


class TransientFault(StoreError):
    """The transaction had bad luck (deadlock, timeout, lost reply); the same again may succeed."""


class SystemFault(StoreError):
    """The database cannot take any order now (unreachable, full, read-only, not migrated)."""


class UnclassifiedFault(StoreError):
    """An error that fits none of the other classes; nothing is concluded from it."""


class BrokerError(FlashsaleError):
    """RabbitMQ did not do what it was asked."""


class BrokerUnavailable(BrokerError):
    """RabbitMQ cannot be reached, or the connection to it was lost."""


class BrokerMisconfigured(BrokerError):
    """A queue is missing or may not be used; waiting will not mend it."""


class PublishUnconfirmed(BrokerError):
    """RabbitMQ did not confirm every message of a call; the others may or may not have arrived.

    Messages are known by their index in what the call was given. Those below ``taken`` were sent:
    ``unconfirmed`` are to be published again, the rest of them is safe in its queue. Those from
    ``taken`` on were not looked at.
    """

    def __init__(self, message: str, *, unconfirmed: Collection[int], taken: int) -> None:
        self.unconfirmed = frozenset(unconfirmed)
        self.taken = taken
        super().__init__(message)

    def is_confirmed(self, index: int) -> bool:
        """Whether RabbitMQ has taken over the message of this index."""
        return index < self.taken and index not in self.unconfirmed
