"""What RabbitMQ tells of the queues, without taking a purchase from one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pika
from pika.exceptions import AMQPError

from flashsale.brokers.connections import answers_within, disconnect, open_blocking
from flashsale.brokers.topology import Depth, depths
from flashsale.dead_letters.holding import Held, HeldQueue, QueueIsQuorum
from flashsale.dead_letters.letter import DeadLetter
from flashsale.errors import BrokerError, BrokerMisconfigured, BrokerUnavailable
from flashsale.settings import Settings

_NAME = "flashsale status"
_ANSWER_SECONDS = 4.0
#: As many letters are looked at for their reasons: they are held for a fraction of a second.
LETTERS = 1_000
# A look holds the letters back from others, so one who watches does not look at every glance.
_LOOK_SECONDS = 15.0


@dataclass(frozen=True)
class LetterReasons:
    """The reasons of the first :data:`LETTERS` dead letters, or why they could not be had."""

    counts: Mapping[str, int] = field(default_factory=dict)
    #: How many letters were looked at.
    seen: int = 0
    problem: str | None = None


@dataclass(frozen=True)
class BrokerStatus:
    """All queues: messages that no consumer holds, and consumers."""

    #: Each purchase queue by its name; None for one that is missing, or not to be used.
    queues: Mapping[str, Depth | None]
    dead_letters: Depth
    reasons: LetterReasons

    @property
    def purchases(self) -> Depth:
        """The messages of all purchase queues, and the consumers of the one that has fewest."""
        there = [depth for depth in self.queues.values() if depth is not None]
        # A worker consumes each of them, so more elsewhere make up for none here in no way.
        fewest = min(depth.consumers if depth else 0 for depth in self.queues.values())
        return Depth(sum(depth.ready for depth in there), fewest)

    @property
    def missing(self) -> list[str]:
        return [queue for queue, depth in self.queues.items() if depth is None]


class BrokerWatch:
    """Asks RabbitMQ, on one connection as long as it lasts. For one thread at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: pika.BlockingConnection | None = None
        self._reasons = LetterReasons()
        self._depth_then = 0
        self._looked_at = -_LOOK_SECONDS

    def look(self) -> BrokerStatus:
        """Ask now; every node that is silent costs five seconds.

        Raises:
            BrokerError: RabbitMQ cannot be asked; the dead-letter queue, or each of the others, is
                missing.
        """
        settings = self._settings
        try:
            if self._connection is None:
                self._connection = open_blocking(settings.broker_urls, _NAME)
            with answers_within(self._connection, _ANSWER_SECONDS):
                queues = _purchases(self._connection, settings.purchase_queues)
                (dead_letters,) = depths(self._connection, (settings.dead_letter_queue,))
        except BrokerMisconfigured:
            raise
        except BrokerUnavailable:
            self._connection = None
            raise
        except (AMQPError, OSError, AssertionError) as error:
            # pika asserts on the state of connections that end while it works on them.
            self._connection = None
            raise BrokerUnavailable("the connection to RabbitMQ was lost; ask again") from error
        self._look_at_letters(dead_letters.ready)
        return BrokerStatus(queues, dead_letters, self._reasons)

    def close(self) -> None:
        """Disconnect. Never raises."""
        if self._connection is not None:
            disconnect(self._connection, _ANSWER_SECONDS)
            self._connection = None

    def _look_at_letters(self, ready: int) -> None:
        """Find out the reasons again, where the letters are others than they were."""
        if not ready:
            self._reasons, self._depth_then = LetterReasons(), 0
            return
        is_due = time.monotonic() - self._looked_at >= _LOOK_SECONDS
        if ready != self._depth_then and is_due:
            self._reasons = self._reasons_of(min(ready, LETTERS))
            self._depth_then, self._looked_at = ready, time.monotonic()

    def _reasons_of(self, limit: int) -> LetterReasons:
        counts: Counter[str] = Counter()

        def count(held: Held) -> None:
            letter = DeadLetter.read(
                held.properties, held.body, max_bytes=self._settings.max_event_bytes
            )
            counts[letter.reason] += 1

        urls, queue = self._settings.broker_urls, self._settings.dead_letter_queue
        try:
            with HeldQueue(urls, queue, _NAME) as letters:
                if letters.is_locked():
                    return LetterReasons(problem="a retry or discard is at work on them")
                letters.take(limit, count)
        except (BrokerError, QueueIsQuorum) as error:
            return LetterReasons(problem=str(error))
        return LetterReasons(counts, counts.total())


def _purchases(
    connection: pika.BlockingConnection, queues: Sequence[str]
) -> dict[str, Depth | None]:
    """Each queue's depth; where one of several is missing, the others are told all the same."""
    found: dict[str, Depth | None] = {}
    for queue in queues:
        try:
            (found[queue],) = depths(connection, (queue,))
        except BrokerMisconfigured:
            if queue == queues[-1] and not any(found.values()):
                raise
            found[queue] = None
    return found
