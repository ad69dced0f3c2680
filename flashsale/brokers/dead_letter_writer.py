"""Carries dead letters to their queue, on a connection and a thread of their own.

A confirmed publish may have to wait (a memory alarm, a full queue), and the consumer must go on
consuming and acknowledging meanwhile.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter

from flashsale import __version__
from flashsale.batching import Letter
from flashsale.batching.breaker import backoff_seconds
from flashsale.brokers.publishing import ConfirmingPublisher, Outgoing
from flashsale.brokers.topology import DEFAULT_EXCHANGE
from flashsale.errors import BrokerError, PublishUnconfirmed
from flashsale.redaction import printable

log = logging.getLogger(__name__)

HEADER_PREFIX = "x-flashsale-"

_RETRY_MIN_SECONDS = 0.1
_RETRY_MAX_SECONDS = 10.0
_IDLE_SECONDS = 10.0
# Short enough for `flashsale dead-letters import` to take it back.
_LONGEST_EXPLANATION = 200

_OnConfirmed = Callable[[Sequence[Letter]], None]


def letter_headers(letter: Letter, now: datetime) -> dict[str, str | int]:
    """The headers of a dead letter: all of our own making, none copied from the message."""
    headers: dict[str, str | int] = {
        "reason": letter.rejection.reason,
        "sha256": hashlib.sha256(letter.delivery.body).hexdigest(),
        "first-seen": datetime.fromtimestamp(letter.received_at, UTC).isoformat(),
        "last-seen": now.isoformat(),
        "attempts": letter.attempts,
        "queue": letter.delivery.queue,
        "version": __version__,
    }
    if letter.rejection.sqlstate is not None:
        headers["sqlstate"] = letter.rejection.sqlstate
    if letter.rejection.explanation is not None:
        headers["explanation"] = in_short(letter.rejection.explanation)
    return {HEADER_PREFIX + name: value for name, value in headers.items()}


def in_short(explanation: str) -> str:
    """An explanation as a header has it: a line or two, and nothing that cannot be printed.

    A name of the database's may hold anything, and what pika cannot encode would never be written.
    """
    return printable(explanation[:_LONGEST_EXPLANATION])[:_LONGEST_EXPLANATION]


class DeadLetterWriter:
    """Publishes dead letters until RabbitMQ has confirmed each, without limit of attempts.

    :meth:`write` may be called from any thread and never blocks. A letter whose channel is gone is
    dropped unwritten: its delivery comes again, and is judged again. What waits is bounded by the
    consumer's prefetch, since a delivery stays open until its letter is confirmed.
    """

    def __init__(self, publisher: ConfirmingPublisher, *, dead_letter_queue: str) -> None:
        self._exchange = self._way = DEFAULT_EXCHANGE
        self._publisher = publisher
        self._dead_letter_queue = dead_letter_queue
        self._waiting: list[tuple[Letter, _OnConfirmed]] = []
        self._changed = threading.Condition()
        self._busy = False
        self._closing = False
        self._failures = 0
        #: Attempts to write that failed, since the start.
        self.failed_attempts = 0
        self._thread: threading.Thread | None = None

    @property
    def is_dead(self) -> bool:
        """Whether its thread has ended unasked, so that no letter will be written any more."""
        return self._thread is not None and not self._thread.is_alive() and not self._closing

    def lead(self, exchange: str) -> None:
        """Let the letters go by this exchange, which leads to the dead-letter queue."""
        if exchange != self._exchange:
            self._exchange = self._way = exchange

    def write(self, letters: Sequence[Letter], on_confirmed: _OnConfirmed) -> None:
        """Queue letters; `on_confirmed` is called on the writer's thread with those confirmed."""
        with self._changed:
            self._waiting += [(letter, on_confirmed) for letter in letters]
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dead-letters", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self, seconds: float) -> None:
        """Wait up to `seconds` for what is queued, then stop. May be called again."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while (self._waiting or self._busy) and time.monotonic() < deadline:
                self._changed.wait(deadline - time.monotonic())
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()) + _RETRY_MIN_SECONDS)

    def _run(self) -> None:
        try:
            while (waiting := self._take()) != []:
                if waiting is None:
                    # Dead letters are rare: no connection is kept for them.
                    self._publisher.close()
                else:
                    self._publish(waiting)
        finally:
            self._publisher.close()

    def _take(self) -> list[tuple[Letter, _OnConfirmed]] | None:
        """All that waits, so that a flood of letters costs few confirms.

        None after an idle time, and an empty list at the end.
        """
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            if not self._changed.wait_for(self._has_news, _IDLE_SECONDS):
                return None
            if self._closing:
                return []
            self._busy = True
            waiting, self._waiting = self._waiting, []
            return waiting

    def _has_news(self) -> bool:
        return bool(self._waiting) or self._closing

    def _publish(self, waiting: list[tuple[Letter, _OnConfirmed]]) -> None:
        waiting = [(letter, call) for letter, call in waiting if not letter.ledger.is_closed]
        if not waiting:
            return
        try:
            self._publisher.publish(map(self._outgoing, waiting))
            confirmed, rest = waiting, []
        except PublishUnconfirmed as error:
            self._report(str(error))
            confirmed = [each for at, each in enumerate(waiting) if error.is_confirmed(at)]
            rest = [each for at, each in enumerate(waiting) if not error.is_confirmed(at)]
        except BrokerError as error:
            self._report(str(error))
            confirmed, rest = [], waiting
        except Exception as error:  # noqa: BLE001  # this thread's end would hold letters for ever
            self._report(type(error).__name__)
            confirmed, rest = [], waiting
        if confirmed:
            self._tell(confirmed)
        if rest:
            self._retry_later(rest)
        else:
            self._failures = 0

    def _outgoing(self, waiting: tuple[Letter, _OnConfirmed]) -> Outgoing:
        letter, _ = waiting
        headers = letter_headers(letter, datetime.now(UTC))
        return Outgoing(self._dead_letter_queue, letter.delivery.body, headers, self._way)

    def _tell(self, confirmed: list[tuple[Letter, _OnConfirmed]]) -> None:
        reasons = Counter(str(letter.rejection.reason) for letter, _ in confirmed)
        log.warning("events.dead_lettered", extra={"reasons": dict(reasons)})
        for on_confirmed, group in groupby(confirmed, key=itemgetter(1)):
            on_confirmed([letter for letter, _ in group])

    def _retry_later(self, rest: list[tuple[Letter, _OnConfirmed]]) -> None:
        pause = backoff_seconds(self._failures, _RETRY_MIN_SECONDS, _RETRY_MAX_SECONDS)
        self._failures += 1
        self.failed_attempts += 1
        # Where one way is closed (the exchange or its binding was deleted, the grant is for the
        # other), the default exchange may be open; the one that was is kept to.
        self._way = self._exchange if self._way == DEFAULT_EXCHANGE else DEFAULT_EXCHANGE
        with self._changed:
            self._waiting = rest + self._waiting
            self._changed.wait_for(lambda: self._closing, pause)

    def _report(self, cause: str) -> None:
        if self._failures == 0:
            log.error("dead_letters.unwritten", extra={"cause": cause})
