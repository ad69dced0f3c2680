"""Finds out whether events that were replayed have become dead letters again."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from flashsale.dead_letters.holding import HeldQueue
from flashsale.dead_letters.letter import DeadLetter
from flashsale.dead_letters.selection import look

_LARGEST_STAGE = 10_000
_POLL_SECONDS = 0.1
# After so long without a single purchase taken, the worker is not merely behind.
_PATIENCE_SECONDS = 120.0
_TELL_SECONDS = 10.0


def stages() -> Iterator[int]:
    """1, 10, 100, … up to 10,000, and so on at that."""
    size = 1
    while True:
        yield size
        size = min(size * 10, _LARGEST_STAGE)


class Watch:
    """Compares the dead letters with the events replayed.

    The queue is looked through only where it has grown: an event that fails again is a letter at
    its end that is not of the plan, and has the fingerprint of an event that was sent.
    """

    def __init__(
        self,
        queue: HeldQueue,
        targets: Sequence[str],
        *,
        planned: Counter[str],
        settle_seconds: float,
        max_event_bytes: int,
        on_wait: Callable[[int], None],
        stop: threading.Event,
    ) -> None:
        self.acknowledged = 0
        self.failed_again = 0
        self._queue = queue
        self._planned = planned
        self._settle_seconds = settle_seconds
        self._max_event_bytes = max_event_bytes
        self._on_wait = on_wait
        self._stop = stop
        self._sent: set[bytes] = set()
        self._depth_at_start = queue.depth().ready
        # Those queues of the events that somebody consumed when the replay began.
        self._watched = [target for target in targets if queue.depth(target).consumers]
        self._grown = 0

    def expect(self, bodies: Sequence[bytes]) -> list[str]:
        """Note what is sent now; returns its fingerprints."""
        digests = [hashlib.sha256(body) for body in bodies]
        self._sent.update(digest.digest() for digest in digests)
        return [digest.hexdigest() for digest in digests]

    def settle(self, give_back: Callable[[], None]) -> str | None:
        """Wait until the worker has had the events, and count those that came back.

        `give_back` returns what the caller holds of the dead letters. Returns why the replay
        should not go on, if so.
        """
        # Before a wait that may be long: RabbitMQ lets nobody hold a message for ever.
        give_back()
        problem = self._wait_for_the_worker()
        grown = self._queue.depth().ready + self.acknowledged - self._depth_at_start
        if grown != self._grown:
            self._grown = grown
            # Somebody who looks at the queue hides letters for a moment.
            self.failed_again = max(self.failed_again, self._count())
        return problem

    def _wait_for_the_worker(self) -> str | None:
        # What nobody takes, its queue keeps.
        for target in self._watched:
            if problem := self._wait_for(target):
                return problem
        if self._watched:
            self._pause(self._settle_seconds)
        return None

    def _wait_for(self, target: str) -> str | None:
        """Until all that is in the queue now has been taken from it, however much comes after.

        RabbitMQ tells only how long the queue is. It is taken from its head, so each fall of its
        length is of purchases before ours, or of ours. A queue that is never seen to fall is
        waited for in vain.
        """
        ready = before = self._queue.depth(target).ready
        moved_at = time.monotonic()
        tell_at = moved_at + _TELL_SECONDS
        while before > 0 and not self._stop.is_set():
            self._queue.wait(_POLL_SECONDS)
            was, ready = ready, self._queue.depth(target).ready
            now = time.monotonic()
            if ready < was:
                before -= was - ready
                moved_at = now
            elif now - moved_at > _PATIENCE_SECONDS:
                return (
                    f"nothing was taken from queue {target!r} for {_PATIENCE_SECONDS:g} s, where"
                    f" {ready:,} purchases wait; `flashsale status` says more"
                )
            if now >= tell_at:
                tell_at = now + _TELL_SECONDS
                self._on_wait(max(before, 0))
        return None

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stop.is_set() and time.monotonic() < until:
            self._queue.wait(min(_POLL_SECONDS, until - time.monotonic()))

    def _count(self) -> int:
        found = 0

        def handle(letter: DeadLetter) -> None:
            nonlocal found
            is_new = letter.id not in self._planned
            found += is_new and bytes.fromhex(letter.sha256) in self._sent

        look(self._queue, handle, max_event_bytes=self._max_event_bytes)
        return found
