"""Both transports of the worker without the worker, for tests that stand in for its consumer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from flashsale.batching import Channel, Delivery, Transport
from flashsale.brokers.embedded import EmbeddedBroker
from flashsale.brokers.publishing import ConfirmingPublisher, Outgoing
from flashsale.brokers.rabbitmq import PurchaseBroker
from flashsale.settings import QueueType, Settings

PREFETCH = 20


class Medium(NamedTuple):
    """A transport, and the way to put events on its queues, the first of them by default."""

    transport: Transport
    publish: Callable[..., None]

    @contextmanager
    def consuming(self) -> Iterator[Channel]:
        """A channel that consumes."""
        channel = self.transport.open()
        channel.start_consuming()
        yield channel
        channel.close()


def embedded_medium(*queues: str) -> Medium:
    names = ",".join(queues or ("purchase",))
    opened: list[Transport] = []
    broker = EmbeddedBroker(Settings(prefetch=PREFETCH), new_consumer=opened.append, middleware=[])
    broker.declare_queue(names)
    broker.consume(names)

    def publish(bodies: Sequence[bytes], queue: str = names.split(",")[0]) -> None:
        for body in bodies:
            broker.publish(queue, body)

    return Medium(opened[0], publish)


def rabbitmq_medium(
    url: str, purchase_queue: str, dead_letter_queue: str, queue_type: QueueType = "classic"
) -> Medium:
    """A medium whose queues exist as soon as a channel of it was opened.

    `purchase_queue` may list several.
    """
    settings = Settings(
        broker_urls=(url,),
        purchase_queues=tuple(purchase_queue.split(",")),
        dead_letter_queue=dead_letter_queue,
        purchase_queue_type=queue_type,
        prefetch=PREFETCH,
    )
    opened: list[Transport] = []
    broker = PurchaseBroker(settings, new_consumer=opened.append, middleware=[])
    broker.consume(purchase_queue)

    def publish(bodies: Sequence[bytes], queue: str = settings.purchase_queues[0]) -> None:
        with ConfirmingPublisher([url], "flashsale test") as publisher:
            publisher.publish(Outgoing(queue, body) for body in bodies)

    return Medium(opened[0], publish)


def take(channel: Channel, count: int, timeout: float = 5.0) -> list[Delivery]:
    """The next `count` deliveries, in as many turns as they need.

    Raises:
        TimeoutError: fewer have come.
    """
    taken: list[Delivery] = []
    deadline = time.monotonic() + timeout
    while len(taken) < count:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError(f"{len(taken)} of {count} deliveries have come")
        taken += channel.receive(remaining, count - len(taken))
    return taken


def backlog_of(channel: Channel, queue: str, timeout: float = 5.0) -> int:
    """The answer to how much waits in the queue for each of its consumers.

    Raises:
        TimeoutError: it has not come.
    """
    answers: list[int] = []
    channel.ask_backlog(queue, answers.append)
    deadline = time.monotonic() + timeout
    while not answers:
        if time.monotonic() >= deadline:
            raise TimeoutError(f"nothing was said of queue {queue}")
        channel.receive(0.1, 1)
    return answers[0]
