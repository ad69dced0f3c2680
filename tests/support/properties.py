"""Properties of a message that no client library would write."""

from __future__ import annotations

import struct

from pika import spec


class RawProperties(spec.BasicProperties):
    """Properties as these bytes."""

    def __init__(self, encoded: bytes) -> None:
        super().__init__()
        self._encoded = encoded

    def encode(self) -> list[bytes]:
        return [self._encoded]


def _headers(value: bytes) -> bytes:
    """Properties that are headers, with one of this value."""
    return struct.pack(">HI", 0x2000, 2 + len(value)) + b"\x01x" + value


_NESTED = b"".join(b"A" + struct.pack(">I", 5 * rest) for rest in range(1_999, -1, -1))

#: What RabbitMQ passes on and Python cannot hold, by name.
UNREADABLE = {
    "a date beyond all years": RawProperties(_headers(b"T" + struct.pack(">Q", 2**62))),
    "a deep table": RawProperties(_headers(_NESTED)),
}
