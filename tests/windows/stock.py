"""Dramatiq as it comes: its broker for RabbitMQ, its middleware, its worker, in this process."""

from __future__ import annotations

import json
import threading
import uuid
from typing import Any, Self

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from flashsale.brokers.publishing import ConfirmingPublisher, Outgoing

ACTOR_NAME = "work"

_POLL_MILLISECONDS = 100
_STOP_MILLISECONDS = 5_000


def envelope(queue: str, name: str = "", **forged: Any) -> bytes:
    """The body of a Dramatiq message that is to work on `name`; `forged` replaces parts of it."""
    message = {
        "queue_name": queue,
        "actor_name": ACTOR_NAME,
        "args": [name],
        "kwargs": {},
        "options": {},
        "message_id": str(uuid.uuid4()),
        "message_timestamp": 0,
    }
    return json.dumps({**message, **forged}).encode()


class StockWorker:
    """A worker whose one actor notes what it begins and what it has done.

    The actor waits while what it works on is held, and fails for what is named ``bad``.
    Its queues are declared here; it consumes within the ``with`` block.
    """

    def __init__(self, url: str, queue: str, *, threads: int = 1, **options: Any) -> None:
        self.begun: list[str] = []
        self.done: list[str] = []
        self._held: dict[str, threading.Event] = {}
        self._url = url
        self._queue = queue
        # Confirms are off by default; with them it is at its best.
        self.broker = RabbitmqBroker(url=url, confirm_delivery=True)
        dramatiq.Actor(
            self._work,
            broker=self.broker,
            actor_name=ACTOR_NAME,
            queue_name=queue,
            priority=0,
            options=options,
        )
        self.broker.declare_queue(queue, ensure=True)
        self.worker = dramatiq.Worker(
            self.broker, worker_threads=threads, worker_timeout=_POLL_MILLISECONDS
        )

    def __enter__(self) -> Self:
        self.worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._held):
            self.release(name)
        self.worker.stop(_STOP_MILLISECONDS)
        del self.broker.connection  # of this thread; a new one deletes what no fixture knows of
        self.broker.channel.queue_delete(f"{self._queue}.DQ")
        self.broker.close()

    def hold(self, name: str) -> None:
        self._held[name] = threading.Event()

    def release(self, name: str) -> None:
        self._held[name].set()

    def publish(self, *bodies: bytes) -> None:
        """Put message bodies on its queue, in this order."""
        with ConfirmingPublisher([self._url], "flashsale test") as publisher:
            publisher.publish(Outgoing(self._queue, body) for body in bodies)

    def send(self, *names: str) -> None:
        """Put a message for each name on its queue, in this order."""
        self.publish(*(envelope(self._queue, name) for name in names))

    def close_consumers(self) -> None:
        """Let RabbitMQ have back all that is not acknowledged, as if the process had died."""
        for consumer in self.worker.consumers.values():
            consumer.stop()
            consumer.join()
            consumer.close()

    def _work(self, name: str) -> None:
        self.begun.append(name)
        if name in self._held:
            self._held[name].wait()
        if name == "bad":
            raise RuntimeError("it cannot be done")
        self.done.append(name)
