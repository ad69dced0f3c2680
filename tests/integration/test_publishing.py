"""Confirmed publishing: what it reports as confirmed is in the queue, whatever happens."""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Iterator

import pytest
from pika.spec import PERSISTENT_DELIVERY_MODE

from flashsale.brokers.connections import node_parameters, open_blocking
from flashsale.brokers.publishing import WINDOW, ConfirmingPublisher, Outgoing
from flashsale.errors import BrokerUnavailable, PublishUnconfirmed, SettingsError
from tests.conftest import QueueNames
from tests.support.ports import free_port
from tests.support.rabbitmq import PrivateRabbitMQ


@pytest.fixture
def queue(rabbitmq_server: PrivateRabbitMQ, queue_names: QueueNames) -> str:
    """A durable queue."""
    declare(rabbitmq_server, queue_names.purchase_queue)
    return queue_names.purchase_queue


@pytest.fixture
def publisher(rabbitmq_url: str) -> Iterator[ConfirmingPublisher]:
    with ConfirmingPublisher([rabbitmq_url], "flashsale test") as publisher:
        yield publisher


def declare(server: PrivateRabbitMQ, queue: str, **arguments: object) -> None:
    with server.connect() as connection:
        connection.channel().queue_declare(queue, durable=True, arguments=arguments)


def bodies_in(server: PrivateRabbitMQ, queue: str) -> list[bytes]:
    """Take everything out of `queue`."""
    with server.connect() as connection:
        channel = connection.channel()
        count = channel.queue_declare(queue, passive=True).method.message_count
        deliveries = channel.consume(queue, auto_ack=True)
        return [next(deliveries)[2] for _ in range(count)]


def numbered(queue: str, count: int) -> list[Outgoing]:
    return [Outgoing(queue, str(number).encode()) for number in range(count)]


def test_a_confirmed_message_is_in_its_queue_byte_for_byte_and_persistent(
    rabbitmq_server: PrivateRabbitMQ, publisher: ConfirmingPublisher, queue: str
) -> None:
    body = bytes(range(256))

    assert publisher.publish([Outgoing(queue, body, {"reason": "json", "attempts": 1})]) == 1

    connection = rabbitmq_server.connect()
    _, properties, received = connection.channel().basic_get(queue, auto_ack=True)
    connection.close()
    assert received == body
    assert properties.delivery_mode == PERSISTENT_DELIVERY_MODE
    assert properties.content_type == "application/json"
    assert properties.headers == {"reason": "json", "attempts": 1}


def test_more_messages_than_fit_under_way_arrive_in_their_order(
    rabbitmq_server: PrivateRabbitMQ, publisher: ConfirmingPublisher, queue: str
) -> None:
    messages = numbered(queue, 3 * WINDOW + 1)

    assert publisher.publish(iter(messages)) == len(messages)

    assert publisher.confirmed == len(messages)
    assert bodies_in(rabbitmq_server, queue) == [message.body for message in messages]


def test_a_message_without_a_queue_is_reported_by_its_index(
    rabbitmq_server: PrivateRabbitMQ, publisher: ConfirmingPublisher, queue: str
) -> None:
    messages = [Outgoing(queue, b"0"), Outgoing("no-such-queue", b"1"), Outgoing(queue, b"2")]

    with pytest.raises(PublishUnconfirmed, match="no queue 'no-such-queue'") as caught:
        publisher.publish(messages)

    assert [caught.value.is_confirmed(index) for index in range(4)] == [True, False, True, False]
    assert publisher.confirmed == 2
    assert bodies_in(rabbitmq_server, queue) == [b"0", b"2"]


def test_what_a_full_queue_refuses_is_unconfirmed_and_nothing_more_is_taken(
    rabbitmq_server: PrivateRabbitMQ, publisher: ConfirmingPublisher, queue_names: QueueNames
) -> None:
    queue = queue_names.purchase_queue
    declare(rabbitmq_server, queue, **{"x-max-length": 3, "x-overflow": "reject-publish"})
    messages = numbered(queue, 10 * WINDOW)

    with pytest.raises(PublishUnconfirmed, match="the queue is full") as caught:
        publisher.publish(messages)

    error = caught.value
    assert error.taken < len(messages)
    confirmed = [m.body for index, m in enumerate(messages) if error.is_confirmed(index)]
    assert len(confirmed) == publisher.confirmed
    assert bodies_in(rabbitmq_server, queue) == confirmed


def test_an_error_of_the_iterable_comes_out_after_what_it_gave_before_is_confirmed(
    rabbitmq_server: PrivateRabbitMQ, publisher: ConfirmingPublisher, queue: str
) -> None:
    def failing() -> Iterator[Outgoing]:
        yield Outgoing(queue, b"before")
        raise LookupError("the source")

    with pytest.raises(LookupError, match="the source"):
        publisher.publish(failing())

    assert bodies_in(rabbitmq_server, queue) == [b"before"]
    assert publisher.publish([Outgoing(queue, b"after")]) == 1


