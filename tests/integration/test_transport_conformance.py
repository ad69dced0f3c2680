"""What the consumer relies on, asked of every transport in the same words."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from flashsale.batching import Channel, ChannelLost, Delivery, Letter, Rejection
from flashsale.batching.ledger import Ledger
from tests.support.transports import (
    PREFETCH,
    Medium,
    backlog_of,
    embedded_medium,
    rabbitmq_medium,
    take,
)
from tests.support.waiting import wait_until

# For what must not come: long enough that it would have come.
A_MOMENT = 0.2
PATIENCE = 5.0

OpenChannel = Callable[[], Channel]


@pytest.fixture(
    params=[
        "embedded",
        pytest.param("classic", marks=pytest.mark.rabbitmq),
        pytest.param("quorum", marks=pytest.mark.rabbitmq),
    ]
)
def medium(request: pytest.FixtureRequest) -> Iterator[Medium]:
    if request.param == "embedded":
        medium = embedded_medium()
    else:
        url = request.getfixturevalue("rabbitmq_url")
        names = request.getfixturevalue("queue_names")
        medium = rabbitmq_medium(url, *names, queue_type=request.param)
    yield medium
    medium.transport.close(0)


@pytest.fixture
def open_channel(medium: Medium) -> Iterator[OpenChannel]:
    """Opens channels that are closed after the test."""
    channels: list[Channel] = []

    def open_() -> Channel:
        channels.append(medium.transport.open())
        return channels[-1]

    yield open_
    for channel in channels:
        channel.close()


@pytest.fixture
def channel(open_channel: OpenChannel) -> Channel:
    """A channel that consumes."""
    channel = open_channel()
    channel.start_consuming()
    return channel


def numbered(count: int) -> list[bytes]:
    return [str(number).encode() for number in range(count)]


def bodies(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [delivery.body for delivery in deliveries]


def test_deliveries_come_in_order_with_rising_tags(medium: Medium, channel: Channel) -> None:
    medium.publish(numbered(10))

    deliveries = take(channel, 10)

    assert bodies(deliveries) == numbered(10)
    tags = [delivery.tag for delivery in deliveries]
    assert tags == sorted(set(tags))
    assert not any(delivery.redelivered for delivery in deliveries)


def test_one_turn_takes_all_that_has_arrived(medium: Medium, channel: Channel) -> None:
    """Tried until the events had arrived in time, which no publisher can know."""

    def one_turn_takes_all() -> bool:
        medium.publish(numbered(10))
        deliveries = [*channel.receive(PATIENCE, PREFETCH)]
        rest = take(channel, 10 - len(deliveries))
        channel.ack([*deliveries, *rest][-1].tag, multiple=True)
        return not rest

    wait_until(one_turn_takes_all, PATIENCE, "one turn takes ten events")


def test_nothing_comes_before_consuming_starts(medium: Medium, open_channel: OpenChannel) -> None:
    channel = open_channel()
    medium.publish(numbered(3))

    assert list(channel.receive(A_MOMENT, PREFETCH)) == []

    channel.start_consuming()
    assert bodies(take(channel, 3)) == numbered(3)


def test_no_more_than_the_prefetch_is_outstanding(medium: Medium, channel: Channel) -> None:
    medium.publish(numbered(PREFETCH + 5))

    first = take(channel, PREFETCH)
    assert list(channel.receive(A_MOMENT, PREFETCH)) == []

    channel.ack(first[2].tag, multiple=False)
    assert bodies(take(channel, 1)) == numbered(PREFETCH + 5)[PREFETCH : PREFETCH + 1]
    assert list(channel.receive(A_MOMENT, PREFETCH)) == []
    channel.ack(first[-1].tag, multiple=True)
    assert bodies(take(channel, 4)) == numbered(PREFETCH + 5)[PREFETCH + 1 :]


def test_what_waits_is_counted_without_what_was_delivered(medium: Medium, channel: Channel) -> None:
    medium.publish(numbered(PREFETCH + 3))
    deliveries = take(channel, PREFETCH)
    assert backlog_of(channel, deliveries[0].queue) == 3

    channel.give_back([deliveries[0].tag])
    channel.stop_consuming()
    # What was not received yet may be back a moment later.
    wait_until(lambda: backlog_of(channel, deliveries[0].queue) == 4, PATIENCE, "four of them wait")


def test_what_no_acknowledgement_has_named_or_covered_returns_as_the_channel_closes(
    medium: Medium, channel: Channel, open_channel: OpenChannel
) -> None:
    medium.publish(numbered(6))
    tags = [delivery.tag for delivery in take(channel, 6)]
    channel.ack(tags[2], multiple=True)
    channel.ack(tags[4], multiple=False)

    channel.close()
    channel.close()

    other = open_channel()
    other.start_consuming()
    returned = take(other, 2)
    assert bodies(returned) == [b"3", b"5"]
    assert all(delivery.redelivered for delivery in returned)
    assert list(other.receive(A_MOMENT, PREFETCH)) == []


@pytest.mark.parametrize("consumes", [True, False])
@pytest.mark.parametrize(
    "ask",
    [
        lambda channel, _: channel.start_consuming(),
        lambda channel, _: channel.stop_consuming(),
        lambda channel, _: channel.receive(0, 1),
        lambda channel, _: channel.ask_backlog("purchase", print),
        lambda channel, tag: channel.ack(tag, multiple=False),
        lambda channel, tag: channel.ack(tag, multiple=True),
        lambda channel, tag: channel.give_back([tag]),
    ],
    ids=[
        "start_consuming",
        "stop_consuming",
        "receive",
        "ask_backlog",
        "ack",
        "ack_multiple",
        "give_back",
    ],
)
def test_whatever_is_asked_of_a_closed_channel_it_is_lost(
    medium: Medium, channel: Channel, consumes: bool, ask: Callable[[Channel, int], object]
) -> None:
    """Its tags name nothing any more, and what is in the queue is for others."""
    medium.publish(numbered(2))
    (delivery, *_) = take(channel, 2)
    if not consumes:
        channel.stop_consuming()
    channel.close()

    with pytest.raises(ChannelLost):
        ask(channel, delivery.tag)
    channel.wake()
    channel.close()


def test_what_is_given_back_comes_again_and_says_so(medium: Medium, channel: Channel) -> None:
    medium.publish(numbered(3))
    tags = [delivery.tag for delivery in take(channel, 3)]

    channel.give_back([tags[0], tags[2]])

    again = take(channel, 2)
    assert sorted(bodies(again)) == [b"0", b"2"]
    assert all(delivery.redelivered and delivery.tag > tags[2] for delivery in again)
    assert list(channel.receive(A_MOMENT, PREFETCH)) == []


def test_after_a_stop_nothing_comes_and_after_a_start_all_of_it(
    medium: Medium, channel: Channel, open_channel: OpenChannel
) -> None:
    """What had been sent to us and not been received goes back, for others to take."""
    channel.start_consuming()  # it does already
    medium.publish(numbered(5))

    channel.stop_consuming()
    medium.publish([b"5"])

    assert list(channel.receive(A_MOMENT, PREFETCH)) == []
    other = open_channel()
    other.start_consuming()
    assert sorted(bodies(take(other, 6))) == numbered(6)
    other.close()
    channel.start_consuming()
    assert sorted(bodies(take(channel, 6))) == numbered(6)


def test_a_wake_from_another_thread_ends_the_wait(channel: Channel) -> None:
    waiting = threading.Thread(target=channel.receive, args=(60, 1))
    waiting.start()

    channel.wake()

    waiting.join(PATIENCE)
    assert not waiting.is_alive()


def test_a_dead_letter_is_confirmed(medium: Medium, channel: Channel) -> None:
    medium.publish(numbered(1))
    (delivery,) = take(channel, 1)
    letter = Letter(Ledger(), delivery, Rejection("json"), 0, time.time())
    confirmed: list[Letter] = []
    arrived = threading.Event()

    def on_confirmed(letters: Sequence[Letter]) -> None:
        confirmed.extend(letters)
        arrived.set()

    medium.transport.dead_letter([letter], on_confirmed)

    assert arrived.wait(PATIENCE)
    assert confirmed == [letter]
