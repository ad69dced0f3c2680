"""A model of one RabbitMQ queue, its channels and its dead letters, without threads or sockets."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from flashsale.batching import ChannelLost, Delivery, Letter

OnConfirmed = Callable[[Sequence[Letter]], None]


@dataclass(slots=True)
class Message:
    """A message in the queue, or out on a channel."""

    position: int
    body: bytes
    redelivered: bool = False


@dataclass(eq=False)
class Rabbit:
    """The node: what is ready, what is out on which channel, what has been dead-lettered.

    `on_ack` hears of every delivery at the moment of its acknowledgement.
    """

    on_ack: Callable[[bytes], object] = lambda _body: None
    is_up: bool = True
    ready: list[Message] = field(default_factory=list)
    channels: list[FakeChannel] = field(default_factory=list)
    #: Bodies and reasons in the dead-letter queue, in order.
    dead_letters: list[tuple[bytes, str]] = field(default_factory=list)
    #: Bodies whose publisher has the confirmation in hand.
    confirmed: set[bytes] = field(default_factory=set)
    #: What a client did that makes RabbitMQ close its channel.
    protocol_errors: list[str] = field(default_factory=list)
    published: int = 0

    def publish(self, *bodies: bytes) -> None:
        for body in bodies:
            self.ready.append(Message(self.published, body))
            self.published += 1

    def requeue(self, messages: Sequence[Message]) -> None:
        """Messages return to where they stood, marked."""
        if messages:
            for message in messages:
                message.redelivered = True
            self.ready.extend(messages)
            self.ready.sort(key=attrgetter("position"))

    @property
    def unacknowledged(self) -> int:
        return sum(len(channel.outstanding) for channel in self.channels)

    def go_down(self) -> None:
        """Every connection ends, and none can be opened; the queue is durable."""
        self.is_up = False
        for channel in list(self.channels):
            channel.cut()


class FakeChannel:
    """One channel, as both its ends see it; see :class:`flashsale.batching.Channel`.

    Deliveries travel when :meth:`deliver` is called. An acknowledgement is on its way until the
    next delivery, and lost where the connection is cut before.
    """

    def __init__(self, rabbit: Rabbit, prefetch: int) -> None:
        self.rabbit = rabbit
        self.prefetch = prefetch
        self.is_open = True
        self.consuming = False
        self.outstanding: dict[int, Message] = {}
        self.arrived: list[Delivery] = []
        self.received = 0
        self.woken = False
        #: How long the last `receive` was ready to wait.
        self.patience = 0.0
        #: For how long it let deliveries gather before that.
        self.gathered = 0.0
        #: How many deliveries it could have used.
        self.wanted = 0
        #: Of which queues it was asked how much waits in them.
        self.asked: list[str] = []
        self._last_tag = 0
        self._acks_on_their_way: list[Message] = []
        rabbit.channels.append(self)

    def deliver(self, count: int = 1_000_000) -> int:
        """Push up to `count` messages to the client, as far as the prefetch allows."""
        if not (self.is_open and self.consuming):
            return 0
        self._acks_on_their_way.clear()
        ready = self.rabbit.ready
        count = min(count, len(ready), self.prefetch - len(self.outstanding))
        for message in ready[:count]:
            self._last_tag += 1
            self.outstanding[self._last_tag] = message
            self.arrived.append(
                Delivery(self._last_tag, message.body, message.redelivered, queue="purchase")
            )
        del ready[:count]
        return count

    def cut(self, *, lose_acks: bool = False) -> None:
        """The connection ends; its client learns of it at its next call."""
        if not self.is_open:
            return
        self.is_open = self.consuming = False
        self.rabbit.channels.remove(self)
        messages = list(self.outstanding.values())
        if lose_acks:
            messages += self._acks_on_their_way
        self.outstanding.clear()
        self.arrived.clear()
        self.rabbit.requeue(messages)

    def start_consuming(self) -> None:
        self._require_life()
        self.consuming = True

    def stop_consuming(self) -> None:
        self._require_life()
        self.consuming = False
        # pika returns what it has got and not handed on.
        arrived, self.arrived = self.arrived, []
        self.rabbit.requeue([self.outstanding.pop(delivery.tag) for delivery in arrived])

    def receive(
        self,
        seconds: float,
        limit: int,
        *,
        gather_seconds: float = 0.0,
    ) -> Sequence[Delivery]:
        # Like pika's, this hands on all that one read has brought, be it more than `limit`.
        self._require_life()
        self.patience = 0.0 if self.woken or self.arrived else seconds
        self.gathered = gather_seconds
        self.wanted = limit
        self.woken = False
        arrived, self.arrived = self.arrived, []
        self.received += len(arrived)
        return arrived

    def ask_backlog(self, queue: str, take: Callable[[int], object]) -> None:
        self._require_life()
        self.asked.append(queue)
        take(len(self.rabbit.ready))

    def ack(self, tag: int, *, multiple: bool) -> None:
        self._require_life()
        self._require_outstanding(tag)
        tags = [each for each in self.outstanding if each <= tag] if multiple else [tag]
        for each in tags:
            message = self.outstanding.pop(each)
            self.rabbit.on_ack(message.body)
            self._acks_on_their_way.append(message)

    def give_back(self, tags: Sequence[int]) -> None:
        self._require_life()
        for tag in tags:
            self._require_outstanding(tag)
            self.rabbit.requeue([self.outstanding.pop(tag)])

    def wake(self) -> None:
        self.woken = True

    def close(self) -> None:
        self.cut()

    def _require_life(self) -> None:
        if not self.is_open:
            raise ChannelLost("the connection ended")

    def _require_outstanding(self, tag: int) -> None:
        if tag not in self.outstanding:
            self.rabbit.protocol_errors.append(f"unknown delivery tag {tag}")
            self.cut()
            raise ChannelLost("RabbitMQ closed the channel")


class FakeTransport:
    """One process's way to the node; see :class:`flashsale.batching.Transport`.

    A dead letter waits, is written to its queue, and is then confirmed: each when it is told to.
    """

    def __init__(self, rabbit: Rabbit, prefetch: int) -> None:
        self.rabbit = rabbit
        self.prefetch = prefetch
        self.channel: FakeChannel | None = None
        self.waiting: deque[tuple[Letter, OnConfirmed]] = deque()
        self.written: deque[tuple[Letter, OnConfirmed]] = deque()
        self.on_letter: Callable[[Letter], object] = lambda _letter: None
        #: Whether close() finds the time to carry away what waits.
        self.finishes = True
        self.opens = 0
        #: How long close() was given for that.
        self.close_seconds: float | None = None
        self._received_before = 0

    @property
    def received(self) -> int:
        """Deliveries that the consumer has taken, over all channels."""
        return self._received_before + (self.channel.received if self.channel else 0)

    def open(self) -> FakeChannel:
        self.opens += 1
        if not self.rabbit.is_up:
            raise ChannelLost("RabbitMQ cannot be reached")
        self._received_before = self.received
        self.channel = FakeChannel(self.rabbit, self.prefetch)
        return self.channel

    def dead_letter(self, letters: Sequence[Letter], on_confirmed: OnConfirmed) -> None:
        for letter in letters:
            self.on_letter(letter)
            self.waiting.append((letter, on_confirmed))

    def write_letters(self, count: int = 1_000_000) -> None:
        """Write what waits; as in the real writer, without those whose channel is gone."""
        for _ in range(min(count, len(self.waiting)) if self.rabbit.is_up else 0):
            letter, on_confirmed = self.waiting.popleft()
            if not letter.ledger.is_closed:
                self.rabbit.dead_letters.append((letter.delivery.body, letter.rejection.reason))
                self.written.append((letter, on_confirmed))

    def confirm_letters(self, count: int = 1_000_000) -> None:
        for _ in range(min(count, len(self.written))):
            letter, on_confirmed = self.written.popleft()
            self.rabbit.confirmed.add(letter.delivery.body)
            on_confirmed([letter])

    def lose_confirms(self) -> None:
        """What is written and not confirmed has to be written again."""
        self.waiting.extend(self.written)
        self.written.clear()

    def close(self, seconds: float) -> None:
        self.close_seconds = seconds
        if self.finishes:
            self.write_letters()
            self.confirm_letters()
