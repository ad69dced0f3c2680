"""A batch: the deliveries that an actor gets as one message, and the verdict on each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeVar

import msgspec

if TYPE_CHECKING:
    from flashsale.batching.ledger import Ledger

T = TypeVar("T")


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """One message as the broker delivered it; `tag` means something on its own channel only."""

    tag: int
    body: bytes
    redelivered: bool = False
    #: Whether the broker keeps it through a restart of its own.
    persistent: bool = True
    #: Where it came from, among the queues of one transport.
    queue: str = ""


class _Done(Enum):
    DONE = "done"


DONE: Final = _Done.DONE


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a delivery is dead-lettered: a stable reason, and the SQLSTATE where there is one.

    `explanation` says more where there is more to say, in words that are safe to log.
    """

    reason: str
    sqlstate: str | None = None
    # Programs go by the codes alone, and so does whether two rejections are the same.
    explanation: str | None = field(default=None, compare=False)


#: DONE: the work is durable, acknowledge. A rejection: dead-letter. None: not decided yet.
Verdict = Literal[_Done.DONE] | Rejection


class Failure(Enum):
    """What an actor's exception says about the deliveries it left without a verdict."""

    TRANSIENT = "transient"
    """Bad luck: the same again may succeed."""
    SYSTEM = "system"
    """Nothing can succeed now, whatever the delivery."""
    UNCLASSIFIED = "unclassified"
    """Neither is known."""


class Batch(Generic[T]):
    """Deliveries on their way through an actor.

    The actor reads ``items`` and writes a verdict at the same index of ``verdicts``. Those it
    leaves as None are tried again in a later batch: partial progress is never lost. An empty batch
    is a probe: the actor does all it would do for a full one, and so shows whether it could.

    A batch is owned by one thread at a time: the consumer's, then a worker's, then the consumer's.
    """

    __slots__ = (
        "attempts",
        "deliveries",
        "explanation",
        "failure",
        "hold_until",
        "items",
        "ledger",
        "progress_at_failure",
        "received_at",
        "repeats",
        "unclassified_failures",
        "verdicts",
    )

    def __init__(
        self,
        ledger: Ledger | None,
        items: Sequence[T],
        deliveries: Sequence[Delivery],
    ) -> None:
        self.ledger = ledger
        self.items = items
        self.deliveries = deliveries
        self.verdicts: list[Verdict | None] = [None] * len(items)
        #: Failed attempts so far at the deliveries in it.
        self.attempts = 0
        #: Those of them whose cause was unknown; see HeldRetries.
        self.unclassified_failures = 0
        self.failure: Failure | None = None
        #: The failure in words that are safe to log.
        self.explanation = ""
        #: The clock's reading before which the rest is not tried again.
        self.hold_until = 0.0
        #: When the first of them was handed out, in seconds since the epoch; for people only.
        self.received_at = time.time()
        #: How many of the verdicts DONE are for work that was done before; for counting only.
        self.repeats = 0
        #: What the process had settled when the rest first failed so; see HeldRetries.
        self.progress_at_failure: int | None = None

    @classmethod
    def probe(cls) -> Batch[T]:
        return cls(None, (), ())

    @property
    def is_probe(self) -> bool:
        return not self.items

    def settle_all(self) -> None:
        """Give every delivery the verdict DONE."""
        self.verdicts = [DONE] * len(self.items)

    def undecided(self) -> list[int]:
        """The indexes without a verdict."""
        return [index for index, verdict in enumerate(self.verdicts) if verdict is None]

    def rest(self) -> Batch[T]:
        """A batch of the undecided, which remembers that it failed."""
        rest = self._part(self.undecided())
        rest.attempts = self.attempts + 1
        return rest

    def split(self, size: int) -> tuple[Batch[T], Batch[T]]:
        """The first `size` deliveries, and the others, as batches of their own."""
        return self._part(range(size)), self._part(range(size, len(self)))

    def _part(self, indexes: Sequence[int]) -> Batch[T]:
        part = Batch(
            self.ledger,
            [self.items[index] for index in indexes],
            [self.deliveries[index] for index in indexes],
        )
        part.attempts = self.attempts
        part.unclassified_failures = self.unclassified_failures
        part.hold_until = self.hold_until
        part.received_at = self.received_at
        part.progress_at_failure = self.progress_at_failure
        return part

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        # Dramatiq logs an actor's arguments; the bodies must not appear there.
        return f"<{type(self).__name__} of {len(self)}, {self.attempts} failed attempts>"
