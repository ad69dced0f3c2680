"""What only a server can show of the transport to RabbitMQ: the ways in which a channel is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pika
import pytest

import flashsale.brokers.rabbitmq
from flashsale.batching import Channel, ChannelLost
from flashsale.brokers.rabbitmq import PurchaseBroker, RabbitmqTransport
from flashsale.brokers.worker_queues import WorkerQueues
from flashsale.errors import SettingsError
from flashsale.settings import Settings
from tests.conftest import QueueNames
from tests.support.ports import free_port
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.relays import Relay
from tests.support.transports import PREFETCH, Medium, backlog_of, rabbitmq_medium, take
from tests.support.waiting import wait_until

PATIENCE = 5.0
ANSWER_SECONDS = 0.3


@pytest.fixture
def medium(rabbitmq_url: str, queue_names: QueueNames) -> Iterator[Medium]:
    medium = rabbitmq_medium(rabbitmq_url, *queue_names)
    yield medium
    medium.transport.close(0)


@pytest.fixture
def channel(medium: Medium) -> Iterator[Channel]:
    with medium.consuming() as channel:
        yield channel


def receive_until_lost(channel: Channel) -> None:
    wait_until(lambda: channel.receive(PATIENCE, 1), PATIENCE, "the channel is lost")


@pytest.mark.parametrize("which", ["purchase_queue", "dead_letter_queue"])
def test_a_deleted_queue_is_not_quietly_created_again(
    rabbitmq_server: PrivateRabbitMQ,
    queue_names: QueueNames,
    medium: Medium,
    channel: Channel,
    which: str,
) -> None:
    """Its messages are gone; a new and empty one would hide that."""
    queue = getattr(queue_names, which)
    connection = rabbitmq_server.connect()
    connection.channel().queue_delete(queue)

    if which == "purchase_queue":
        with pytest.raises(ChannelLost, match=f"{queue}' was deleted"):
            receive_until_lost(channel)
    for _ in range(2):
        with pytest.raises(ChannelLost, match=f"{queue}' does not exist"):
            medium.transport.open()

    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="404"):
        connection.channel().queue_declare(queue, passive=True)
    connection.close()


def test_whatever_is_asked_of_a_channel_whose_connection_was_killed_it_is_lost(
    rabbitmq_server: PrivateRabbitMQ, medium: Medium, channel: Channel
) -> None:
    medium.publish([b"0", b"1"])
    tags = [delivery.tag for delivery in take(channel, 2)]
    rabbitmq_server.ctl("close_all_connections", "test")

    with pytest.raises(ChannelLost, match="the connection to RabbitMQ ended"):
        receive_until_lost(channel)
    for ask in (
        lambda: channel.ack(tags[0], multiple=False),
        lambda: channel.give_back(tags),
        channel.start_consuming,
        channel.stop_consuming,
        lambda: channel.receive(0, 1),
        lambda: channel.ask_backlog("purchase", print),
    ):
        with pytest.raises(ChannelLost):
            ask()
    channel.wake()
    channel.close()
    again = medium.transport.open()
    again.start_consuming()
    assert [delivery.redelivered for delivery in take(again, 2)] == [True, True]
    again.close()


def test_an_acknowledgement_of_an_unknown_tag_loses_the_channel(channel: Channel) -> None:
    """RabbitMQ closes it for that; no later delivery may then be taken for this channel's."""
    channel.ack(42, multiple=False)

    with pytest.raises(ChannelLost):
        receive_until_lost(channel)


def test_what_came_in_beside_an_acknowledgement_goes_back_when_consuming_stops(
    medium: Medium, channel: Channel
) -> None:
    """Nobody has received it, so nobody else will give it back."""
    medium.publish([b"0"])
    (first,) = take(channel, 1)
    medium.publish([b"1", b"2"])

    def came_in() -> bool:
        channel._connection.process_data_events(time_limit=PATIENCE)
        return len(channel._arrived) == 2

    wait_until(came_in, PATIENCE, "two deliveries have come in")
    channel.stop_consuming()

    other = medium.transport.open()
    other.start_consuming()
    assert [delivery.body for delivery in take(other, 2)] == [b"1", b"2"]
    other.close()
    channel.ack(first.tag, multiple=True)
    assert list(channel.receive(0, 1)) == []


def test_the_answer_to_how_much_waits_is_not_waited_for(medium: Medium, channel: Channel) -> None:
    medium.publish([b"0"])
    (first,) = take(channel, 1)
    answers: list[int] = []

    channel.ask_backlog(first.queue, answers.append)
    assert answers == []

    channel.ack(first.tag, multiple=True)
    medium.publish([b"1"])
    assert [delivery.body for delivery in take(channel, 1)] == [b"1"]
    assert answers == [0]


