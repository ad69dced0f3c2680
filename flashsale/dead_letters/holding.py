"""Letters taken from their queue, held unacknowledged, and given back to their places."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

from pika.exceptions import AMQPError, ChannelClosedByBroker
from pika.spec import BasicProperties

from flashsale.brokers.connections import answers_within, disconnect, open_blocking
from flashsale.brokers.topology import Depth
from flashsale.errors import BrokerMisconfigured, BrokerUnavailable, FlashsaleError

_ANSWER_SECONDS = 30.0
# Returning 100,000 letters was seen to take a busy node more than 10 s.
_RETURNS_A_SECOND = 1_000
# The end of the queue is where nothing has come for so long and nothing is ready.
_QUIET_SECONDS = 0.2
# A node that takes back what was held before can be silent for seconds.
_SILENCE_SECONDS = 60.0
_STILL_SECONDS = 3.0
_POLL_SECONDS = 0.05
# As few as can be: RabbitMQ takes back the letters of each window by themselves, and that is slow.
# It is the most that a prefetch can be.
_SCAN_WINDOW = 65_535
_NOT_FOUND = 404
_CURRENT_TYPE = re.compile("x-queue-type.*current is .*'quorum'")
_LOCKED = 405


class QueueIsQuorum(FlashsaleError):
    """The dead letters are in a quorum queue, where each look brings a letter nearer to its end."""


class QueueIsTaken(FlashsaleError):
    """Another command changes the same dead letters now."""


class Held(NamedTuple):
    """A message taken and not acknowledged."""

    tag: int
    properties: BasicProperties
    body: bytes


class HeldQueue:
    """The dead-letter queue, taken from its head on without an end to what may be held.

    RabbitMQ holds what is not acknowledged, and the caller what it keeps of it. All of it returns,
    in order, when this is closed, or ends in any other way. Not thread-safe. Each method raises
    BrokerUnavailable where the connection is lost, and BrokerMisconfigured where the queue is
    missing or closed to this user.

    Args:
        urls: The nodes, tried in order.
        name: What RabbitMQ lists the connection as.
        allow_quorum: Go on where each look is counted (see :class:`QueueIsQuorum`).
    """

    def __init__(
        self, urls: Sequence[str], queue: str, name: str, *, allow_quorum: bool = False
    ) -> None:
        self.queue = queue
        self._connection = open_blocking(urls, name)
        self._channel: Any = None  # pika is untyped
        self._allow_quorum = allow_quorum
        self._held_since: float | None = None
        self._held = 0

    def __enter__(self) -> Self:
        try:
            self.depth()
            if not self._allow_quorum and self._is_quorum():
                self.refuse_quorum()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def held_seconds(self) -> float:
        """For how long the oldest of what is held has been."""
        return 0.0 if self._held_since is None else time.monotonic() - self._held_since

    def depth(self, queue: str | None = None) -> Depth:
        """Of the dead-letter queue, or of another one."""
        name = queue or self.queue
        with self._raising_broker_errors():
            channel = self._connection.channel()
            try:
                method = channel.queue_declare(name, passive=True).method
            except ChannelClosedByBroker as refusal:
                raise BrokerMisconfigured(_unusable(name, refusal)) from None
            channel.close()
        return Depth(method.message_count, method.consumer_count)

    def lock(self) -> str | None:
        """Keep others who change these letters away until this is closed.

        A courtesy: without it, each letter would still go to one of them only. Returns a notice
        where this user may not do it.

        Raises:
            QueueIsTaken: somebody else has it.
        """
        name = f"{self.queue}.lock"
        with self._raising_broker_errors():
            try:
                # An exclusive queue ends with its connection, also with that of a killed process.
                self._connection.channel().queue_declare(name, exclusive=True, auto_delete=True)
            except ChannelClosedByBroker as refusal:
                if refusal.reply_code == _LOCKED:
                    raise QueueIsTaken(
                        f"another retry or discard is at work on queue {self.queue!r}; wait for"
                        " it, or stop it, and run this again"
                    ) from None
                return f"others are not kept away, RabbitMQ says: {refusal.reply_text}"
        return None

    def is_locked(self) -> bool:
        """Whether somebody else who changes these letters keeps others away."""
        with self._raising_broker_errors():
            channel = self._connection.channel()
            try:
                channel.queue_declare(f"{self.queue}.lock", passive=True)
            except ChannelClosedByBroker as refusal:
                return bool(refusal.reply_code == _LOCKED)
            channel.close()
        return False

    def take(self, limit: int, handle: Callable[[Held], None]) -> int:
        """Hold up to `limit` more letters, each given to `handle`; fewer at the queue's end."""
        taken = 0

        def on_delivery(_channel: Any, method: Any, properties: Any, body: bytes) -> None:
            nonlocal taken
            taken += 1
            self._held += 1
            handle(Held(method.delivery_tag, properties, body))

        with self._raising_broker_errors():
            channel = self._channel = self._channel or self._connection.channel()
            self._held_since = self._held_since or time.monotonic()
            channel.basic_qos(prefetch_count=limit)
            consumer = channel.basic_consume(self.queue, on_delivery)
        came, last, is_empty = 0, time.monotonic(), False
        while taken < limit:
            with self._raising_broker_errors():
                self._connection.process_data_events(time_limit=_QUIET_SECONDS)
            if taken > came:
                came, last, is_empty = taken, time.monotonic(), False
            elif is_empty:
                break
            elif time.monotonic() - last > _SILENCE_SECONDS:
                raise BrokerUnavailable(
                    f"RabbitMQ has letters in queue {self.queue!r} and sends none; look there for"
                    " an exclusive consumer or an alarm, and run it again"
                )
            else:
                # The last letters may still be on their way: one more turn.
                is_empty = self.depth().ready == 0
        with self._raising_broker_errors():
            # With all that it may have taken, nothing more is on its way to this consumer. Where
            # it is, pika gives it back.
            channel.basic_cancel(consumer)
        return taken

    def scan(self, handle: Callable[[Held], None]) -> int:
        """Give all letters that are ready now to `handle`, and hold them; returns how many."""
        expected = self.depth().ready
        taken = 0
        # Until a window stays empty: a slow node may send less than a window at first.
        while taken < expected and (came := self.take(min(_SCAN_WINDOW, expected - taken), handle)):
            taken += came
        return taken

    def ack(self, tags: Sequence[int]) -> None:
        """Take these out of the queue for good."""
        with self._raising_broker_errors():
            for tag in tags:
                self._channel.basic_ack(tag)
                self._held -= 1

    def give_back(self) -> None:
        """Return all that is held, and wait until it is there; the next taken is the head again."""
        channel, self._channel = self._channel, None
        self._held_since = None
        held, self._held = self._held, 0
        if channel is None:
            return
        with self._raising_broker_errors(_ANSWER_SECONDS + held / _RETURNS_A_SECOND):
            channel.basic_nack(0, multiple=True, requeue=True)
            channel.close()
        # RabbitMQ returns it in parts, also after it has closed the channel; meanwhile a look
        # would find a part of the letters. Where somebody else takes them, the count stands still.
        most, moved_at = -1, time.monotonic()
        while (ready := self.depth().ready) < held:
            if ready > most:
                most, moved_at = ready, time.monotonic()
            elif time.monotonic() - moved_at > _STILL_SECONDS:
                return
            self.wait(_POLL_SECONDS)

    def wait(self, seconds: float) -> None:
        """Let time pass while RabbitMQ's heartbeats are answered."""
        with self._raising_broker_errors(seconds + _ANSWER_SECONDS):
            self._connection.sleep(max(0.0, seconds))

    def close(self) -> None:
        """Give back all that is held, and disconnect. Never raises; may be repeated."""
        # Where that fails it is gone, and what was held has returned with it.
        disconnect(self._connection, _ANSWER_SECONDS)

    def refuse_quorum(self) -> None:
        """Raise :class:`QueueIsQuorum`, unless it is allowed."""
        if not self._allow_quorum:
            raise QueueIsQuorum(
                f"{self.queue!r} is a quorum queue: it counts each look as a delivery, and drops a"
                " letter after its delivery-limit (20 by default from RabbitMQ 4.0); set"
                " delivery-limit -1 by a policy, or accept it with --quorum"
            )

    def _is_quorum(self) -> bool:
        """Whether RabbitMQ says so; where it tells another difference first, letters will tell.

        A declaration that names the type changes nothing, as the queue exists.
        """
        with self._raising_broker_errors():
            channel = self._connection.channel()
            try:
                arguments = {"x-queue-type": "quorum"}
                channel.queue_declare(self.queue, durable=True, arguments=arguments)
            except ChannelClosedByBroker as refusal:
                return bool(_CURRENT_TYPE.search(refusal.reply_text))
            channel.close()
        return True

    @contextmanager
    def _raising_broker_errors(self, seconds: float = _ANSWER_SECONDS) -> Iterator[None]:
        try:
            with answers_within(self._connection, seconds):
                yield
        except ChannelClosedByBroker as refusal:
            raise BrokerMisconfigured(_unusable(self.queue, refusal)) from None
        except (AMQPError, OSError, AssertionError) as error:
            # pika asserts on the state of connections that end while it works on them.
            raise BrokerUnavailable(
                "the connection to RabbitMQ was lost; all letters that were held are in their"
                " queue again, so run it again"
            ) from error


def _unusable(queue: str, refusal: ChannelClosedByBroker) -> str:
    if refusal.reply_code == _NOT_FOUND:
        return (
            f"queue {queue!r} does not exist: start the worker, which declares it, or correct"
            " PURCHASE_QUEUE or DEAD_LETTER_QUEUE"
        )
    return f"queue {queue!r} cannot be used, RabbitMQ says: {refusal.reply_text}"
