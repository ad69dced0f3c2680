"""Takes whole deliveries straight from the bytes that pika has received.

pika decodes each of a delivery's three frames (method, header, body) into objects, and passes them
on one by one; that costs more than all else a worker does for an event. Here a delivery is
recognized by the few bytes that must be there, and only its tag, its body, whether it was
redelivered and whether it is persistent are read. Exchange, routing key and all other properties
are skipped unread: nothing may depend on what a publisher has put there.

Everything else stays with pika, in its place in the stream: other frames, other channels, bodies
that are empty or come in several frames, and what has arrived in part.

No other room leans so on how pika works inside; setup.cfg bounds the versions.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Mapping
from typing import Any

import pika

from flashsale.batching import Delivery

log = logging.getLogger(__name__)

# pika asks the socket for so little that a read brings a few deliveries only.
_READ_BYTES = 64 * 1024

_METHOD, _HEADER, _BODY = b"\x01", b"\x02", b"\x03"
_BASIC_DELIVER = struct.pack(">HH", 60, 60)
_BASIC_CONTENT = struct.pack(">HH", 60, 0)
_FRAME_END = b"\xce"
_FRAMES_OF_A_DELIVERY = 3

# AMQP's properties: 16 flags for those that are there, then their values in the order of the flags.
_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE = 0x80, 0x40, 0x20, 0x10
_TABLE_SIZE = struct.Struct(">I").unpack_from
_PERSISTENT = 2


class DeliveryScanner:
    """Finds the whole deliveries of one channel's consumers at the start of received bytes.

    `queues` are the queues by consumer tag, all tags of one length.
    """

    def __init__(self, channel_number: int, queues: Mapping[str, str]) -> None:
        channel = struct.pack(">H", channel_number)
        self._method_start = _METHOD + channel
        self._queues = {
            _BASIC_DELIVER + bytes([len(tag)]) + tag.encode(): queue
            for tag, queue in queues.items()
        }
        length = len(next(iter(self._queues)))
        # Start, size, what it delivers to whom, delivery tag, flags; names follow.
        self._method = struct.Struct(f">3sI{length}sQB").unpack_from
        # From the end of the frame before: start, size, class, body size; properties follow.
        self._header_start = _FRAME_END + _HEADER + channel
        self._header = struct.Struct(">4sI4sQ").unpack_from
        # From the end of the frame before: start, size; the body follows.
        self._body_start = _FRAME_END + _BODY + channel
        self._body = struct.Struct(">4sI").unpack_from

    def scan(self, data: bytes) -> tuple[list[Delivery], int]:
        """The deliveries that `data` begins with, and how many bytes they take."""
        method_start, queue_of, method = self._method_start, self._queues.get, self._method
        header_start, header = self._header_start, self._header
        body_start, body = self._body_start, self._body
        deliveries: list[Delivery] = []
        position = 0
        # All messages of one publisher begin with the same, as a rule: it is read once.
        known, persistent = b"\0\0", False
        try:
            while True:
                start, size, delivers, tag, flags = method(data, position)
                queue = queue_of(delivers)
                if start != method_start or queue is None:
                    break
                at = position + 7 + size
                start, size, content, body_size = header(data, at)
                if start != header_start or content != _BASIC_CONTENT:
                    break
                properties = at + 20
                at += 8 + size
                start, size = body(data, at)
                if start != body_start or size != body_size:
                    break
                begin = at + 8
                end = begin + size
                if data[end] != _FRAME_END[0]:
                    break
                if not data.startswith(known, properties):
                    known, persistent = _delivery_mode(data[properties:at])
                deliveries.append(Delivery(tag, data[begin:end], flags & 1 == 1, persistent, queue))
                position = end + 1
        except (struct.error, IndexError):
            pass  # the rest has not arrived yet
        return deliveries, position


def _delivery_mode(properties: bytes) -> tuple[bytes, bool]:
    """What of the properties decides whether they say that a message is persistent; do they?"""
    flags = properties[0]
    if not flags & _DELIVERY_MODE:
        return properties[:2], False
    at = 2
    if flags & _CONTENT_TYPE:
        at += 1 + properties[at]
    if flags & _CONTENT_ENCODING:
        at += 1 + properties[at]
    if flags & _HEADERS:
        at += 4 + _TABLE_SIZE(properties, at)[0]
    return properties[: at + 1], properties[at] == _PERSISTENT


class Diversion:
    """While it is on, whole deliveries of a channel's consumers come to `take`, never to pika.

    `take` is called on the connection's thread, in the order of the stream. What pika still has
    to read itself reaches the consumer's own callback, perhaps later than what follows it: sort
    by tag.
    """

    def __init__(
        self, channel: Any, queues: Mapping[str, str], take: Callable[[list[Delivery]], None]
    ) -> None:
        #: Whether a read since this was last set to False took all that it may: the socket may hold
        #: more.
        self.may_have_more = False
        self._below = channel.connection._impl
        self._scan = DeliveryScanner(channel.channel_number, queues).scan
        self._take = take
        self._request_return = channel.connection._request_channel_dispatch
        self._no_channel = -channel.channel_number
        self._read_frame = self._below._read_frame
        self._below._read_frame = self._take_deliveries
        self._below._transport._MAX_RECV_BYTES = _READ_BYTES

    def end(self) -> None:
        """Leave what comes from now on to pika."""
        self._below._read_frame = self._read_frame

    def _take_deliveries(self) -> Any:
        """What pika calls, after each read and each frame, for the next frame in its buffer."""
        below = self._below
        if len(below._frame_buffer) >= _READ_BYTES:
            self.may_have_more = True
        deliveries, length = self._scan(below._frame_buffer)
        if deliveries:
            below._trim_frame_buffer(length)  # counts the bytes, too: a heartbeat's check reads it
            below.frames_received += _FRAMES_OF_A_DELIVERY * len(deliveries)
            self._take(deliveries)
            # A negative number ends pika's wait for events, which would not notice these.
            self._request_return(self._no_channel)
        return self._read_frame()


def divert(
    channel: Any, queues: Mapping[str, str], take: Callable[[list[Delivery]], None]
) -> Diversion | None:
    """Let deliveries of a BlockingChannel's consumers come to `take`; see :class:`Diversion`.

    `queues` are the consumers' queues by tag; see :class:`DeliveryScanner`. None, and a log line,
    where pika is not as it is known here: all of them reach the consumers' own callbacks then, at
    pika's own pace.
    """
    connection = channel.connection
    below = getattr(connection, "_impl", None)
    if (
        hasattr(connection, "_request_channel_dispatch")
        and hasattr(below, "_read_frame")
        and hasattr(below, "_trim_frame_buffer")
        and hasattr(below, "_transport")
        and hasattr(below, "frames_received")
        and isinstance(getattr(below, "_frame_buffer", None), bytes)
    ):
        return Diversion(channel, queues, take)
    log.warning("broker.deliveries_not_diverted", extra={"pika": pika.__version__})
    return None
