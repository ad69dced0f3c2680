"""The queues, whoever declared them first and whatever this user may do."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pika
import pytest

from flashsale.brokers.topology import (
    DEFAULT_EXCHANGE,
    ensure_dead_letter_exchange,
    ensure_topology,
    require_queue,
)
from flashsale.errors import BrokerMisconfigured, BrokerUnavailable
from tests.conftest import QueueNames
from tests.support.api import declare_as_the_api_does
from tests.support.rabbitmq import PrivateRabbitMQ


@pytest.fixture
def connection(rabbitmq_server: PrivateRabbitMQ) -> Iterator[pika.BlockingConnection]:
    connection = rabbitmq_server.connect()
    yield connection
    if connection.is_open:
        connection.close()


@pytest.fixture(scope="module")
def limited_url(rabbitmq_server: PrivateRabbitMQ) -> str:
    """A user who may read and write every queue and declare none."""
    user = f"worker-{uuid.uuid4().hex}"
    rabbitmq_server.ctl("add_user", user, "secret")
    rabbitmq_server.ctl("set_permissions", user, "^$", ".*", ".*")
    return f"amqp://{user}:secret@127.0.0.1:{rabbitmq_server.port}"


@pytest.fixture
def limited(limited_url: str) -> Iterator[pika.BlockingConnection]:
    connection = pika.BlockingConnection(pika.URLParameters(limited_url))
    yield connection
    connection.close()


def require_all(connection: pika.BlockingConnection, names: QueueNames) -> None:
    for name in names:
        require_queue(connection, name)


def ensure(
    connection: pika.BlockingConnection, names: QueueNames, *, quorum: bool = False
) -> list[str]:
    queue_type = "quorum" if quorum else "classic"
    return ensure_topology(
        connection,
        purchase_queues=(names.purchase_queue,),
        dead_letter_queue=names.dead_letter_queue,
        queue_type=queue_type,
    )


@pytest.mark.parametrize("first", ["api", "worker"])
def test_either_side_may_declare_the_queues_first(
    connection: pika.BlockingConnection, queue_names: QueueNames, first: str
) -> None:
    """RabbitMQ closes the channel of a declaration that is not equal to the first one."""
    channel = connection.channel()
    if first == "api":
        declare_as_the_api_does(channel, *queue_names)

    assert ensure(connection, queue_names) == []
    assert ensure(connection, queue_names) == []

    declare_as_the_api_does(channel, *queue_names)


def test_what_the_purchase_queue_rejects_is_in_the_dead_letter_queue(
    connection: pika.BlockingConnection, queue_names: QueueNames
) -> None:
    ensure(connection, queue_names)
    channel = connection.channel()
    channel.basic_publish("", queue_names.purchase_queue, b"event")

    delivery = next(channel.consume(queue_names.purchase_queue))[0]
    channel.basic_reject(delivery.delivery_tag, requeue=False)

    dead_letters = connection.channel().consume(queue_names.dead_letter_queue, auto_ack=True)
    assert next(dead_letters)[2] == b"event"


def test_both_are_quorum_queues_when_it_is_asked_for(
    connection: pika.BlockingConnection, queue_names: QueueNames
) -> None:
    assert ensure(connection, queue_names, quorum=True) == []

    for queue, notice in zip(reversed(queue_names), ensure(connection, queue_names), strict=True):
        assert f"'{queue}'" in notice
        assert "x-queue-type" in notice


def test_queues_with_other_arguments_are_used_and_each_one_is_told(
    connection: pika.BlockingConnection, queue_names: QueueNames
) -> None:
    """As the API's code declares its queue, and with a dead-letter queue that forgets."""
    purchase_queue, dead_letter_queue = queue_names
    channel = connection.channel()
    channel.queue_declare(dead_letter_queue, durable=True, arguments={"x-message-ttl": 1_000})
    channel.queue_declare(
        purchase_queue,
        durable=True,
        arguments={
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "purchase_dlq",
        },
    )

    notices = ensure(connection, queue_names)

    assert len(notices) == 2
    assert dead_letter_queue in notices[0]
    assert "x-message-ttl" in notices[0]
    assert purchase_queue in notices[1]
    assert "'x-dead-letter-routing-key'" in notices[1]
    assert "'purchase_dlq'" in notices[1]
    require_all(connection, queue_names)


