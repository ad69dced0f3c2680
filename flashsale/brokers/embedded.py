"""A transport in memory, on Dramatiq's stub broker: for the demo, for trying out, and for tests.

It keeps what RabbitMQ keeps (prefetch, cumulative acknowledgement, redelivery when a channel ends)
except what only a server can: nothing survives the process.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, Queue
from typing import Any, Never

from dramatiq import Message
from dramatiq.broker import Consumer
from dramatiq.brokers.stub import StubBroker
from dramatiq.common import dq_name
from dramatiq.middleware import Middleware

from flashsale.batching import Channel, Delivery, Letter, Transport


class EmbeddedBroker(StubBroker):
    """A stub broker whose queues hold plain event bodies.

    ``join(queue_name)`` waits until every published event is an order, a duplicate of one, or one
    of `letters`.
    """

    def __init__(
        self,
        *,
        prefetch: int,
        new_consumer: Callable[[Transport], Consumer],
        middleware: list[Middleware],
    ) -> None:
        super().__init__(middleware=middleware)
        self._prefetch = prefetch
        self._new_consumer = new_consumer
        #: The dead letters, in the order of their arrival.
        self.letters: list[Letter] = []

    def publish(self, queue_name: str, body: bytes) -> None:
        """Put an event on the queue. Thread-safe."""
        self.queues[queue_name].put(body)

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue; unlike the stub's, without a consumer for a delay queue."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues[queue_name] = Queue()
            self.queues[dq_name(queue_name)] = Queue()  # join() looks at it
            self.emit_after("declare_queue", queue_name)

    def get_declared_queues(self) -> set[str]:
        return {name for name in self.queues if name != dq_name(name)}

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 100) -> Consumer:  # noqa: ARG002
        return self._new_consumer(EmbeddedTransport(self, self.queues[queue_name], self._prefetch))

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Never:  # noqa: ARG002
        """Refuse, as the broker for RabbitMQ does.

        Raises:
            TypeError: always, naming what to call instead.
        """
        raise TypeError("publish events with EmbeddedBroker.publish")


class EmbeddedTransport:
    """Channels on a queue in memory; see :class:`~flashsale.batching.Transport`."""

    def __init__(self, broker: EmbeddedBroker, queue: Queue[bytes | None], prefetch: int) -> None:
        self._broker = broker
        self._queue = queue
        self._prefetch = prefetch
        self._returned: deque[bytes] = deque()

    def open(self) -> Channel:
        return EmbeddedChannel(self._queue, self._returned, self._prefetch)

    def dead_letter(
        self, letters: Sequence[Letter], on_confirmed: Callable[[Sequence[Letter]], None]
    ) -> None:
        self._broker.letters.extend(letters)
        on_confirmed(letters)

    def close(self, seconds: float) -> None:
        """There is nothing on its way."""


class EmbeddedChannel:
    """One channel on a queue in memory; see :class:`~flashsale.batching.Channel`.

    An event counts as unfinished in the queue, for ``join``, until it is acknowledged.
    """

    def __init__(self, queue: Queue[bytes | None], returned: deque[bytes], prefetch: int) -> None:
        self._queue = queue
        self._returned = returned
        self._prefetch = prefetch
        self._outstanding: dict[int, bytes] = {}
        self._last_tag = 0
        self._consuming = False
        self._woken = threading.Event()

    def start_consuming(self) -> None:
        self._consuming = True

    def stop_consuming(self) -> None:
        self._consuming = False

    def receive(self, seconds: float, limit: int) -> Sequence[Delivery]:
        room = min(limit, self._prefetch - len(self._outstanding)) if self._consuming else 0
        if room <= 0:
            self._woken.wait(seconds)
            self._woken.clear()
            return []
        arrived: list[Delivery] = []
        deadline = time.monotonic() + seconds
        while len(arrived) < room:
            body, redelivered = self._next(0.0 if arrived else deadline - time.monotonic())
            if body is None:
                break
            self._last_tag += 1
            self._outstanding[self._last_tag] = body
            arrived.append(Delivery(self._last_tag, body, redelivered))
        return arrived

    def ack(self, tag: int, *, multiple: bool) -> None:
        acked = [other for other in self._outstanding if other <= tag] if multiple else [tag]
        for each in acked:
            del self._outstanding[each]
            self._queue.task_done()

    def give_back(self, tags: Sequence[int]) -> None:
        self._returned.extend(self._outstanding.pop(tag) for tag in tags)

    def wake(self) -> None:
        self._woken.set()
        self._queue.put(None)

    def close(self) -> None:
        self._consuming = False
        self.give_back(list(self._outstanding))

    def _next(self, seconds: float) -> tuple[bytes | None, bool]:
        """The next body and whether it was delivered before; None after a wake or in vain."""
        if self._returned:
            return self._returned.popleft(), True
        try:
            body = self._queue.get(timeout=seconds) if seconds > 0 else self._queue.get_nowait()
        except Empty:
            return None, False
        if body is None:
            self._queue.task_done()
        return body, False
