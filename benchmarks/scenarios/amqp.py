"""A publisher that costs the machine next to nothing, so that it can share it with the measured.

pika's publishing costs as much CPU as flashsale's consuming. Here the frames of a message are
made once by pika's encoder, but for the body; the socket takes them as they are.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Iterable
from typing import Any, Self

import pika
from pika import frame, spec

_CHANNEL = 1
_FRAME_MAX = 131_072
_TIMEOUT_SECONDS = 30.0
_RECEIVE_BYTES = 65_536
_PERSISTENT = spec.BasicProperties(
    content_type="application/json", delivery_mode=spec.PERSISTENT_DELIVERY_MODE
)


class FastPublisher:
    """Publishes persistent messages to one queue, which must exist, and counts RabbitMQ's confirms.

    Belongs to one thread. Use it as a context manager: it connects at once, and closes cleanly.
    """

    def __init__(self, url: str, queue: str) -> None:
        #: Messages that RabbitMQ has taken charge of.
        self.confirmed = 0
        self.published = 0
        self._under_way: dict[int, None] = {}  # delivery tags, ascending
        self._received = b""
        self._publish = frame.Method(
            _CHANNEL, spec.Basic.Publish(exchange="", routing_key=queue)
        ).marshal()
        self._headers: dict[int, bytes] = {}  # by the body's size
        parameters = pika.URLParameters(url)
        self._socket = socket.create_connection(
            (parameters.host, parameters.port), _TIMEOUT_SECONDS
        )
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open(parameters)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if error is None:
                self._send(0, spec.Connection.Close(200, "done", 0, 0))
                self._expect(spec.Connection.CloseOk)
        finally:
            self._socket.close()

    def publish(self, bodies: Iterable[bytes]) -> None:
        """Send these; returns when the socket has taken them, which RabbitMQ may delay.

        Raises:
            OSError: RabbitMQ has gone, or closed the channel.
        """
        output = bytearray()
        for body in bodies:
            output += self._publish
            output += self._header(len(body))
            output += struct.pack(">BHL", spec.FRAME_BODY, _CHANNEL, len(body))
            output += body
            output.append(spec.FRAME_END)
            self.published += 1
            self._under_way[self.published] = None
        self._socket.sendall(output)

    def serve(self, seconds: float) -> None:
        """Take in confirms: those that are there, or the first to come within `seconds`."""
        if select.select([self._socket], [], [], max(0.0, seconds))[0]:
            for method in self._receive():
                self._settle(method)

    def wait(self, *, unconfirmed: int = 0) -> None:
        """Return when no more than `unconfirmed` messages lack their confirm.

        Raises:
            TimeoutError: RabbitMQ confirmed nothing for half a minute.
        """
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while len(self._under_way) > unconfirmed:
            before = self.confirmed
            self.serve(deadline - time.monotonic())
            if self.confirmed > before:
                deadline = time.monotonic() + _TIMEOUT_SECONDS
            elif time.monotonic() >= deadline:
                raise TimeoutError(f"RabbitMQ leaves {len(self._under_way)} messages unconfirmed")

    def _header(self, size: int) -> bytes:
        header = self._headers.get(size)
        if header is None:
            header = self._headers[size] = frame.Header(_CHANNEL, size, _PERSISTENT).marshal()
        return header

    def _settle(self, method: Any) -> None:
        if not isinstance(method, spec.Basic.Ack):
            raise ConnectionError(f"RabbitMQ refuses what is published: {method}")
        if not method.multiple:
            del self._under_way[method.delivery_tag]
            self.confirmed += 1
            return
        tags = []
        for tag in self._under_way:
            if tag > method.delivery_tag:
                break
            tags.append(tag)
        for tag in tags:
            del self._under_way[tag]
        self.confirmed += len(tags)

    def _open(self, parameters: pika.URLParameters) -> None:
        self._socket.sendall(frame.ProtocolHeader().marshal())
        self._expect(spec.Connection.Start)
        name, password = parameters.credentials.username, parameters.credentials.password
        login = f"\0{name}\0{password}".encode()
        self._send(0, spec.Connection.StartOk({}, "PLAIN", login, "en_US"))
        self._expect(spec.Connection.Tune)
        self._send(0, spec.Connection.TuneOk(_CHANNEL, _FRAME_MAX, 0))
        self._send(0, spec.Connection.Open(parameters.virtual_host))
        self._expect(spec.Connection.OpenOk)
        self._send(_CHANNEL, spec.Channel.Open())
        self._expect(spec.Channel.OpenOk)
        self._send(_CHANNEL, spec.Confirm.Select())
        self._expect(spec.Confirm.SelectOk)

    def _send(self, channel: int, method: Any) -> None:
        self._socket.sendall(frame.Method(channel, method).marshal())

    def _expect(self, kind: type[Any]) -> None:
        """Wait for this method; confirms that come before it are taken in."""
        while True:
            for method in self._receive():
                if isinstance(method, kind):
                    return
                self._settle(method)

    def _receive(self) -> list[Any]:
        """The methods that have arrived, waiting for at least some bytes."""
        data = self._socket.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionResetError("RabbitMQ closed the connection")
        self._received += data
        methods, at = [], 0
        while len(self._received) - at > spec.FRAME_HEADER_SIZE:
            size = struct.unpack_from(">BHL", self._received, at)[2]
            end = at + spec.FRAME_HEADER_SIZE + size + spec.FRAME_END_SIZE
            _, found = frame.decode_frame(self._received[at:end])
            if found is None:
                break
            methods.append(found.method)
            at = end
        self._received = self._received[at:]
        return methods
