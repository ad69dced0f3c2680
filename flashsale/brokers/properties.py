"""Properties of a message that say what Python cannot hold.

AMQP has dates beyond the year 9999, and tables as deep as a frame is long. RabbitMQ passes them
on; pika ends the connection at the sight of them, and so it does with the next one, where the
message is redelivered. One such message would keep everybody from what else is in its queue.
"""

from __future__ import annotations

import struct

from pika import spec
from pika.exceptions import ProtocolSyntaxError


class LenientProperties(spec.BasicProperties):  # type: ignore[misc]  # pika is untyped
    """What could be read; None for the rest, as if the publisher had not set it."""

    def decode(self, encoded: bytes, offset: int = 0) -> LenientProperties:
        try:
            super().decode(encoded, offset)
        except (ValueError, OverflowError, OSError, RecursionError):  # a date, or a deep table
            pass
        except (struct.error, ProtocolSyntaxError):  # which RabbitMQ reads otherwise than pika
            pass
        return self


def install() -> None:
    """Let pika read all messages of this process so. Harmless when repeated."""
    spec.props[spec.BasicProperties.INDEX] = LenientProperties