def test_what_was_confirmed_before_the_node_was_killed_is_there_after_its_restart(
    rabbitmq_server: PrivateRabbitMQ, publisher: ConfirmingPublisher, queue: str
) -> None:
    """Killed in the middle of a call; the same publisher then goes on."""
    rabbitmq_server.store_declarations()
    messages = numbered(queue, 5 * WINDOW)

    def with_a_kill_in_the_middle() -> Iterator[Outgoing]:
        for number, message in enumerate(messages):
            if number == 3 * WINDOW:
                rabbitmq_server.kill()
            yield message

    try:
        with pytest.raises(PublishUnconfirmed, match="was lost") as caught:
            publisher.publish(with_a_kill_in_the_middle())
        with pytest.raises(BrokerUnavailable, match="Connection refused"):
            publisher.publish(messages)
    finally:
        rabbitmq_server.start()

    error = caught.value
    confirmed = {m.body for index, m in enumerate(messages) if error.is_confirmed(index)}
    assert 0 < len(confirmed) == publisher.confirmed
    assert error.unconfirmed
    assert confirmed <= set(bodies_in(rabbitmq_server, queue))
    assert publisher.publish([Outgoing(queue, b"again")]) == 1


def test_a_node_that_stops_answering_is_given_up_after_the_timeout(
    rabbitmq_server: PrivateRabbitMQ, rabbitmq_url: str, queue: str
) -> None:
    with ConfirmingPublisher([rabbitmq_url], "flashsale test", 0.3) as publisher:
        publisher.publish(numbered(queue, 1))
        os.kill(rabbitmq_server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(PublishUnconfirmed, match=r"confirmed nothing for 0\.3 s") as caught:
                publisher.publish(numbered(queue, 2))
        finally:
            os.kill(rabbitmq_server.pid, signal.SIGCONT)

        assert caught.value.unconfirmed == {0, 1}
        assert publisher.publish(numbered(queue, 1)) == 1


def test_a_connection_that_was_closed_while_idle_is_replaced(
    rabbitmq_server: PrivateRabbitMQ, publisher: ConfirmingPublisher, queue: str
) -> None:
    publisher.publish(numbered(queue, 1))
    rabbitmq_server.ctl("close_all_connections", "test")

    assert publisher.publish(numbered(queue, 1)) == 1


def test_the_next_node_is_taken_where_the_first_does_not_answer(
    rabbitmq_url: str, queue: str
) -> None:
    down = f"amqp://guest:guest@127.0.0.1:{free_port()}"

    with ConfirmingPublisher([down, rabbitmq_url], "flashsale test") as publisher:
        assert publisher.publish(numbered(queue, 1)) == 1
    open_blocking([down, rabbitmq_url], "flashsale test").close()


def test_a_refused_login_is_told_without_the_credentials(rabbitmq_server: PrivateRabbitMQ) -> None:
    node = f"127.0.0.1:{rabbitmq_server.port}"
    urls = [f"amqp://shop:hunter2@{node}"]
    publisher = ConfirmingPublisher(urls, "flashsale test")

    for connect in (lambda: open_blocking(urls, "t"), lambda: publisher.publish(())):
        with pytest.raises(BrokerUnavailable, match=f"{node} .it refused user or") as caught:
            connect()
        assert "hunter2" not in str(caught.value)
        assert "shop" not in str(caught.value)


def test_tls_checks_issuer_and_host_name() -> None:
    (parameters,) = node_parameters(["amqps://u:p@host"], "t")

    assert parameters.ssl_options.context.verify_mode is ssl.CERT_REQUIRED
    assert parameters.ssl_options.context.check_hostname


def test_what_the_url_states_wins_over_the_defaults() -> None:
    (parameters,) = node_parameters(["amqp://u:p@host?heartbeat=7&stack_timeout=2"], "t")

    assert (parameters.heartbeat, parameters.stack_timeout) == (7, 2)
    assert parameters.blocked_connection_timeout == 30


@pytest.mark.parametrize(
    ("key", "value"),
    [("frameMax", "1"), ("heartbeat", "hunter2"), ("ssl_options", "{'password':'hunter2'}")],
)
def test_a_wrong_url_is_told_by_number_and_key_without_its_values(key: str, value: str) -> None:
    urls = ["amqp://u:p@host", f"amqps://shop:hunter2@host?{key}={value}"]

    with pytest.raises(SettingsError, match=f"number 2 .* check {key}") as caught:
        node_parameters(urls, "t")

    assert "hunter2" not in str(caught.value)
