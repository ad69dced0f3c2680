"""The queues: declared as the API declares them, or used as they are found.

Whoever starts first, worker or API, creates them; RabbitMQ takes an equal declaration for the same
queue. Nothing here changes or deletes a queue.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pika
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker

from flashsale.errors import BrokerMisconfigured, BrokerUnavailable
from flashsale.settings import QueueType

_NOT_FOUND = 404


def ensure_topology(
    connection: pika.BlockingConnection,
    *,
    purchase_queue: str,
    dead_letter_queue: str,
    queue_type: QueueType,
) -> list[str]:
    """Declare both queues; returns notices for the operator, one for each that is not ours.

    A queue that exists with other arguments, or that this user may not declare, is used as it is.

    Raises:
        BrokerMisconfigured: a queue neither exists nor can be declared, or is not to be used.
        BrokerUnavailable: the connection was lost.
    """
    arguments = {
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": dead_letter_queue,
    }
    if queue_type == "quorum":
        arguments["x-queue-type"] = queue_type
    # The dead-letter queue first: from its first moment the other one must not drop a message.
    notices = (
        _declare(connection, dead_letter_queue, {}),
        _declare(connection, purchase_queue, arguments),
    )
    return [notice for notice in notices if notice]


def require_topology(
    connection: pika.BlockingConnection, *, purchase_queue: str, dead_letter_queue: str
) -> None:
    """Check that both queues exist, and create nothing.

    For everything but a start: a queue deleted while a worker runs had messages in it, and a new
    empty one would hide that.

    Raises:
        BrokerMisconfigured: naming the queue that is missing or not to be used.
        BrokerUnavailable: the connection was lost.
    """
    for queue in (purchase_queue, dead_letter_queue):
        refusal = _refusal(connection, queue, passive=True)
        if refusal is not None:
            raise BrokerMisconfigured(_unusable(queue, refusal))


def _declare(
    connection: pika.BlockingConnection, queue: str, arguments: Mapping[str, Any]
) -> str | None:
    refusal = _refusal(connection, queue, arguments=arguments)
    if refusal is None:
        return None
    missing = _refusal(connection, queue, passive=True)
    if missing is None:
        return f"queue {queue!r} is used as it is, RabbitMQ says: {refusal.reply_text}"
    raise BrokerMisconfigured(
        f"queue {queue!r} could not be declared, RabbitMQ says: {refusal.reply_text};"
        f" {_unusable(queue, missing)}"
    ) from refusal


def _refusal(
    connection: pika.BlockingConnection,
    queue: str,
    *,
    passive: bool = False,
    arguments: Mapping[str, Any] | None = None,
) -> ChannelClosedByBroker | None:
    """What RabbitMQ answers to the declaration where it does not accept it."""
    # A refused declaration closes its channel, so each has its own.
    with _connection_errors():
        channel = connection.channel()
        try:
            channel.queue_declare(queue, passive=passive, durable=True, arguments=arguments)
        except ChannelClosedByBroker as refusal:
            return refusal
        channel.close()
    return None


def _unusable(queue: str, refusal: ChannelClosedByBroker) -> str:
    if refusal.reply_code == _NOT_FOUND:
        return (
            f"queue {queue!r} does not exist: create it, durable, or correct the name in"
            " PURCHASE_QUEUE or DEAD_LETTER_QUEUE; if it was deleted, its messages are gone"
        )
    return (
        f"queue {queue!r} cannot be used, RabbitMQ says: {refusal.reply_text}; give the user of"
        " RABBITMQ_URL access to it"
    )


@contextmanager
def _connection_errors() -> Iterator[None]:
    try:
        yield
    except AMQPConnectionError as error:
        raise BrokerUnavailable(
            "the connection to RabbitMQ was lost while its queues were declared; start again"
        ) from error
