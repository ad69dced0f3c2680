"""Whether a batch that could leave waits to be full."""

from __future__ import annotations

import math
from collections.abc import Callable

from flashsale.batching.limits import Limits


class Filling:
    """Lets a batch wait for more where that costs nobody anything, as far as `limits` allow.

    Large batches spare the servers, which is what ends a backlog soonest; and while there is one,
    whoever waits here would else wait in the queue. Without one no delivery waits for another.

    Not thread-safe: it lives on the consumer's thread.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._left_at = -math.inf
        self._has_backlog = False
        self._awaits_answer = False
        self._asked_at = -math.inf
        self._count_since = 0

    def end_channel(self) -> None:
        """Forget what the queues of this channel held, and what was asked on it."""
        self._has_backlog = self._awaits_answer = False

    def count_delivered(self, count: int) -> None:
        """Take note that so many have come."""
        self._count_since += count

    def asks(self) -> bool:
        """Whether to ask, now, for the backlog.

        Once true, it is not again until :meth:`see` is told the answer, or the channel ends.
        """
        # Where little comes, the question would be most of the work.
        is_due = self._has_backlog or self._count_since >= self._limits.batch_size
        now = self._clock()
        if self._awaits_answer or not is_due or now - self._asked_at < self._limits.ask_seconds:
            return False
        self._awaits_answer, self._asked_at, self._count_since = True, now, 0
        return True

    def see(self, backlog: int) -> None:
        """Take note of how many wait in the queue, for this consumer's part."""
        self._awaits_answer = False
        self._has_backlog = backlog >= self._limits.batch_size

    def hand_out(self) -> None:
        """A batch of new deliveries leaves."""
        self._left_at = self._clock()

    def until(self, count: int) -> float:
        """Until when a batch of `count` deliveries, so far, had better wait to be full."""
        if not self._has_backlog:
            return self._left_at
        # Each delivery buys time for the next one. So a lone one waits for nobody, though the
        # backlog has gone since it was last asked for.
        return self._left_at + count / self._limits.fill_pace
