"""One channel on several queues: each is served as one alone is, whatever befalls the others."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pika
import pytest

from flashsale.batching import Channel, ChannelLost
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.transports import PREFETCH, Medium, embedded_medium, rabbitmq_medium, take
from tests.support.waiting import wait_until

PATIENCE = 5.0
NAMES = tuple(f"purchase-{uuid.uuid4().hex}-{number}" for number in range(3))
LETTERS = f"{NAMES[0]}.XQ"


@pytest.fixture
def admin(rabbitmq_server: PrivateRabbitMQ) -> Iterator[Any]:
    """A channel for the test's own use; afterwards the queues are gone."""
    connection = rabbitmq_server.connect()
    yield connection.channel()
    with rabbitmq_server.connect() as last:
        for name in (*NAMES, LETTERS):
            last.channel().queue_delete(name)
        last.channel().exchange_delete(LETTERS)
    connection.close()


@pytest.fixture(
    params=[
        "embedded",
        pytest.param("classic", marks=pytest.mark.rabbitmq),
        pytest.param("quorum", marks=pytest.mark.rabbitmq),
    ]
)
def medium(request: pytest.FixtureRequest) -> Iterator[Medium]:
    if request.param == "embedded":
        medium = embedded_medium(*NAMES)
    else:
        request.getfixturevalue("admin")
        url = request.getfixturevalue("rabbitmq_url")
        medium = rabbitmq_medium(url, ",".join(NAMES), LETTERS, queue_type=request.param)
    yield medium
    medium.transport.close(0)


@pytest.fixture
def channel(medium: Medium) -> Iterator[Channel]:
    with medium.consuming() as channel:
        yield channel


@pytest.fixture
def classic(rabbitmq_url: str, admin: Any) -> Iterator[Medium]:
    medium = rabbitmq_medium(rabbitmq_url, ",".join(NAMES), LETTERS)
    yield medium
    medium.transport.close(0)


@pytest.fixture
def consuming(classic: Medium) -> Iterator[Channel]:
    with classic.consuming() as channel:
        yield channel


def declare(admin: Any, queue: str) -> None:
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": LETTERS}
    admin.queue_declare(queue, durable=True, arguments=arguments)


def test_a_delivery_tells_which_queue_it_came_from(medium: Medium, channel: Channel) -> None:
    for name in NAMES:
        medium.publish([name.encode()] * 2, name)

    deliveries = take(channel, 6)

    assert [delivery.body.decode() for delivery in deliveries] == [d.queue for d in deliveries]
    assert Counter(delivery.queue for delivery in deliveries) == dict.fromkeys(NAMES, 2)
    tags = [delivery.tag for delivery in deliveries]
    assert tags == sorted(set(tags))


def test_one_acknowledgement_is_for_the_deliveries_of_all_queues(
    medium: Medium, channel: Channel
) -> None:
    for name in NAMES:
        medium.publish([b"event"], name)
    channel.ack(take(channel, 3)[-1].tag, multiple=True)
    channel.close()

    again = medium.transport.open()
    again.start_consuming()
    medium.publish([b"last"], NAMES[2])
    assert [(delivery.body, delivery.redelivered) for delivery in take(again, 1)] == [
        (b"last", False)
    ]
    again.close()


def test_a_full_queue_takes_its_share_of_the_prefetch_and_keeps_nobody_waiting(
    medium: Medium, channel: Channel
) -> None:
    medium.publish([b"many"] * PREFETCH * 2, NAMES[0])
    share = PREFETCH // len(NAMES)
    take(channel, share)

    medium.publish([b"one"], NAMES[2])

    assert [delivery.body for delivery in take(channel, 1)] == [b"one"]
    assert not channel.receive(0.1, PREFETCH)  # of the first queue, nothing without an ack


def test_what_is_given_back_returns_to_its_own_queue(medium: Medium, channel: Channel) -> None:
    for name in NAMES:
        medium.publish([name.encode()], name)
    channel.give_back([delivery.tag for delivery in take(channel, 3)])

    again = take(channel, 3)
    assert all(delivery.redelivered for delivery in again)
    assert {delivery.queue: delivery.body.decode() for delivery in again} == {
        name: name for name in NAMES
    }


def test_a_queue_that_is_deleted_keeps_no_other_from_being_consumed(
    classic: Medium, consuming: Channel, admin: Any
) -> None:
    """It is not made again, is told of, and is consumed again once somebody has made it."""
    for name in NAMES:
        classic.publish([name.encode()], name)
    held = take(consuming, 3)
    admin.queue_delete(NAMES[1])
    wait_until(
        lambda: consuming.receive(0.05, 1) or classic.transport.missing_queues,
        PATIENCE,
        "the loss is noticed",
    )
    assert classic.transport.missing_queues == (NAMES[1],)

    consuming.ack(held[-1].tag, multiple=True)  # also of what came from the queue that is gone
    classic.publish([b"here"], NAMES[2])
    assert [delivery.body for delivery in take(consuming, 1)] == [b"here"]
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="404"):
        admin.queue_declare(NAMES[1], passive=True)

    declare(admin.connection.channel(), NAMES[1])
    classic.publish([b"back"], NAMES[1])
    assert [(delivery.body, delivery.queue) for delivery in take(consuming, 1)] == [
        (b"back", NAMES[1])
    ]
    assert classic.transport.missing_queues == ()


def test_a_new_channel_leaves_out_what_is_missing_and_finds_it_later(
    classic: Medium, consuming: Channel, admin: Any
) -> None:
    consuming.close()
    admin.queue_delete(NAMES[0])

    channel = classic.transport.open()
    channel.start_consuming()
    assert classic.transport.missing_queues == (NAMES[0],)
    declare(admin, NAMES[0])
    wait_until(
        lambda: channel.receive(0.05, 1) or not classic.transport.missing_queues,
        PATIENCE,
        "it is found again",
    )
    channel.close()


def test_a_queue_that_may_not_be_consumed_costs_the_others_one_channel(
    classic: Medium, admin: Any
) -> None:
    """RabbitMQ refuses a consumer by closing the channel that asks for it."""
    classic.transport.open().close()
    owner = admin.basic_consume(NAMES[1], lambda *_: None, exclusive=True)

    refused = classic.transport.open()
    with pytest.raises(ChannelLost):
        refused.start_consuming()
    refused.close()
    channel = classic.transport.open()
    channel.start_consuming()
    assert classic.transport.missing_queues == (NAMES[1],)
    classic.publish([b"here"], NAMES[0])
    assert [delivery.body for delivery in take(channel, 1)] == [b"here"]

    admin.basic_cancel(owner)
    classic.publish([b"there"], NAMES[1])
    assert [delivery.body for delivery in take(channel, 1)] == [b"there"]
    assert classic.transport.missing_queues == ()
    channel.close()


def test_without_any_of_its_queues_a_channel_is_lost_until_one_is_back(
    classic: Medium, consuming: Channel, admin: Any
) -> None:
    for name in NAMES:
        admin.queue_delete(name)
    with pytest.raises(ChannelLost, match="was deleted, or moved"):
        wait_until(lambda: consuming.receive(PATIENCE, 1), PATIENCE, "the channel is lost")
    with pytest.raises(ChannelLost, match=f"{NAMES[0]}' does not exist"):
        classic.transport.open()

    declare(admin, NAMES[2])
    channel = classic.transport.open()
    channel.start_consuming()
    classic.publish([b"here"], NAMES[2])
    assert [delivery.body for delivery in take(channel, 1)] == [b"here"]
    channel.close()