def test_what_waits_is_shared_among_the_consumers_of_its_queue(
    medium: Medium, channel: Channel
) -> None:
    others = [medium.transport.open() for _ in range(2)]
    for other in others:
        other.start_consuming()
    medium.publish([b"%d" % number for number in range(3 * PREFETCH + 7)])
    (first, *_) = take(channel, PREFETCH)
    for other in others:
        take(other, PREFETCH)

    assert backlog_of(channel, first.queue) == 7 // 3
    for other in others:
        other.close()


def test_asking_for_the_backlog_of_a_queue_that_is_gone_loses_the_channel(channel: Channel) -> None:
    channel.ask_backlog("gone", print)

    with pytest.raises(ChannelLost):
        receive_until_lost(channel)


def test_bodies_that_pika_reads_itself_stay_in_order_with_the_others(
    medium: Medium, channel: Channel
) -> None:
    """Empty ones, and those of more than one frame."""
    bodies = [b"first", b"", b"x" * 300_000, b"", b"last"]
    medium.publish(bodies)

    deliveries = take(channel, len(bodies))

    assert [delivery.body for delivery in deliveries] == bodies
    assert [delivery.tag for delivery in deliveries] == sorted(d.tag for d in deliveries)


@pytest.mark.parametrize("ask", ["start_consuming", "stop_consuming", "close"])
def test_a_node_that_falls_silent_holds_up_no_call(
    rabbitmq_server: PrivateRabbitMQ,
    queue_names: QueueNames,
    monkeypatch: pytest.MonkeyPatch,
    ask: str,
) -> None:
    """pika alone would wait for an answer until the heartbeat is missed, longer than a minute."""
    with Relay(rabbitmq_server.port) as relay:
        url = rabbitmq_server.url().replace(f":{rabbitmq_server.port}", f":{relay.port}")
        channel = rabbitmq_medium(url, *queue_names).transport.open()
        if ask == "stop_consuming":
            channel.start_consuming()
        monkeypatch.setattr(flashsale.brokers.rabbitmq, "_ANSWER_SECONDS", ANSWER_SECONDS)
        relay.stall()
        begun = time.monotonic()
        if ask == "close":
            channel.close()
        else:
            with pytest.raises(ChannelLost):
                getattr(channel, ask)()

        assert ANSWER_SECONDS <= time.monotonic() - begun < PATIENCE
        with pytest.raises(ChannelLost):
            channel.receive(0, 1)


def test_each_attempt_is_for_one_node_and_a_failed_one_makes_room_for_the_next(
    rabbitmq_server: PrivateRabbitMQ, queue_names: QueueNames
) -> None:
    """However many nodes are silent, an attempt lasts no longer than for one of them."""
    first, second = free_port(), free_port()
    urls = [f"amqp://guest:guest@127.0.0.1:{port}" for port in (first, second)]
    settings = Settings(
        broker_urls=(*urls, rabbitmq_server.url()),
        purchase_queues=(queue_names.purchase_queue,),
        dead_letter_queue=queue_names.dead_letter_queue,
    )
    transport = RabbitmqTransport(settings, WorkerQueues(settings))

    for port in (first, second):
        with pytest.raises(ChannelLost, match=f"at 127.0.0.1:{port} .Connection refused.;"):
            transport.open()
    for _ in range(2):  # what has worked is where the next attempt begins
        transport.open().close()


def test_a_url_that_pika_refuses_ends_the_start() -> None:
    with pytest.raises(SettingsError, match="number 1 names a user without a password"):
        PurchaseBroker(
            Settings(broker_urls=("amqp://user@host",)),
            new_consumer=lambda _: None,
            middleware=[],
        )


def test_an_unreachable_node_is_named_without_the_credentials(queue_names: QueueNames) -> None:
    address = f"127.0.0.1:{free_port()}"
    medium = rabbitmq_medium(f"amqp://shop:hunter2@{address}", *queue_names)

    with pytest.raises(ChannelLost, match=f"at {address} .Connection refused") as caught:
        medium.transport.open()

    assert "hunter2" not in str(caught.value)


def test_dramatiq_may_not_put_its_envelopes_on_the_queue() -> None:
    broker = PurchaseBroker(Settings(), new_consumer=lambda _: None, middleware=[])

    with pytest.raises(TypeError, match=r"flashsale\.client\.publish_purchase"):
        broker.enqueue(None)
