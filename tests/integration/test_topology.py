"""The queues, whoever declared them first and whatever this user may do."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pika
import pytest

from flashsale.brokers.topology import ensure_topology, require_topology
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


def ensure(
    connection: pika.BlockingConnection, names: QueueNames, *, quorum: bool = False
) -> list[str]:
    queue_type = "quorum" if quorum else "classic"
    return ensure_topology(connection, **names._asdict(), queue_type=queue_type)


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


def test_a_quorum_queue_is_one_when_it_is_asked_for(
    connection: pika.BlockingConnection, queue_names: QueueNames
) -> None:
    assert ensure(connection, queue_names, quorum=True) == []

    (notice,) = ensure(connection, queue_names)
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
    require_topology(connection, **queue_names._asdict())


def test_a_user_who_may_not_declare_uses_the_queues_that_are_there(
    connection: pika.BlockingConnection,
    limited: pika.BlockingConnection,
    queue_names: QueueNames,
) -> None:
    ensure(connection, queue_names)

    notices = ensure(limited, queue_names)

    assert len(notices) == 2
    assert all("used as it is" in notice and "refused" in notice for notice in notices)
    require_topology(limited, **queue_names._asdict())


def test_a_user_who_may_not_declare_is_told_which_queue_to_create(
    limited: pika.BlockingConnection, queue_names: QueueNames
) -> None:
    with pytest.raises(BrokerMisconfigured, match=f"'{queue_names[1]}' does not exist: create it"):
        ensure(limited, queue_names)


def test_a_deleted_queue_is_named_and_not_created_again(
    connection: pika.BlockingConnection, queue_names: QueueNames
) -> None:
    ensure(connection, queue_names)
    connection.channel().queue_delete(queue_names.purchase_queue)

    for _ in range(2):
        with pytest.raises(BrokerMisconfigured, match=f"'{queue_names[0]}' does not exist"):
            require_topology(connection, **queue_names._asdict())


def test_a_lost_connection_is_no_fault_of_the_queues(
    connection: pika.BlockingConnection, queue_names: QueueNames
) -> None:
    connection.close()

    with pytest.raises(BrokerUnavailable, match="was lost"):
        require_topology(connection, **queue_names._asdict())
