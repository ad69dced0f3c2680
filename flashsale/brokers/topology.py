"""The queues and the dead-letter exchange: declared, or used as they are found.

Whoever starts first, worker or API, creates the queues; RabbitMQ takes an equal declaration for the
same queue. Nothing here changes or deletes anything that exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker

from flashsale.errors import BrokerMisconfigured, BrokerUnavailable
from flashsale.settings import QueueType

DEFAULT_EXCHANGE = ""

_REFUSED = 403
_NOT_FOUND = 404


class Part(NamedTuple):
    """A queue or an exchange that the worker uses, and whether it is there."""

    kind: Literal["queue", "exchange"]
    name: str
    exists: bool


def purchase_queue_arguments(dead_letter_queue: str, queue_type: QueueType) -> dict[str, str]:
    """What the purchase queue is declared with."""
    return {
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": dead_letter_queue,
        **dead_letter_queue_arguments(queue_type),
    }


def dead_letter_queue_arguments(queue_type: QueueType) -> dict[str, str]:
    """What the dead-letter queue is declared with: nothing but its type, and no type if classic.

    It is of the purchase queue's type: a classic one lives on one node of a cluster, and while that
    is down no worker could begin to consume.
    """
    return {"x-queue-type": queue_type} if queue_type == "quorum" else {}


def ensure_topology(
    connection: pika.BlockingConnection,
    *,
    purchase_queues: Sequence[str],
    dead_letter_queue: str,
    queue_type: QueueType,
) -> list[str]:
    """Declare all queues; returns notices for the operator, one for each that is not ours.

    A queue that exists with other arguments, or that this user may not declare, is used as it is;
    the latter is least privilege, and no reason for a notice.

    Raises:
        BrokerMisconfigured: a queue neither exists nor can be declared, or is not to be used.
        BrokerUnavailable: the connection was lost.
    """
    arguments = purchase_queue_arguments(dead_letter_queue, queue_type)
    # The dead-letter queue first: from their first moment the others must not drop a message.
    of_letters = dead_letter_queue_arguments(queue_type)
    notices = [ensure_queue(connection, dead_letter_queue, of_letters)]
    notices += [ensure_queue(connection, queue, arguments) for queue in purchase_queues]
    return [notice for notice in notices if notice]


def ensure_queue(
    connection: pika.BlockingConnection, queue: str, arguments: Mapping[str, Any]
) -> str | None:
    """Declare one queue, likewise; returns the notice, if any. Raises what the above does."""
    refused = _declaration_refusal(connection, queue, arguments=arguments)
    if refused is None:
        return None
    missing = _declaration_refusal(connection, queue, passive=True)
    if missing is not None:
        raise BrokerMisconfigured(
            f"queue {queue!r} could not be declared, RabbitMQ says: {refused.reply_text};"
            f" {_unusable(queue, missing)}"
        ) from refused
    if refused.reply_code == _REFUSED:
        return None
    return f"queue {queue!r} is used as it is, RabbitMQ says: {refused.reply_text}"


def ensure_dead_letter_exchange(
    connection: pika.BlockingConnection, dead_letter_queue: str
) -> tuple[str, str | None]:
    """The exchange that leads to the dead-letter queue, and a notice if it is the default one.

    It has the queue's own name, so that one grant covers both: RabbitMQ cannot allow a user the
    default exchange for one queue and not for all. The queue must exist.

    Raises:
        BrokerUnavailable: the connection was lost.
    """
    name = dead_letter_queue
    refused = refusal(
        connection, lambda channel: channel.exchange_declare(name, "fanout", durable=True)
    )
    if refused is not None and refused.reply_code == _REFUSED and exchange_exists(connection, name):
        return name, None  # bound by `flashsale topology`; to look at that no grant is needed
    # Also where somebody has declared it otherwise: a binding leads to the queue from any type.
    refused = refusal(connection, lambda channel: channel.queue_bind(name, name, routing_key=name))
    if refused is None:
        return name, None
    return DEFAULT_EXCHANGE, (
        f"dead letters go through the default exchange, RabbitMQ says: {refused.reply_text};"
        " run `flashsale topology` as a user who may declare them one of their own"
    )


def topology_parts(
    connection: pika.BlockingConnection, *, purchase_queues: Sequence[str], dead_letter_queue: str
) -> list[Part]:
    """What the worker uses and whether it is there, in the order of its creation.

    Raises:
        BrokerMisconfigured: this user may not know whether a queue exists.
        BrokerUnavailable: the connection was lost.
    """
    parts = []
    for queue in (dead_letter_queue, *purchase_queues):
        refused = _declaration_refusal(connection, queue, passive=True)
        if refused is not None and refused.reply_code != _NOT_FOUND:
            raise BrokerMisconfigured(_unusable(queue, refused))
        parts.append(Part("queue", queue, refused is None))
    parts.append(
        Part("exchange", dead_letter_queue, exchange_exists(connection, dead_letter_queue))
    )
    return parts


def require_queue(connection: pika.BlockingConnection, queue: str) -> None:
    """Check that a queue exists, and create nothing.

    For everything but a start: a queue deleted while a worker runs had messages in it, and a new
    empty one would hide that.

    Raises:
        BrokerMisconfigured: it is missing or not to be used.
        BrokerUnavailable: the connection was lost.
    """
    refused = _declaration_refusal(connection, queue, passive=True)
    if refused is not None:
        raise BrokerMisconfigured(_unusable(queue, refused))


class Depth(NamedTuple):
    """A queue as seen from outside; messages that a consumer holds are not among its ready ones."""

    ready: int
    consumers: int


def depths(connection: pika.BlockingConnection, queues: Sequence[str]) -> list[Depth]:
    """How many messages and consumers each queue has, without touching them.

    Raises:
        BrokerMisconfigured: naming the queue that is missing or not to be used.
        BrokerUnavailable: the connection was lost.
    """
    found = []
    for queue in queues:
        with _connection_errors():
            channel = connection.channel()
            try:
                answer = channel.queue_declare(queue, passive=True).method
            except ChannelClosedByBroker as refused:
                raise BrokerMisconfigured(_unusable(queue, refused)) from refused
            found.append(Depth(answer.message_count, answer.consumer_count))
            channel.close()
    return found


def exchange_exists(connection: pika.BlockingConnection, exchange: str) -> bool:
    """Whether there is such an exchange; no right is needed to ask. Raises BrokerUnavailable."""
    return not refusal(connection, lambda channel: channel.exchange_declare(exchange, passive=True))


def refusal(
    connection: pika.BlockingConnection, request: Callable[[BlockingChannel], object]
) -> ChannelClosedByBroker | None:
    """What RabbitMQ answers to the request where it does not accept it.

    Raises:
        BrokerUnavailable: the connection was lost.
    """
    # A refused request closes its channel, so each has its own.
    with _connection_errors():
        channel = connection.channel()
        try:
            request(channel)
        except ChannelClosedByBroker as refused:
            return refused
        channel.close()
    return None


def _declaration_refusal(
    connection: pika.BlockingConnection,
    queue: str,
    *,
    passive: bool = False,
    arguments: Mapping[str, Any] | None = None,
) -> ChannelClosedByBroker | None:
    return refusal(
        connection,
        lambda channel: channel.queue_declare(
            queue, passive=passive, durable=True, arguments=arguments
        ),
    )


def _unusable(queue: str, refusal: ChannelClosedByBroker) -> str:
    if refusal.reply_code == _NOT_FOUND:
        return (
            f"queue {queue!r} does not exist: run `flashsale topology` as a user who may create"
            " it, or correct the name in PURCHASE_QUEUE or DEAD_LETTER_QUEUE; if it was deleted,"
            " its messages are gone"
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
