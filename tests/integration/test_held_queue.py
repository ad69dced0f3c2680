"""The dead-letter queue held open against a real node: its lock, its lengths, its errors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flashsale.dead_letters import holding
from flashsale.dead_letters.holding import Held, HeldQueue, QueueIsQuorum, QueueIsTaken
from flashsale.errors import BrokerMisconfigured, BrokerUnavailable
from tests.support.letters import LetterBox, event
from tests.support.waiting import wait_until

BODIES = [event(f"user-{number}") for number in range(5)]


@pytest.fixture
def queue(box: LetterBox) -> Iterator[HeldQueue]:
    with HeldQueue([box.url], box.letters, "flashsale test") as queue:
        yield queue


def taken(queue: HeldQueue, limit: int) -> list[Held]:
    held: list[Held] = []
    assert queue.take(limit, held.append) == len(held)
    return held


def test_the_lock_is_seen_by_others_and_ends_with_its_connection(
    queue: HeldQueue, box: LetterBox
) -> None:
    with HeldQueue([box.url], box.letters, "flashsale test") as first:
        assert not queue.is_locked()
        assert first.lock() is None
        assert queue.is_locked()
        with pytest.raises(QueueIsTaken) as refused:
            queue.lock()

    assert str(refused.value) == (
        f"another retry or discard is at work on queue {box.letters!r}; wait for it, or stop it,"
        " and run this again"
    )
    wait_until(lambda: not queue.is_locked(), 5, "the lock has ended")
    assert queue.lock() is None


def test_what_is_held_and_not_acknowledged_returns_in_order(
    queue: HeldQueue, box: LetterBox
) -> None:
    box.put(BODIES)
    assert queue.held_seconds == 0.0

    first, second = taken(queue, 2), taken(queue, 2)
    assert [held.body for held in first + second] == BODIES[:4]
    assert first[0].properties.headers["x-flashsale-reason"] == "unknown_sale"
    assert 0.0 < queue.held_seconds < 60.0
    assert queue.depth().ready == 1
    queue.ack([held.tag for held in first])
    assert [held.body for held in taken(queue, 9)] == BODIES[4:]
    queue.give_back()

    assert queue.held_seconds == 0.0
    assert queue.depth().ready == 3
    assert queue.scan(lambda _: None) == 3
    queue.give_back()
    queue.give_back()
    assert box.bodies(box.letters) == BODIES[2:]


def test_other_queues_are_told_with_their_length_and_their_consumers(
    queue: HeldQueue, box: LetterBox
) -> None:
    box.put(BODIES)

    with box.consumer(box.purchases), box.channel() as channel:
        channel.basic_publish("", box.purchases, b"waits")

        assert queue.depth(box.purchases) == (1, 1)
        assert queue.depth() == queue.depth(box.letters) == (5, 0)


def test_a_queue_that_sends_nothing_is_given_up_with_the_places_to_look_at(
    box: LetterBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "_SILENCE_SECONDS", 0.3)
    name = f"{box.letters}.single"

    with box.channel() as channel:
        single = {"x-single-active-consumer": True}
        channel.queue_declare(name, arguments=single, auto_delete=True)
        with box.consumer(name), HeldQueue([box.url], name, "flashsale test") as queue:
            channel.basic_publish("", name, event("waits"))
            wait_until(lambda: queue.depth().ready == 1, 5, "the letter is there")

            with pytest.raises(BrokerUnavailable) as refused:
                queue.take(9, lambda _: None)

    assert str(refused.value) == (
        f"RabbitMQ has letters in queue {name!r} and sends none; look there for an exclusive"
        " consumer or an alarm, and run it again"
    )


def test_a_queue_that_is_not_there_is_told_with_the_settings_that_name_it(
    queue: HeldQueue,
) -> None:
    with pytest.raises(BrokerMisconfigured) as refused:
        queue.depth("no-such-queue")

    assert str(refused.value) == (
        "queue 'no-such-queue' does not exist: start the worker, which declares it, or correct"
        " PURCHASE_QUEUE or DEAD_LETTER_QUEUE"
    )


def test_a_queue_of_somebody_else_is_told_in_rabbitmqs_words(
    queue: HeldQueue, box: LetterBox
) -> None:
    name = f"{box.letters}.private"
    with box.channel() as channel:
        channel.queue_declare(name, exclusive=True)

        with pytest.raises(BrokerMisconfigured) as refused:
            queue.depth(name)

    told = str(refused.value)
    assert told.startswith(f"queue {name!r} cannot be used, RabbitMQ says: RESOURCE_LOCKED")


def test_a_quorum_queue_is_refused_with_what_each_look_costs_there(box: LetterBox) -> None:
    name = f"{box.letters}.quorum"
    with box.channel() as channel:
        channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum"})
        try:
            with (
                pytest.raises(QueueIsQuorum) as refused,
                HeldQueue([box.url], name, "flashsale test"),
            ):
                pass
            with HeldQueue([box.url], name, "flashsale test", allow_quorum=True) as queue:
                queue.refuse_quorum()
                assert queue.scan(lambda _: None) == 0
        finally:
            channel.queue_delete(name)

    assert str(refused.value) == (
        f"{name!r} is a quorum queue: it counts each look as a delivery, and drops a letter after"
        " its delivery-limit (20 by default from RabbitMQ 4.0); set delivery-limit -1 by a policy,"
        " or accept it with --quorum"
    )


def test_after_its_connection_has_ended_the_letters_are_told_to_be_back(
    queue: HeldQueue, box: LetterBox
) -> None:
    box.put(BODIES)
    taken(queue, 2)
    queue.close()

    with pytest.raises(BrokerUnavailable) as refused:
        queue.depth()

    assert str(refused.value) == (
        "the connection to RabbitMQ was lost; all letters that were held are in their queue"
        " again, so run it again"
    )
    queue.close()
    wait_until(lambda: box.depth(box.letters) == 5, 5, "what was held has returned")
