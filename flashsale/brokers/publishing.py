"""Publishing that knows what arrived: persistent, mandatory, and confirmed by RabbitMQ.

pika's blocking channel waits for each confirm before it sends the next message. Here many messages
are on their way at once, on pika's asynchronous connection, whose loop runs in the caller's thread
and only while a call is in progress.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import pika
from pika.exceptions import ChannelClosedByBroker
from pika.spec import Basic, BasicProperties

from flashsale.brokers.connections import Loop, address, node_parameters, unavailable
from flashsale.errors import PublishUnconfirmed

WINDOW = 1_000
"""Most messages on their way at once."""

# Refilling only when half the window is confirmed keeps the turns of the loop few.
_REFILL_BELOW = WINDOW // 2
# The socket is served at least this often while messages are taken from a slow iterable.
_LONGEST_FILL_SECONDS = 0.02
_CHANNEL_SECONDS = 5.0
_CLOSE_SECONDS = 1.0


class Outgoing(NamedTuple):
    """A message; for the default exchange, `routing_key` is the name of its queue."""

    routing_key: str
    body: bytes
    headers: Mapping[str, Any] | None = None
    exchange: str = ""


class _Call:
    """What one call of publish() has sent, and how each message of it ended."""

    def __init__(self, messages: Iterable[Outgoing]) -> None:
        self.messages: Iterator[Outgoing] = iter(messages)
        self.exhausted = False
        self.source_error: Exception | None = None
        self.taken = 0
        self.under_way: dict[int, int] = {}  # delivery tag to index; tags ascend
        self.refused: set[int] = set()
        self.refusal = ""
        self.nacked = False
        self.moved_at = time.monotonic()

    @property
    def wants_more(self) -> bool:
        return not (self.exhausted or self.refused)

    def next_message(self) -> Outgoing | None:
        try:
            return next(self.messages)
        except StopIteration:
            self.exhausted = True
        except Exception as error:  # noqa: BLE001  # the caller's; kept until all sent is settled
            self.exhausted = True
            self.source_error = error
        return None

    def sent(self, tag: int) -> None:
        if not self.under_way:
            self.moved_at = time.monotonic()
        self.under_way[tag] = self.taken
        self.taken += 1

    def settle(self, tag: int, *, multiple: bool) -> set[int]:
        """Indexes of the messages that a confirm speaks of; they are no longer under way."""
        self.moved_at = time.monotonic()
        tags = [sent for sent in self.under_way if sent <= tag] if multiple else [tag]
        return {self.under_way.pop(sent) for sent in tags}


class ConfirmingPublisher:
    """Publishes to RabbitMQ and returns when every message is confirmed.

    It connects when it is first used, and again after a connection was lost. Not thread-safe, and
    not to be carried across a fork: one thread, one publisher.

    Args:
        urls: The nodes, tried in order.
        name: What RabbitMQ lists the connection as.
        confirm_timeout_seconds: The longest that a call waits without a single confirm.

    Attributes:
        confirmed: Messages confirmed so far, also those of calls that failed or were interrupted.
    """

    def __init__(
        self, urls: Sequence[str], name: str, confirm_timeout_seconds: float = 10.0
    ) -> None:
        self.confirmed = 0
        self._nodes = node_parameters(urls, name)
        for parameters in self._nodes:
            # Between calls nobody drives the connection, so nobody would answer a heartbeat.
            # Within a call it is the wait for a confirm that is bounded.
            parameters.heartbeat = 0
        self._confirm_timeout_seconds = confirm_timeout_seconds
        self._connection: Any = None  # pika is untyped
        self._channel: Any = None
        self._last_tag = 0
        self._closed_because: BaseException | None = None
        self._call = _Call(())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def publish(self, messages: Iterable[Outgoing]) -> int:
        """Publish all `messages`; returns how many, once every one of them is confirmed.

        They are taken as room among those under way allows, so the iterable may be endless; one
        has left at the latest when the next has been taken. After the first message that RabbitMQ
        refuses no more are taken. An error that the iterable raises comes out unchanged, once all
        that was sent before is confirmed.

        Raises:
            BrokerUnavailable: no node could be reached; no message was taken.
            PublishUnconfirmed: a message was returned (its queue is missing), refused, or not
                confirmed in time, or the connection was lost; it tells which are confirmed.
        """
        self._ensure_channel()
        call = self._call = _Call(messages)
        try:
            self._carry_out(call)
        except BaseException:
            self.close()
            raise
        if call.under_way or call.wants_more:
            reason = self._why_it_ended()
            self.close()
            raise PublishUnconfirmed(
                f"{reason}; messages that may or may not have arrived: {len(call.under_way)};"
                " publish them again, a second copy is harmless",
                unconfirmed={*call.under_way.values(), *call.refused},
                taken=call.taken,
            ) from self._closed_because
        if call.nacked:
            # A channel on which a quorum queue was published to while it had no leader can go on
            # refusing for ever, though a new one is served at once.
            self.close()
        if call.refused:
            raise PublishUnconfirmed(call.refusal, unconfirmed=call.refused, taken=call.taken)
        if call.source_error is not None:
            raise call.source_error
        return call.taken

    def close(self) -> None:
        """Close the connection, if there is one. May be called again at any time."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is None:
            return
        if not (connection.is_closing or connection.is_closed):
            connection.close()
        # A node that hangs, or blocks publishers, does not answer; the socket closes all the same.
        loop: Loop = connection.ioloop
        for step in (loop.cut, loop.close):
            deadline = time.monotonic() + _CLOSE_SECONDS
            while not connection.is_closed and time.monotonic() < deadline:
                loop.run(deadline - time.monotonic())
            step()

    def _carry_out(self, call: _Call) -> None:
        """Send and await confirms until all is settled, the connection is lost, or time is up."""
        loop: Loop = self._connection.ioloop
        while True:
            self._fill(call)
            if not call.under_way:
                return  # nothing was left to take either
            has_room = call.wants_more and len(call.under_way) < WINDOW
            patience = call.moved_at + self._confirm_timeout_seconds - time.monotonic()
            loop.run(0 if has_room else patience)
            # Judged after the loop has read what came while the iterable was slow.
            timed_out = time.monotonic() - call.moved_at >= self._confirm_timeout_seconds
            if self._closed_because is not None or (call.under_way and timed_out):
                return

    def _fill(self, call: _Call) -> None:
        until = time.monotonic() + _LONGEST_FILL_SECONDS
        while call.wants_more and len(call.under_way) < WINDOW and time.monotonic() < until:
            message = call.next_message()
            if message is None:
                return
            tag = self._last_tag + 1
            properties = BasicProperties(
                content_type="application/json",
                delivery_mode=pika.DeliveryMode.Persistent.value,
                headers=message.headers,
                message_id=str(tag),  # by which a returned message is known; it has no tag
            )
            self._channel.basic_publish(
                message.exchange, message.routing_key, message.body, properties, mandatory=True
            )
            self._last_tag = tag
            call.sent(tag)

    def _why_it_ended(self) -> str:
        where = address(self._connection.params)
        reason = self._closed_because
        if isinstance(reason, ChannelClosedByBroker):
            return f"RabbitMQ at {where} closed the channel: {reason.reply_text}"
        if reason is not None:
            return f"the connection to RabbitMQ at {where} was lost"
        return (
            f"RabbitMQ at {where} confirmed nothing for {self._confirm_timeout_seconds:g} s; look"
            " there for a memory or disk alarm"
        )

    # Connecting

    def _ensure_channel(self) -> None:
        if self._connection is not None:
            # The end of an idle connection is noticed only when its loop runs.
            self._connection.ioloop.run(0)
            if self._channel is not None and self._closed_because is None:
                return
            self.close()
        failures: list[tuple[pika.URLParameters, BaseException]] = []
        for parameters in self._nodes:
            self._closed_because = None
            self._last_tag = 0
            self._connection = pika.SelectConnection(
                parameters,
                on_open_callback=self._on_open,
                on_open_error_callback=self._on_connection_closed,
                on_close_callback=self._on_connection_closed,
                custom_ioloop=Loop(),
            )
            self._connection.ioloop.run(parameters.stack_timeout + _CHANNEL_SECONDS)
            if self._channel is not None and self._closed_because is None:
                return
            failures.append((parameters, self._closed_because or TimeoutError()))
            self.close()
        raise unavailable(failures) from failures[-1][1]

    # Called by pika, while its loop runs

    def _on_open(self, connection: pika.SelectConnection) -> None:
        connection.channel(on_open_callback=self._on_channel_open)

    def _on_channel_open(self, channel: Any) -> None:
        loop: Loop = channel.connection.ioloop

        def ready(_: object) -> None:
            self._channel = channel
            loop.stop()

        channel.add_on_close_callback(self._on_channel_closed)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(partial(self._on_confirm, loop), callback=ready)

    def _on_return(self, _channel: Any, method: Any, properties: Any, _body: bytes) -> None:
        # The confirm of a returned message follows, so it stays under way until then.
        call = self._call
        call.refused.add(call.under_way[int(properties.message_id)])
        call.refusal = (
            f"RabbitMQ has no queue {method.routing_key!r}, or no way to it; start the worker,"
            " which declares it, run `flashsale topology`, or correct the name"
        )

    def _on_confirm(self, loop: Loop, frame: Any) -> None:
        call, confirm = self._call, frame.method
        settled = call.settle(confirm.delivery_tag, multiple=confirm.multiple)
        if isinstance(confirm, Basic.Nack):
            call.refused |= settled
            call.nacked = True
            call.refusal = (
                "RabbitMQ refused messages (basic.nack): the queue is full or its node has failed"
            )
        else:
            self.confirmed += len(settled - call.refused)
        if not call.under_way or (call.wants_more and len(call.under_way) < _REFILL_BELOW):
            loop.stop()

    def _on_channel_closed(self, channel: Any, reason: BaseException) -> None:
        self._on_connection_closed(channel.connection, reason)

    def _on_connection_closed(
        self, connection: pika.SelectConnection, reason: BaseException
    ) -> None:
        self._closed_because = self._closed_because or reason
        connection.ioloop.stop()
