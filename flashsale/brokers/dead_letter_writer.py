"""Carries dead letters to their queue, on a connection and a thread of their own.

A confirmed publish may have to wait (a memory alarm, a full queue), and the consumer must go on
consuming and acknowledging meanwhile.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from flashsale import __version__
from flashsale.batching import Letter
from flashsale.batching.breaker import backoff_seconds
from flashsale.brokers.publishing import ConfirmingPublisher, Outgoing
from flashsale.errors import BrokerError, PublishUnconfirmed

log = logging.getLogger(__name__)

HEADER_PREFIX = "x-flashsale-"

_RETRY_MIN_SECONDS = 0.1
_RETRY_MAX_SECONDS = 10.0
_IDLE_SECONDS = 10.0

_Job = tuple[list[Letter], Callable[[Sequence[Letter]], None]]


def letter_headers(letter: Letter, queue: str, now: datetime) -> dict[str, str | int]:
    """The headers of a dead letter: all of our own making, none copied from the message."""
    headers: dict[str, str | int] = {
        "reason": letter.rejection.reason,
        "sha256": hashlib.sha256(letter.delivery.body).hexdigest(),
        "first-seen": datetime.fromtimestamp(letter.received_at, UTC).isoformat(),
        "last-seen": now.isoformat(),
        "attempts": letter.attempts,
        "queue": queue,
        "version": __version__,
    }
    if letter.rejection.sqlstate is not None:
        headers["sqlstate"] = letter.rejection.sqlstate
    return {HEADER_PREFIX + name: value for name, value in headers.items()}


class DeadLetterWriter:
    """Publishes dead letters until RabbitMQ has confirmed each, without limit of attempts.

    :meth:`write` may be called from any thread and never blocks. A letter whose channel is gone is
    dropped unwritten: its delivery comes again, and is judged again. What waits is bounded by the
    consumer's prefetch, since a delivery stays open until its letter is confirmed.
    """

    def __init__(
        self, publisher: ConfirmingPublisher, *, dead_letter_queue: str, source_queue: str
    ) -> None:
        self._publisher = publisher
        self._dead_letter_queue = dead_letter_queue
        self._source_queue = source_queue
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._closing = False
        self._failures = 0
        self._thread: threading.Thread | None = None

    def write(
        self, letters: Sequence[Letter], on_confirmed: Callable[[Sequence[Letter]], None]
    ) -> None:
        """Queue letters; `on_confirmed` is called on the writer's thread with those confirmed."""
        with self._changed:
            self._jobs.append((list(letters), on_confirmed))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dead-letters", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self, seconds: float) -> None:
        """Wait up to `seconds` for what is queued, then stop. May be called again."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while (self._jobs or self._busy) and time.monotonic() < deadline:
                self._changed.wait(deadline - time.monotonic())
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()) + _RETRY_MIN_SECONDS)

    def _run(self) -> None:
        try:
            while (job := self._next_job()) is not None:
                self._publish(*job)
        finally:
            self._publisher.close()

    def _next_job(self) -> _Job | None:
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            while not self._jobs and not self._closing:
                if not self._changed.wait(_IDLE_SECONDS):
                    # Dead letters are rare: no connection is kept for them.
                    self._publisher.close()
            if self._closing:
                return None
            self._busy = True
            return self._jobs.popleft()

    def _publish(
        self, letters: list[Letter], on_confirmed: Callable[[Sequence[Letter]], None]
    ) -> None:
        letters = [letter for letter in letters if not letter.ledger.is_closed]
        now = datetime.now(UTC)
        messages = (
            Outgoing(
                self._dead_letter_queue,
                letter.delivery.body,
                letter_headers(letter, self._source_queue, now),
            )
            for letter in letters
        )
        confirmed, rest = letters, []
        try:
            self._publisher.publish(messages)
        except PublishUnconfirmed as error:
            self._report(error)
            confirmed = [letter for at, letter in enumerate(letters) if error.is_confirmed(at)]
            rest = [letter for at, letter in enumerate(letters) if not error.is_confirmed(at)]
        except BrokerError as error:
            self._report(error)
            confirmed, rest = [], letters
        if confirmed:
            reasons = Counter(str(letter.rejection.reason) for letter in confirmed)
            log.warning("events.dead_lettered", extra={"reasons": dict(reasons)})
            on_confirmed(confirmed)
        if rest:
            self._retry_later(rest, on_confirmed)
        else:
            self._failures = 0

    def _retry_later(
        self, letters: list[Letter], on_confirmed: Callable[[Sequence[Letter]], None]
    ) -> None:
        pause = backoff_seconds(self._failures, _RETRY_MIN_SECONDS, _RETRY_MAX_SECONDS)
        self._failures += 1
        with self._changed:
            self._jobs.append((letters, on_confirmed))
            self._changed.wait_for(lambda: self._closing, pause)

    def _report(self, error: BrokerError) -> None:
        if self._failures == 0:
            log.error("dead_letters.unwritten", extra={"cause": str(error)})
