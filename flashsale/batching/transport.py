"""What the consumer needs of a message broker; each transport implements it once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from flashsale.batching.batch import Delivery, Rejection
from flashsale.batching.ledger import Ledger


class ChannelLost(Exception):
    """The channel is gone, or could not be opened: its deliveries come back on another.

    The text is safe to log.
    """


@dataclass(frozen=True, slots=True)
class Letter:
    """A delivery on its way to the dead letters; `ledger` is its channel's."""

    ledger: Ledger
    delivery: Delivery
    rejection: Rejection
    attempts: int
    #: Seconds since the epoch.
    received_at: float


class Channel(Protocol):
    """One consuming channel. Its methods belong to one thread, save :meth:`wake`.

    All but ``wake`` and ``close`` raise :class:`ChannelLost` where the channel lives no more.
    """

    def start_consuming(self) -> None:
        """Let deliveries come. Harmless where they come already."""

    def stop_consuming(self) -> None:
        """Let no more deliveries come; those not received yet go back to the queue."""

    def receive(
        self, seconds: float, limit: int, *, gather_seconds: float = 0.0
    ) -> Sequence[Delivery]:
        """What has arrived, about `limit` at most; waits up to `seconds` for the first.

        Returns early, and perhaps with nothing, after :meth:`wake`. Before it looks, it may let
        deliveries gather for up to `gather_seconds`: to look at each by itself is dear.
        """

    def ask_backlog(self, queue: str, take: Callable[[int], object]) -> None:
        """Ask how many messages wait in one of its queues for each of the queue's consumers.

        Those that are delivered do not count. The answer is not waited for: `take` is told during
        a later :meth:`receive`, or at once; or never, where the channel ends first.
        """

    def ack(self, tag: int, *, multiple: bool) -> None:
        """Acknowledge `tag`; with `multiple`, all outstanding tags below it as well."""

    def give_back(self, tags: Sequence[int]) -> None:
        """Return these deliveries to the queue."""

    def wake(self) -> None:
        """Let :meth:`receive` return now. Thread-safe."""

    def close(self) -> None:
        """Close, and let what is outstanding return to the queue. Never raises; may be repeated."""


class Transport(Protocol):
    """Opens channels to one or more queues and carries dead letters away."""

    @property
    def missing_queues(self) -> Sequence[str]:
        """Those that its channel does not consume, though it does others. Thread-safe."""

    def open(self) -> Channel:
        """A new channel that does not consume yet.

        Raises:
            ChannelLost: the broker cannot be reached or used now.
        """

    def dead_letter(
        self, letters: Sequence[Letter], on_confirmed: Callable[[Sequence[Letter]], None]
    ) -> None:
        """Publish dead letters, without limit of attempts, and never block the caller.

        `on_confirmed` is called, from any thread, with those the broker has confirmed.
        """

    def close(self, seconds: float) -> None:
        """Give dead letters on their way up to `seconds`, then stop. Harmless when repeated."""
