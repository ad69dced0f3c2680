"""A transport in memory, on Dramatiq's stub broker: for the demo, for trying out, and for tests.

It keeps what RabbitMQ keeps (prefetch, cumulative acknowledgement, redelivery when a channel ends)
except what only a server can: nothing survives the process.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, Queue
from typing import Any

from dramatiq.broker import Consumer
from dramatiq.brokers.stub import StubBroker
from dramatiq.common import dq_name
from dramatiq.middleware import Middleware

from flashsale.batching import Channel, ChannelLost, Delivery, Letter
from flashsale.brokers.hosting import NewConsumer, WorkerBroker
from flashsale.settings import Settings


class EmbeddedBroker(WorkerBroker, StubBroker):
    """A stub broker whose queues hold plain event bodies.

    A declared name may list several queues, as ``"a,b"``: one consumer takes them all in turns,
    each with its share of the prefetch. ``join(queue_name)`` waits until every event published to
    them is an order, a duplicate of one, or one of `letters`.
    """

    redelivers_beyond_the_process = False

    def __init__(
        self, settings: Settings, *, new_consumer: NewConsumer, middleware: list[Middleware]
    ) -> None:
        self._declared: set[str] = set()
        super().__init__(settings, new_consumer=new_consumer, middleware=middleware)
        self._news = threading.Condition()
        #: The dead letters, in the order of their arrival.
        self.letters: list[Letter] = []

    def publish(self, queue_name: str, body: bytes) -> None:
        """Put an event on the queue. Thread-safe."""
        with self._news:
            self.queues[queue_name].put(body)
            self._news.notify_all()

    def declare_queue(self, queue_name: str) -> None:
        """Declare queues; unlike the stub's, without a consumer for a delay queue."""
        if queue_name not in self._declared:
            self.emit_before("declare_queue", queue_name)
            self._declared.add(queue_name)
            for name in queue_name.split(","):
                self.queues[name] = Queue()
                self.queues[dq_name(name)] = Queue()  # join() looks at it
            self.emit_after("declare_queue", queue_name)

    def join(self, queue_name: str, **options: Any) -> None:
        for name in queue_name.split(","):
            super().join(name, **options)

    def get_declared_queues(self) -> set[str]:
        return self._declared.copy()

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 100) -> Consumer:  # noqa: ARG002
        queues = {name: self.queues[name] for name in queue_name.split(",")}
        return self._new_consumer(
            EmbeddedTransport(self, queues, self._news, self._settings.prefetch)
        )


class EmbeddedTransport:
    """Channels on queues in memory; see :class:`~flashsale.batching.Transport`."""

    missing_queues = ()

    def __init__(
        self,
        broker: EmbeddedBroker,
        queues: Mapping[str, Queue[bytes]],
        news: threading.Condition,
        prefetch: int,
    ) -> None:
        self._broker = broker
        self._sources = [
            _Source(name, queue, prefetch // len(queues)) for name, queue in queues.items()
        ]
        self._news = news

    def open(self) -> Channel:
        return EmbeddedChannel(self._sources, self._news)

    def dead_letter(
        self, letters: Sequence[Letter], on_confirmed: Callable[[Sequence[Letter]], None]
    ) -> None:
        self._broker.letters.extend(letters)
        on_confirmed(letters)

    def close(self, seconds: float) -> None:
        """There is nothing on its way."""


class _Source:
    """One queue, and what channels have given back to it."""

    def __init__(self, name: str, queue: Queue[bytes], prefetch: int) -> None:
        self.name = name
        self.prefetch = prefetch
        self._queue = queue
        self._returned: deque[bytes] = deque()

    @property
    def ready_count(self) -> int:
        return len(self._returned) + self._queue.qsize()

    def next(self) -> tuple[bytes, bool] | None:
        """The next body, and whether it was delivered before."""
        if self._returned:
            return self._returned.popleft(), True
        try:
            return self._queue.get_nowait(), False
        except Empty:
            return None

    def give_back(self, body: bytes) -> None:
        self._returned.append(body)

    def ack(self) -> None:
        """It counts as unfinished, for ``join``, until then."""
        self._queue.task_done()


class EmbeddedChannel:
    """One channel on queues in memory; see :class:`~flashsale.batching.Channel`."""

    def __init__(self, sources: Sequence[_Source], news: threading.Condition) -> None:
        self._sources = sources
        self._news = news
        self._outstanding: dict[int, tuple[_Source, bytes]] = {}
        self._counts = dict.fromkeys(sources, 0)
        self._last_tag = 0
        self._consuming = False
        self._is_woken = False
        self._is_closed = False

    def start_consuming(self) -> None:
        self._require_life()
        self._consuming = True

    def stop_consuming(self) -> None:
        self._require_life()
        self._consuming = False

    def receive(
        self,
        seconds: float,
        limit: int,
        *,
        gather_seconds: float = 0.0,  # noqa: ARG002
    ) -> Sequence[Delivery]:
        self._require_life()
        with self._news:
            self._news.wait_for(
                lambda: self._is_woken or any(map(self._can_give, self._sources)), seconds
            )
            self._is_woken = False
        arrived: list[Delivery] = []
        givers = deque(filter(self._can_give, self._sources))
        while givers and len(arrived) < limit:
            source = givers.popleft()
            found = source.next()
            if found is not None:
                arrived.append(self._deliver(source, *found))
                if self._can_give(source):
                    givers.append(source)
        return arrived

    def ask_backlog(self, queue: str, take: Callable[[int], object]) -> None:
        self._require_life()
        take(sum(source.ready_count for source in self._sources if source.name == queue))

    def ack(self, tag: int, *, multiple: bool) -> None:
        self._require_life()
        acked = [other for other in self._outstanding if other <= tag] if multiple else [tag]
        for source, _ in map(self._take_out, acked):
            source.ack()

    def give_back(self, tags: Sequence[int]) -> None:
        self._require_life()
        for source, body in map(self._take_out, tags):
            source.give_back(body)

    def wake(self) -> None:
        with self._news:
            self._is_woken = True
            self._news.notify_all()

    def close(self) -> None:
        if not self._is_closed:
            self.give_back(list(self._outstanding))
            self._is_closed = True

    def _require_life(self) -> None:
        if self._is_closed:
            raise ChannelLost("the channel is closed")

    def _can_give(self, source: _Source) -> bool:
        return self._consuming and self._counts[source] < source.prefetch and source.ready_count > 0

    def _deliver(self, source: _Source, body: bytes, redelivered: bool) -> Delivery:
        self._last_tag += 1
        self._outstanding[self._last_tag] = (source, body)
        self._counts[source] += 1
        return Delivery(self._last_tag, body, redelivered, queue=source.name)

    def _take_out(self, tag: int) -> tuple[_Source, bytes]:
        source, body = self._outstanding.pop(tag)
        self._counts[source] -= 1
        return source, body
