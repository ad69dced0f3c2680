"""How long the queues are, asked of RabbitMQ every few seconds on one quiet connection."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker

from flashsale.brokers.connections import answers_within, open_blocking
from flashsale.errors import BrokerUnavailable
from flashsale.settings import Settings

_INTERVAL_SECONDS = 3.0
_ANSWER_SECONDS = 3.0
_STOP_SECONDS = 1.0


class Level(NamedTuple):
    """A queue's messages that no consumer holds, and its consumers."""

    ready: int
    consumers: int


class QueueWatch:
    """Keeps `levels` up to date, by the queues' names.

    A queue that is missing, or may not be looked at, is left out. None while RabbitMQ cannot be
    asked. It declares nothing.
    """

    def __init__(self, settings: Settings) -> None:
        self._urls = settings.broker_urls
        self.purchase_queues = settings.purchase_queues
        self.dead_letter_queue = settings.dead_letter_queue
        self.levels: Mapping[str, Level] | None = None
        self._connection: pika.BlockingConnection | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="queue-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the looking that :meth:`start` began, unless RabbitMQ keeps it waiting."""
        self._stopping.set()
        self._thread.join(_STOP_SECONDS)

    def look(self) -> None:
        """Ask once."""
        try:
            if self._connection is None:
                self._connection = open_blocking(self._urls, "flashsale metrics")
            with answers_within(self._connection, _ANSWER_SECONDS):
                self.levels = self._ask(self._connection)
        except (BrokerUnavailable, AMQPError, OSError, AssertionError):
            # The workers' log says why; here it shows as a broker that is not up.
            self.levels = None
            self._connection = None

    def close(self) -> None:
        """Close the connection. Only for the thread that looks."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(AMQPError, OSError), answers_within(connection, _ANSWER_SECONDS):
                connection.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.look()
            self._stopping.wait(_INTERVAL_SECONDS)
        self.close()

    def _ask(self, connection: pika.BlockingConnection) -> dict[str, Level]:
        levels = {}
        for queue in (*self.purchase_queues, self.dead_letter_queue):
            channel = connection.channel()  # a refused question closes its channel
            try:
                found = channel.queue_declare(queue, passive=True).method
            except ChannelClosedByBroker:
                continue
            levels[queue] = Level(found.message_count, found.consumer_count)
            channel.close()
        return levels
