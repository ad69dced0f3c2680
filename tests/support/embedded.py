"""A worker process's parts, in this process and without RabbitMQ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import dramatiq

from flashsale.brokers.embedded import EmbeddedBroker
from flashsale.purchases import Purchase
from flashsale.settings import Settings
from flashsale.spreading import queue_for
from flashsale.worker import PurchaseWorker

_DONE_MILLISECONDS = 20_000
_STOP_MILLISECONDS = 10_000
_THREADS = 4


class EmbeddedWorker:
    """A running worker, and the queue it consumes."""

    def __init__(self, worker: PurchaseWorker) -> None:
        assert isinstance(worker.broker, EmbeddedBroker)
        self.worker = worker
        self.tally = worker.tally
        self.broker: EmbeddedBroker = worker.broker
        self._queues = worker.settings.purchase_queues

    def publish(self, events: Iterable[Purchase | bytes]) -> None:
        for event in events:
            body = event.encode() if isinstance(event, Purchase) else event
            self.broker.publish(queue_for(body, self._queues), body)

    def join(self) -> None:
        """Wait until each published event is an order, a duplicate of one, or a dead letter."""
        self.broker.join(",".join(self._queues), timeout=_DONE_MILLISECONDS)

    def dead_letters(self) -> list[tuple[str, bytes]]:
        """Their reasons and bodies."""
        return sorted(
            (letter.rejection.reason, letter.delivery.body) for letter in self.broker.letters
        )


@contextmanager
def running(settings: Settings) -> Iterator[EmbeddedWorker]:
    """Start a worker; stop it as SIGTERM does."""
    worker = PurchaseWorker(settings, new_broker=EmbeddedBroker)
    host = dramatiq.Worker(worker.broker, worker_threads=_THREADS)
    host.start()
    try:
        yield EmbeddedWorker(worker)
    finally:
        host.stop(timeout=_STOP_MILLISECONDS)
