"""The transport to RabbitMQ, and the Dramatiq broker that consumes through it."""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import pika
from dramatiq.broker import Consumer
from dramatiq.middleware import Middleware
from pika.exceptions import AMQPError, ChannelClosedByBroker

from flashsale.batching import ChannelLost, Delivery, Letter
from flashsale.brokers.backlog import ask_backlog
from flashsale.brokers.connections import answers_within, connect, node_parameters
from flashsale.brokers.dead_letter_writer import DeadLetterWriter
from flashsale.brokers.deliveries import Diversion, divert
from flashsale.brokers.hosting import NewConsumer, WorkerBroker
from flashsale.brokers.publishing import ConfirmingPublisher
from flashsale.brokers.topology import DEFAULT_EXCHANGE
from flashsale.brokers.worker_queues import LOOK_SECONDS, WorkerQueues
from flashsale.errors import BrokerError
from flashsale.settings import Settings

log = logging.getLogger(__name__)

# How long a node may take to answer one request. The worker's watchdog waits much longer than all
# the requests of one turn, and a stop has time for one of them.
_ANSWER_SECONDS = 3.0

_TAG = attrgetter("tag")


class PurchaseBroker(WorkerBroker):
    """Consumes the purchase queues of RabbitMQ.

    Dramatiq's envelopes and options play no part: what runs, and how, is fixed here and never read
    from a message.

    Raises:
        SettingsError: a URL of RABBITMQ_URL is not one that can be connected to.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        new_consumer: NewConsumer,
        middleware: list[Middleware],
    ) -> None:
        super().__init__(settings, new_consumer=new_consumer, middleware=middleware)
        # Now, where it ends the start: on the consumer's thread it would come again for ever.
        node_parameters(settings.broker_urls, "")
        self._transports: list[RabbitmqTransport] = []
        self._worker_queues = WorkerQueues(settings)

    def declare_queue(self, queue_name: str) -> None:
        """Note the name; its queues are declared in RabbitMQ when the consumer first connects."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues[queue_name] = None
            self.emit_after("declare_queue", queue_name)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30000) -> Consumer:  # noqa: ARG002
        """A consumer that connects by itself. Queues, prefetch and waits are the settings'."""
        transport = RabbitmqTransport(self._settings, self._worker_queues)
        self._transports.append(transport)
        return self._new_consumer(transport)

    @property
    def can_dead_letter(self) -> bool:
        return not any(transport.has_lost_its_writer for transport in self._transports)

    @property
    def failed_letter_attempts(self) -> int:
        return sum(transport.failed_letter_attempts for transport in self._transports)


class RabbitmqTransport:
    """Opens channels that consume all queues; see :class:`~flashsale.batching.Transport`.

    Each :meth:`open` tries one node, so that no number of silent ones can hold up its caller: the
    one that it used last, and after a failure the next.
    """

    def __init__(self, settings: Settings, queues: WorkerQueues) -> None:
        # Each has its share, so that a long queue can neither starve the others nor take what a
        # process may hold in all.
        self._prefetch = settings.prefetch // len(settings.purchase_queues)
        self._queues = queues
        name = f"flashsale worker {os.getpid()}"
        self._nodes = deque(node_parameters(settings.broker_urls, name))
        publisher = ConfirmingPublisher(settings.broker_urls, f"{name} dead letters")
        self._writer = DeadLetterWriter(publisher, dead_letter_queue=settings.dead_letter_queue)

    @property
    def missing_queues(self) -> tuple[str, ...]:
        return self._queues.missing

    def open(self) -> RabbitmqChannel:
        try:
            connection = connect([self._nodes[0]])
        except BrokerError as error:
            self._nodes.rotate(-1)
            raise ChannelLost(str(error)) from None
        try:
            with _raising_channel_lost(connection):
                self._queues.prepare(connection)
            self._writer.lead(self._queues.dead_letter_exchange or DEFAULT_EXCHANGE)
            return RabbitmqChannel(connection, self._queues, self._prefetch)
        except (BrokerError, ChannelLost) as error:
            self._nodes.rotate(-1)
            _close_quietly(connection)
            raise ChannelLost(str(error)) from None

    @property
    def has_lost_its_writer(self) -> bool:
        return self._writer.is_dead

    @property
    def failed_letter_attempts(self) -> int:
        return self._writer.failed_attempts

    def dead_letter(
        self, letters: Sequence[Letter], on_confirmed: Callable[[Sequence[Letter]], None]
    ) -> None:
        self._writer.write(letters, on_confirmed)

    def close(self, seconds: float) -> None:
        self._writer.close(seconds)


