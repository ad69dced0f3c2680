"""RabbitMQ, examined with the worker's own credentials, and left as it is."""

from __future__ import annotations

from collections.abc import Iterator

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker
from pika.spec import BasicProperties

from flashsale.brokers.connections import (
    address,
    answers_within,
    connect,
    disconnect,
    node_parameters,
)
from flashsale.brokers.topology import DEFAULT_EXCHANGE, exchange_exists, refusal
from flashsale.doctor.finding import Finding, fail, ok, warn
from flashsale.doctor.management import examine_policies
from flashsale.doctor.queues import examine_queues
from flashsale.errors import BrokerUnavailable
from flashsale.settings import Settings

_NAME = "flashsale doctor"
_ANSWER_SECONDS = 5.0
_REFUSED = 403
_OLDEST = (3, 8)


def examine_broker(settings: Settings, management: tuple[str, int] | None) -> Iterator[Finding]:
    """All of RabbitMQ; each silent node takes five seconds.

    `management` is the address of the management API, where it is not the usual one.

    Raises:
        BrokerUnavailable: no node can be reached, or the one that was fell silent.
    """
    connections, away = [], []
    try:
        for node in node_parameters(settings.broker_urls, _NAME):
            try:
                connections.append((node, connect([node])))
            except BrokerUnavailable as error:
                away.append(error)
        for each in away if connections else away[:-1]:
            says, _, remedy = str(each).partition("; ")
            yield warn("rabbitmq", says, remedy)
        if not connections:
            raise away[-1]
        for node, connection in connections:
            yield _version(node, connection)
        node, connection = connections[0]
        try:
            with answers_within(connection, _ANSWER_SECONDS):
                findings = [
                    *examine_queues(connection, settings),
                    _exchange(connection, settings.dead_letter_queue),
                    *_permissions(connection, settings),
                ]
        except (AMQPError, OSError, AssertionError) as error:
            raise BrokerUnavailable(
                f"RabbitMQ at {address(node)} fell silent; look at its log, then run this again"
            ) from error
        yield from findings
        yield from examine_policies(node, management, settings, _numbers(connection))
    finally:
        for _, connection in connections:
            disconnect(connection, _ANSWER_SECONDS)


def _version(node: pika.URLParameters, connection: pika.BlockingConnection) -> Finding:
    says = f"RabbitMQ {_told_version(connection) or 'of unknown version'} at {address(node)}"
    numbers = _numbers(connection)
    if numbers and numbers < _OLDEST:
        return warn("rabbitmq", says, "flashsale is not tried with it: use 3.10 or later")
    return ok("rabbitmq", says)


def _told_version(connection: pika.BlockingConnection) -> str:
    # pika keeps what the server says of itself below its blocking connection.
    return str((connection._impl.server_properties or {}).get("version", ""))


def _numbers(connection: pika.BlockingConnection) -> tuple[int, ...]:
    parts = _told_version(connection).split(".")[:2]
    return tuple(int(part) for part in parts if part.isdigit())


def _exchange(connection: pika.BlockingConnection, name: str) -> Finding:
    if exchange_exists(connection, name):
        return ok("dead-letter-exchange", f"{name!r} exists")
    return warn(
        "dead-letter-exchange",
        f"exchange {name!r} does not exist: dead letters go through the default exchange, which"
        " cannot be granted for one queue alone",
        "start a worker that may declare it, or run `flashsale topology`",
    )


def _permissions(connection: pika.BlockingConnection, settings: Settings) -> Iterator[Finding]:
    """What this user may do; each is asked by a request that is refused for another reason too.

    RabbitMQ looks at the permission first, so no message is taken and none is sent.
    """
    for queue in settings.purchase_queues:
        yield from _reading(connection, queue)
    letters = settings.dead_letter_queue
    exchange = letters if exchange_exists(connection, letters) else DEFAULT_EXCHANGE

    def publish(channel: BlockingChannel) -> None:
        channel.confirm_delivery()
        # Neither is valid, and no queue has that name.
        invalid = BasicProperties(expiration="none", user_id="\0")
        channel.basic_publish(exchange, f"{letters}.nowhere", b"", invalid)

    yield _permission(
        refusal(connection, publish),
        f"write to the {'default exchange' if not exchange else f'exchange {exchange!r}'}",
        f"its write pattern match {exchange or 'amq.default'}",
    )


def _reading(connection: pika.BlockingConnection, queue: str) -> Iterator[Finding]:
    if refusal(connection, lambda channel: channel.queue_declare(queue, passive=True)) is None:

        def consume(channel: BlockingChannel) -> None:
            channel.basic_qos(prefetch_count=1)
            channel.basic_consume(queue, lambda *_: None, arguments={"x-priority": "none"})

        yield _permission(
            refusal(connection, consume), f"read from {queue!r}", f"its read pattern match {queue}"
        )


def _permission(refused: ChannelClosedByBroker | None, what: str, grant: str) -> Finding:
    if refused is not None and refused.reply_code == _REFUSED:
        return fail(
            "rabbitmq-permissions",
            f"the user of RABBITMQ_URL may not {what}",
            f"let {grant}: `rabbitmqctl set_permissions`, see docs/security.md",
        )
    return ok("rabbitmq-permissions", f"the user may {what}")
