"""When to stop offering work because nothing can succeed, and when to offer it again."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from enum import Enum

from dramatiq.common import compute_backoff

log = logging.getLogger(__name__)

_PROBE_MIN_SECONDS = 0.1
_REMINDER_SECONDS = 60.0


class BreakerState(Enum):
    CLOSED = "closed"
    """All is well."""
    OPEN = "open"
    """Nothing can succeed; only probes are sent."""
    TRIAL = "trial"
    """A probe succeeded; one small batch at a time until one is done."""


def backoff_seconds(attempt: int, shortest: float, longest: float) -> float:
    """The wait after failure number `attempt` (from 0): exponential, with jitter, in seconds."""
    _, milliseconds = compute_backoff(
        attempt, factor=max(1, round(shortest * 1000)), max_backoff=max(1, round(longest * 1000))
    )
    return milliseconds / 1000


class Breaker:
    """Follows whether the system behind the actor works.

    It starts open with a probe due at once, so that nothing is taken from the queue before it has
    been seen to work. While it is open, probes follow each other at most `probe_max_seconds`
    apart. Where probes succeed and batches then fail all the same (a full disk), the pauses grow
    to `flapping_max_seconds` instead, so that this does not become a busy loop.

    It does no I/O but its log lines, a few for an outage of any length, and reads only `clock`
    (monotonic seconds). Not thread-safe.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        hold_seconds: float = 3.0,
        probe_max_seconds: float = 1.0,
        flapping_max_seconds: float = 10.0,
    ) -> None:
        self._clock = clock
        self._hold_seconds = hold_seconds
        self._probe_max_seconds = probe_max_seconds
        self._flapping_max_seconds = flapping_max_seconds
        self.state = BreakerState.OPEN
        self._created_at = clock()
        self._open_since: float | None = self._created_at
        self._open_seconds = 0.0
        self._opened_at = -math.inf
        self._reported_at = -math.inf
        self._next_probe_at = clock()
        self._probing = False
        self._failed_probes = 0
        self._failed_trials = 0

    @property
    def hold_is_over(self) -> bool:
        """Whether what is held should go back to the queue, for other workers to take."""
        return self.state is BreakerState.OPEN and self._clock() >= self.hold_ends_at

    @property
    def hold_ends_at(self) -> float:
        """When the hold of the present outage ends; minus infinity at the start of the process."""
        return self._opened_at + self._hold_seconds

    @property
    def next_probe_at(self) -> float:
        """When the next probe is due; infinite while one is on its way or none is needed."""
        if self.state is not BreakerState.OPEN or self._probing:
            return math.inf
        return self._next_probe_at

    @property
    def open_seconds(self) -> float:
        """For how long it has been open, in all. Thread-safe."""
        since = self._open_since
        return self._open_seconds + (0.0 if since is None else self._clock() - since)

    def start_probe(self) -> None:
        self._probing = True

    def end_probe(self, *, failed_because: str | None) -> None:
        """Take the result of the probe: a success leads to the trial."""
        self._probing = False
        if self.state is not BreakerState.OPEN:
            return
        if failed_because is None:
            self.state = BreakerState.TRIAL
            self._open_seconds, self._open_since = self.open_seconds, None
            self._failed_probes = 0
            return
        now = self._clock()
        pause = backoff_seconds(self._failed_probes, _PROBE_MIN_SECONDS, self._probe_max_seconds)
        self._failed_probes += 1
        self._next_probe_at = now + pause
        if now - self._reported_at >= _REMINDER_SECONDS:
            self._reported_at = now
            log.warning("work.waiting", extra={"cause": failed_because})

    def trip(self, cause: str) -> None:
        """Take a failure of the system."""
        if self.state is BreakerState.OPEN:
            return
        now = self._clock()
        if self.state is BreakerState.TRIAL:
            self._failed_trials += 1
        if self.state is BreakerState.CLOSED or self._opened_at == -math.inf:
            self._opened_at = self._reported_at = now
            log.warning("work.suspended", extra={"cause": cause})
        pause = backoff_seconds(self._failed_trials, _PROBE_MIN_SECONDS, self._flapping_max_seconds)
        self._next_probe_at = now + pause
        self.state = BreakerState.OPEN
        self._open_since = now

    def succeed(self) -> None:
        """Take a batch that was done: in the trial, it ends the outage."""
        if self.state is not BreakerState.TRIAL:
            return
        self.state = BreakerState.CLOSED
        self._failed_trials = 0
        if self._reported_at > -math.inf:
            self._reported_at = -math.inf
            log.info("work.resumed", extra={"suspended_seconds": round(self._outage_seconds(), 1)})

    def _outage_seconds(self) -> float:
        return self._clock() - max(self._opened_at, self._created_at)
