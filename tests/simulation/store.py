"""A model of the database behind the actor: a unique key, and every way in which it can fail."""

from __future__ import annotations

from enum import Enum

from flashsale.batching import DONE, Batch, Failure, Rejection, Verdict

REFUSED = Rejection("constraint", "23514")
UNREADABLE = Rejection("unreadable")


class Health(Enum):
    UP = "up"
    DOWN = "down"
    FULL = "full"
    """A probe succeeds, a write does not."""


class Fault(Enum):
    """What goes wrong with one batch."""

    BEFORE_COMMIT = "fails before its commit"
    LOST_REPLY = "commits, and the reply is lost"
    HALF_WAY = "commits its first half, then the connection is lost"
    UNCLASSIFIED = "fails for every second event, for no known reason"


class StoreFailed(Exception):
    """Carries the class of the failure, as the real store's errors do by their types."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.value)
        self.failure = failure


def decode(body: bytes) -> bytes | Rejection:
    """The part of the consumer's decoder: the item is the body itself."""
    return UNREADABLE if body.startswith(b"unreadable") else body


class Store:
    """Takes good events, refuses those named ``refused``, and fails at those named ``hopeless``."""

    def __init__(self) -> None:
        self.health = Health.UP
        self.rows: set[bytes] = set()

    def confirm(self, batch: Batch[bytes], fault: Fault | None = None) -> None:
        """The actor: events that are at fault are isolated, the others commit.

        Raises:
            StoreFailed: purchases without a verdict are to be tried again.
        """
        if self.health is Health.DOWN or (self.health is Health.FULL and not batch.is_probe):
            raise StoreFailed(Failure.SYSTEM)
        if fault is Fault.BEFORE_COMMIT:
            raise StoreFailed(Failure.TRANSIENT)
        verdicts: list[Verdict | None] = [None] * len(batch)
        reached = len(batch) // 2 if fault is Fault.HALF_WAY else len(batch)
        failed_alone = False
        for index, body in enumerate(batch.items[:reached]):
            unlucky = fault is Fault.UNCLASSIFIED and index % 2 == 0
            if unlucky or body.startswith(b"hopeless"):
                failed_alone = True
            elif body.startswith(b"refused"):
                verdicts[index] = REFUSED
            else:
                self.rows.add(body)
                verdicts[index] = DONE
        if fault is Fault.LOST_REPLY:
            raise StoreFailed(Failure.TRANSIENT)
        batch.verdicts = verdicts
        if fault is Fault.HALF_WAY:
            raise StoreFailed(Failure.TRANSIENT)
        if failed_alone:
            raise StoreFailed(Failure.UNCLASSIFIED)
