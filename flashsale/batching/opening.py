"""Opens channels for a consumer, ever less often while none lasts."""

from __future__ import annotations

import logging
from collections.abc import Callable

from flashsale.batching.breaker import backoff_seconds
from flashsale.batching.reminders import Reminders
from flashsale.batching.tally import Tally
from flashsale.batching.transport import Channel, ChannelLost, Transport

log = logging.getLogger(__name__)

_MIN_SECONDS = 0.1
_MAX_SECONDS = 3.0
# A channel that lived as long as this was a working one: what ended it is a new trouble.
_LASTING_SECONDS = 10.0


class Opening:
    """Opens one channel after another, and calls `wait` with the seconds of each pause between.

    Each new channel, and each cause that keeps one from being opened, is logged, the latter once a
    minute at most. Not thread-safe: it lives on the consumer's thread.
    """

    def __init__(
        self,
        transport: Transport,
        tally: Tally,
        *,
        queue_name: str,
        clock: Callable[[], float],
        wait: Callable[[float], object],
    ) -> None:
        self._transport = transport
        self._tally = tally
        self._queue_name = queue_name
        self._clock = clock
        self._wait = wait
        self._reminders = Reminders(clock)
        self._failures = 0
        self._opened_at = clock()

    def open(self) -> Channel | None:
        """A new channel; None, after a pause, where none could be opened."""
        try:
            channel = self._transport.open()
        except ChannelLost as loss:
            self._tally.failed_channels += 1
            # For each cause: where there are several nodes, theirs take turns.
            if self._reminders.is_due(str(loss)):
                log.warning("broker.unreachable", extra={"cause": str(loss)})
            self._pause()
            return None
        self._opened_at = self._clock()
        self._reminders.forget_all()
        self._tally.channels += 1
        log.info("broker.connected", extra={"queue": self._queue_name})
        return channel

    def pause_after_loss(self) -> None:
        """Wait before the next one: what is lost again and again must not be a busy loop."""
        if self._clock() - self._opened_at >= _LASTING_SECONDS:
            self._failures = 0
        self._pause()

    def _pause(self) -> None:
        attempt, self._failures = self._failures, self._failures + 1
        self._wait(backoff_seconds(attempt, _MIN_SECONDS, _MAX_SECONDS))