def test_a_user_who_may_not_declare_uses_what_is_there_without_a_notice(
    connection: pika.BlockingConnection,
    limited: pika.BlockingConnection,
    queue_names: QueueNames,
) -> None:
    """Least privilege is nothing to complain of at each start."""
    dead_letter_queue = queue_names.dead_letter_queue
    ensure(connection, queue_names)
    ensure_dead_letter_exchange(connection, dead_letter_queue)

    assert ensure(limited, queue_names) == []
    assert ensure_dead_letter_exchange(limited, dead_letter_queue) == (dead_letter_queue, None)
    require_all(limited, queue_names)


def test_a_user_who_may_not_declare_is_told_which_command_creates_a_missing_queue(
    limited: pika.BlockingConnection, queue_names: QueueNames
) -> None:
    told = f"'{queue_names[1]}' does not exist: run `flashsale topology`"
    with pytest.raises(BrokerMisconfigured, match=told):
        ensure(limited, queue_names)


def test_without_an_exchange_and_the_right_to_make_one_dead_letters_take_the_default_one(
    connection: pika.BlockingConnection,
    limited: pika.BlockingConnection,
    queue_names: QueueNames,
) -> None:
    ensure(connection, queue_names)

    exchange, notice = ensure_dead_letter_exchange(limited, queue_names.dead_letter_queue)

    assert exchange == DEFAULT_EXCHANGE
    assert notice is not None
    assert "run `flashsale topology`" in notice


@pytest.mark.parametrize("kind", ["fanout", "direct", "topic", "headers"])
def test_the_exchange_leads_to_the_dead_letter_queue_whoever_made_it(
    connection: pika.BlockingConnection, queue_names: QueueNames, kind: str
) -> None:
    """One of the name may be there, of any type and without a binding."""
    name = queue_names.dead_letter_queue
    ensure(connection, queue_names)
    channel = connection.channel()
    channel.exchange_declare(name, kind, durable=True)

    assert ensure_dead_letter_exchange(connection, name) == (name, None)

    channel.confirm_delivery()
    channel.basic_publish(name, name, b"letter", mandatory=True)
    assert channel.basic_get(name, auto_ack=True)[2] == b"letter"


def test_an_exchange_that_may_not_be_bound_is_not_used(
    rabbitmq_server: PrivateRabbitMQ,
    connection: pika.BlockingConnection,
    queue_names: QueueNames,
) -> None:
    """A grant from before there was one: letters in it would reach no queue."""
    user = f"binder-{uuid.uuid4().hex}"
    rabbitmq_server.ctl("add_user", user, "secret")
    rabbitmq_server.ctl("set_permissions", user, ".*", r"^amq\.default$", ".*")
    ensure(connection, queue_names)
    url = f"amqp://{user}:secret@127.0.0.1:{rabbitmq_server.port}"

    with pika.BlockingConnection(pika.URLParameters(url)) as limited:
        exchange, notice = ensure_dead_letter_exchange(limited, queue_names.dead_letter_queue)

    assert exchange == DEFAULT_EXCHANGE
    assert notice is not None


def test_a_deleted_queue_is_named_and_not_created_again(
    connection: pika.BlockingConnection, queue_names: QueueNames
) -> None:
    ensure(connection, queue_names)
    connection.channel().queue_delete(queue_names.purchase_queue)

    for _ in range(2):
        with pytest.raises(BrokerMisconfigured, match=f"'{queue_names[0]}' does not exist"):
            require_all(connection, queue_names)


def test_a_lost_connection_is_no_fault_of_the_queues(
    connection: pika.BlockingConnection, queue_names: QueueNames
) -> None:
    connection.close()

    with pytest.raises(BrokerUnavailable, match="was lost"):
        require_all(connection, queue_names)
