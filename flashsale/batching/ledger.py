"""Which deliveries of one channel are open, and how far they can be acknowledged at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class Ledger:
    """The open deliveries of one channel.

    AMQP's cumulative acknowledgement takes *every* outstanding tag up to the one it names, so a
    tag may be named only when nothing below it is still open. A ledger belongs to one channel and
    dies with it: after a reconnect the same tags name other messages, and a batch of the old
    channel shows by its ledger that it may not touch the new one.

    Not thread-safe: it lives on the consumer's thread.
    """

    def __init__(self) -> None:
        self._order: deque[int] = deque()
        self._open: set[int] = set()
        self._settled: set[int] = set()
        #: Set once the channel is gone, and with it the meaning of the tags.
        self.is_closed = False

    @property
    def open_count(self) -> int:
        """Deliveries that are neither settled nor given back."""
        return len(self._open)

    @property
    def unacknowledged_count(self) -> int:
        """Settled deliveries that no acknowledgement has named or covered yet."""
        return len(self._settled)

    def deliver(self, tags: Iterable[int]) -> None:
        """Enter new deliveries; their tags must be higher than all before."""
        before = len(self._order)
        self._order.extend(tags)
        for index in range(before, len(self._order)):
            self._open.add(self._order[index])

    def settle(self, tags: Iterable[int]) -> int:
        """Mark deliveries as done with. Returns how many of them were open."""
        settled = self._open.intersection(tags)
        self._open -= settled
        self._settled |= settled
        return len(settled)

    def give_back(self, tags: Iterable[int]) -> list[int]:
        """Forget deliveries that return to the queue; those among `tags` that were open, sorted.

        They must be given back on the channel before the next :meth:`acknowledge`.
        """
        returned = self._open.intersection(tags)
        self._open -= returned
        return sorted(returned)

    def acknowledge(self) -> int | None:
        """The tag up to which all is settled, once: None where there is nothing new to say."""
        highest = None
        order = self._order
        while order and order[0] not in self._open:
            tag = order.popleft()
            if tag in self._settled:
                self._settled.remove(tag)
                highest = tag
        return highest

    def acknowledge_above_gaps(self) -> list[int]:
        """The settled tags that an open one below keeps from a cumulative acknowledgement, once.

        Each of them has to be acknowledged by itself. Without this, one delivery that waits long
        would fill the prefetch window with settled ones.
        """
        tags = sorted(self._settled)
        self._settled.clear()
        return tags
