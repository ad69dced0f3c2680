"""Asks how much waits in a queue, without waiting for the answer.

The answer comes behind all deliveries that are on their way, so that a consumer who waited for it
would do nothing meanwhile. pika's blocking channel waits; the one below it does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pika.adapters.blocking_connection import BlockingChannel


def ask_backlog(channel: BlockingChannel, queue: str, take: Callable[[int], object]) -> None:
    """Have `take` told how many messages wait, delivered to nobody, for each of its consumers.

    It is told by one of the next turns of the connection's loop, on its thread. Never, where pika
    is not as it is known here, or where the channel ends first; a queue that is not there ends it.
    """

    def share(frame: Any) -> None:
        take(frame.method.message_count // max(1, frame.method.consumer_count))

    below = getattr(channel, "_impl", None)
    if below is not None:
        below.queue_declare(queue, passive=True, callback=share)
