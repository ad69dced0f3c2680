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
        self._last_batch_seconds = 0.0
        self._has_backlog = False
        self._looked_at = -math.inf
        self._count_since_look = 0

    def end_channel(self) -> None:
        """Forget what the queue of this channel held."""
        self._has_backlog = False

    def count_delivered(self, count: int) -> None:
        self._count_since_look += count

    def wants_look(self) -> bool:
        """Whether to ask how many are still in the queue, now."""
        return (
            self._count_since_look >= self._limits.batch_size
            and self._clock() - self._looked_at >= self._limits.look_seconds
        )

    def see(self, ready_count: int) -> None:
        """Take note of how many are still in the queue."""
        self._has_backlog = ready_count >= self._limits.batch_size
        self._looked_at = self._clock()
        self._count_since_look = 0

    def hand_out(self) -> None:
        """A batch of new deliveries leaves."""
        self._left_at = self._clock()

    def take_back(self, seconds: float) -> None:
        """A batch is back that took so long."""
        self._last_batch_seconds = seconds

    def until(self, count: int) -> float:
        """Until when a batch of `count` deliveries, so far, had better wait to be full."""
        if not self._has_backlog:
            return self._left_at
        # Each delivery buys time for the next one. So a lone one waits for nobody, though the
        # backlog be gone since the last look.
        most = self._limits.fill_factor * self._last_batch_seconds
        return self._left_at + min(count / self._limits.fill_pace, most)
