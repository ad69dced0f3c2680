"""The queues of one worker process, and which of them it cannot use at present.

What becomes of one of several queues (deleted, forbidden, on a node that is down) must not keep the
worker from the others. Where there is only one, or none of several can be used, the channel is lost
instead, and opened again until one can.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import pika

from flashsale.batching import Reminders
from flashsale.brokers.topology import (
    dead_letter_queue_arguments,
    ensure_dead_letter_exchange,
    ensure_queue,
    purchase_queue_arguments,
    refusal,
    require_queue,
)
from flashsale.errors import BrokerMisconfigured
from flashsale.settings import Settings

log = logging.getLogger(__name__)

#: So often the missing are looked for, one at a time.
LOOK_SECONDS = 1.0


class WorkerQueues:
    """Prepares the queues for a new channel, and finds those again that were lost.

    A queue is declared at its first use by this process, and checked at all later ones: one that
    was deleted meanwhile had messages in it, and a new empty one would hide that.

    It belongs to the consumer's thread, save that `missing` may be read by any.
    """

    def __init__(self, settings: Settings) -> None:
        self._queues = settings.purchase_queues
        self._dead_letter_queue = settings.dead_letter_queue
        self._arguments = purchase_queue_arguments(
            settings.dead_letter_queue, settings.purchase_queue_type
        )
        self._of_letters = dead_letter_queue_arguments(settings.purchase_queue_type)
        self._seen: set[str] = set()
        self._refused: set[str] = set()
        self._reminders = Reminders(time.monotonic)
        self._look_at = 0.0
        #: The exchange for dead letters; None until the topology stood for the first time.
        self.dead_letter_exchange: str | None = None
        #: Queues that cannot be used, though others can. Replaced, never changed.
        self.missing: tuple[str, ...] = ()

    @property
    def usable(self) -> list[str]:
        return [queue for queue in self._queues if queue not in self.missing]

    def prepare(self, connection: pika.BlockingConnection) -> None:
        """Declare or check all of them, for a new channel.

        Raises:
            BrokerMisconfigured: the dead-letter queue, or each of the others, cannot be used.
            BrokerUnavailable: the connection was lost.
        """
        self._reach(connection, self._dead_letter_queue, self._of_letters)
        problems = {}
        for queue in self._queues:
            try:
                self._reach(connection, queue, self._arguments)
            except BrokerMisconfigured as error:
                problems[queue] = error
        if len(problems) == len(self._queues):
            raise problems[self._queues[0]]
        if len(self._refused | set(problems)) == len(self._queues):
            self._refused.clear()  # to let none be consumed is no better than to be refused again
        for queue in self.missing:
            if queue not in problems and queue not in self._refused:
                self._find(queue)
        for queue, problem in problems.items():
            self.lose(queue, str(problem))
        if self.dead_letter_exchange is None:
            exchange, complaint = ensure_dead_letter_exchange(connection, self._dead_letter_queue)
            if complaint is not None:
                log.warning("topology.default_exchange", extra={"notice": complaint})
            self.dead_letter_exchange = exchange

    def refuse(self, queue: str, cause: str) -> None:
        """Take it that RabbitMQ closed a channel rather than let it consume this queue.

        That has cost the other queues their channel, too: on the next one it is left out.
        """
        if len(self._queues) > 1:
            self._refused.add(queue)
            self.lose(queue, f"RabbitMQ does not let it be consumed: {cause}")

    def lose(self, queue: str, cause: str) -> None:
        """Take it that this queue cannot be used, for a cause that is safe to log."""
        if queue not in self.missing:
            self.missing += (queue,)
        if self._reminders.is_due(queue):
            log.warning("broker.queue_lost", extra={"queue": queue, "cause": cause})

    def found_again(self, connection: pika.BlockingConnection) -> str | None:
        """A queue that was missing and can be consumed now, if there is one.

        Raises:
            BrokerUnavailable: the connection was lost.
        """
        now = time.monotonic()
        if not self.missing or now < self._look_at:
            return None
        self._look_at = now + LOOK_SECONDS
        queue, *others = self.missing
        try:
            self._reach(connection, queue, self._arguments)
        except BrokerMisconfigured as error:
            cause = str(error)
        else:
            # On a channel of its own, which a refusal closes: at most one event comes, and returns.
            refused = refusal(connection, lambda channel: _consume_one(channel, queue))
            if refused is None:
                self._refused.discard(queue)
                self._find(queue)
                return queue
            cause = f"RabbitMQ does not let it be consumed: {refused.reply_text}"
        self.missing = (*others, queue)
        self.lose(queue, cause)
        return None

    def _find(self, queue: str) -> None:
        self.missing = tuple(other for other in self.missing if other != queue)
        self._reminders.forget(queue)
        log.info("broker.queue_found", extra={"queue": queue})

    def _reach(
        self, connection: pika.BlockingConnection, queue: str, arguments: Mapping[str, Any]
    ) -> None:
        if queue in self._seen:
            require_queue(connection, queue)
            return
        notice = ensure_queue(connection, queue, arguments)
        if notice is not None:
            log.warning("topology.foreign", extra={"notice": notice})
        self._seen.add(queue)


def _consume_one(channel: Any, queue: str) -> None:
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue, lambda *_: None)