class RabbitmqChannel:
    """A consuming channel on a connection of its own; see :class:`~flashsale.batching.Channel`.

    All queues have their consumers on it, so that one ledger holds for the deliveries of all.
    """

    def __init__(
        self, connection: pika.BlockingConnection, queues: WorkerQueues, prefetch: int
    ) -> None:
        self._connection = connection
        self._queues = queues
        #: The queues that are consumed, by their consumer's tag; all tags have one length.
        self._consumed: dict[str, str] = {}
        self._new_tags = map("{:06d}".format, itertools.count())
        self._diversion: Diversion | None = None
        self._cancelled: list[str] = []
        self._arrived: list[Delivery] = []
        self._woken = threading.Event()
        with _raising_channel_lost(self._connection):
            self._channel = connection.channel()
            # For each consumer that begins afterwards, by itself.
            self._channel.basic_qos(prefetch_count=prefetch)
            self._channel.add_on_cancel_callback(self._on_cancel)

    def start_consuming(self) -> None:
        self._require_life()
        if not self._consumed:
            self._consume(self._queues.usable)

    def stop_consuming(self) -> None:
        self._require_life()
        if not self._consumed:
            return
        if self._diversion is not None:
            self._diversion.end()
        with _raising_channel_lost(self._connection):
            for consumer_tag in self._consumed:
                # pika gives back what it has received and not delivered to us yet.
                self._channel.basic_cancel(consumer_tag)
            self._consumed = {}
        tags = [delivery.tag for delivery in self._arrived]
        self._arrived.clear()
        self.give_back(tags)

    def receive(
        self, seconds: float, limit: int, *, gather_seconds: float = 0.0
    ) -> Sequence[Delivery]:
        if self._queues.missing and self._consumed:
            # First, since what pika reads itself meanwhile is sorted in below.
            self._find_missing()
            seconds = min(seconds, LOOK_SECONDS)
        if gather_seconds > 0.0:
            # A turn of pika's loop costs as much as several events, and it would take one for
            # each handful that RabbitMQ sends.
            self._woken.wait(gather_seconds)
            self._woken.clear()
        with _raising_channel_lost(self._connection, seconds):
            more = self._turn(seconds)
            while more and len(self._arrived) < limit:
                more = self._turn(0)
        if self._cancelled:
            self._take_cancels()
        if not self._channel.is_open:
            raise ChannelLost("RabbitMQ closed the channel")
        # Those that pika has read itself may come after later ones.
        arrived = sorted(self._arrived, key=_TAG)
        self._arrived.clear()
        return arrived

    def ask_backlog(self, queue: str, take: Callable[[int], object]) -> None:
        with _raising_channel_lost(self._connection):
            ask_backlog(self._channel, queue, take)

    def ack(self, tag: int, *, multiple: bool) -> None:
        with _raising_channel_lost(self._connection):
            self._channel.basic_ack(tag, multiple=multiple)

    def give_back(self, tags: Sequence[int]) -> None:
        with _raising_channel_lost(self._connection):
            for tag in tags:
                # Never cumulative: batches that are still at work lie between them.
                self._channel.basic_nack(tag, multiple=False, requeue=True)

    def wake(self) -> None:
        self._woken.set()
        try:
            self._connection.add_callback_threadsafe(_nothing)
        except AMQPError:
            return  # closed: nobody waits

    def close(self) -> None:
        _close_quietly(self._connection)

    def _require_life(self) -> None:
        if not self._channel.is_open:
            raise ChannelLost("the channel to RabbitMQ is closed")

    def _turn(self, seconds: float) -> bool:
        """One turn of pika's loop, which reads one buffer. Returns whether there may be more."""
        count = len(self._arrived)
        if self._diversion is None:
            self._connection.process_data_events(time_limit=seconds)
            return len(self._arrived) > count
        self._diversion.may_have_more = False
        self._connection.process_data_events(time_limit=seconds)
        return self._diversion.may_have_more

    def _consume(self, queues: Sequence[str]) -> None:
        """Begin to consume these as well."""
        if self._diversion is not None:
            self._diversion.end()
        with _raising_channel_lost(self._connection):
            for queue in queues:
                consumer_tag = next(self._new_tags)
                self._consumed[consumer_tag] = queue
                try:
                    self._channel.basic_consume(queue, self._on_delivery, consumer_tag=consumer_tag)
                except ChannelClosedByBroker as refused:
                    self._queues.refuse(queue, refused.reply_text)
                    raise
        self._diversion = divert(self._channel, self._consumed, self._arrived.extend)

    def _take_cancels(self) -> None:
        """Go on with the queues that are left."""
        queues = [self._consumed.pop(tag) for tag in self._cancelled if tag in self._consumed]
        self._cancelled.clear()
        for queue in queues:
            cause = f"RabbitMQ cancelled the consumer: queue {queue!r} was deleted, or moved"
            if not self._consumed:
                raise ChannelLost(cause)
            self._queues.lose(queue, cause)

    def _find_missing(self) -> None:
        try:
            with _raising_channel_lost(self._connection):
                found = self._queues.found_again(self._connection)
        except BrokerError as error:
            raise ChannelLost(str(error)) from None
        if found is not None:
            self._consume([found])

    def _on_delivery(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        persistent = properties.delivery_mode == pika.spec.PERSISTENT_DELIVERY_MODE
        queue = self._consumed[method.consumer_tag]
        self._arrived.append(
            Delivery(method.delivery_tag, body, method.redelivered, persistent, queue)
        )

    def _on_cancel(self, frame: Any) -> None:
        self._cancelled.append(frame.method.consumer_tag)


@contextmanager
def _raising_channel_lost(
    connection: pika.BlockingConnection, waiting_seconds: float = 0.0
) -> Iterator[None]:
    try:
        with answers_within(connection, waiting_seconds + _ANSWER_SECONDS):
            yield
    except (AMQPError, OSError, AssertionError) as error:
        # pika asserts on the state of connections that end while it works on them.
        raise ChannelLost(f"{type(error).__name__}: the connection to RabbitMQ ended") from None


def _close_quietly(connection: pika.BlockingConnection) -> None:
    try:
        if connection.is_open:
            with answers_within(connection, _ANSWER_SECONDS):
                connection.close()
    except (AMQPError, OSError, AssertionError):
        log.debug("broker.close_failed", exc_info=True)


def _nothing() -> None:
    """What a wake-up does on the connection's thread."""
