"""The consumer against a model of RabbitMQ: when it consumes, waits and gives way."""

from __future__ import annotations

import logging

import pytest

from tests.simulation.process import HOLD_SECONDS
from tests.simulation.rabbitmq import FakeTransport, Message, Rabbit
from tests.simulation.store import Fault, Health
from tests.unit.batching.consumer_bench import Bench, new_bench, real_time_consumer, started_bench
from tests.unit.batching.test_intake import Memory


@pytest.fixture
def started(caplog: pytest.LogCaptureFixture) -> Bench:
    caplog.set_level(logging.INFO, "flashsale.batching")
    return started_bench()


# Consuming


def test_nothing_is_consumed_before_the_first_probe_has_succeeded() -> None:
    bench = new_bench()
    bench.rabbit.publish(b"good-1")
    bench.store.health = Health.DOWN
    for _ in range(20):
        bench.turn()
        bench.work()
        assert not bench.channel.consuming
        bench.clock.advance(1.0)

    bench.store.health = Health.UP
    bench.settle()
    assert bench.store.rows == {b"good-1"}


def test_an_event_alone_is_handed_out_in_the_turn_in_which_it_arrives(started: Bench) -> None:
    started.rabbit.publish(b"good-1")

    assert started.turn() == 1


def test_a_batch_is_a_message_of_its_queue_for_its_actor_with_nothing_else_in_it(
    started: Bench,
) -> None:
    started.rabbit.publish(b"good-1")
    started.channel.deliver()
    message = started.process.poll()

    assert message is not None
    assert (message.queue_name, message.actor_name) == ("purchase", "confirm_purchases")
    assert (len(message.args), message.kwargs, message.options) == (1, {}, {})


def test_each_acknowledgement_is_counted(started: Bench) -> None:
    before = started.process.tally.acknowledgements
    for number in range(3):
        started.rabbit.publish(f"good-{number}".encode())
        started.settle()
        started.turn()

    assert started.process.tally.acknowledgements == before + 3


def test_a_batch_is_acknowledged_after_its_work_and_not_before(started: Bench) -> None:
    started.rabbit.publish(b"good-1")
    started.turn()
    started.turn()
    assert started.rabbit.unacknowledged == 1

    started.work()
    started.turn()
    assert started.rabbit.unacknowledged == 0


def test_an_idle_consumer_waits_and_a_busy_one_does_not(started: Bench) -> None:
    started.turn()
    assert started.channel.patience == 1.0

    started.rabbit.publish(b"good-1")
    started.turn()
    assert started.channel.patience == 0.0


def test_only_while_batches_are_at_work_may_deliveries_gather(started: Bench) -> None:
    """An event that comes to a consumer with nothing to do is never kept waiting."""
    started.turn()
    assert started.channel.gathered == 0.0

    started.rabbit.publish(b"good-1")
    started.turn()
    started.turn()
    assert 0.0 < started.channel.gathered <= 0.01
    assert started.channel.gathered + started.channel.patience == pytest.approx(1.0)

    started.work()
    started.turn()
    assert started.channel.gathered == 0.0


def test_deliveries_gather_no_longer_than_what_comes_meanwhile_is_collected(started: Bench) -> None:
    """Behind a batch that takes long, the next is to leave as it is."""
    started.rabbit.publish(b"good-1")
    started.turn()
    started.clock.advance(started.process.limits.collect_seconds - 0.005)
    started.turn()
    assert started.channel.gathered == pytest.approx(0.005)

    started.clock.advance(0.005)
    started.turn()
    assert started.channel.gathered == 0.0


def test_once_a_batch_has_come_it_asks_how_many_wait_behind_it(started: Bench) -> None:
    size = started.process.limits.batch_size
    for number in range(size - 2):  # one has come before
        started.rabbit.publish(b"good-%d" % number)
    started.turn()
    assert started.channel.asked == []

    started.rabbit.publish(b"good-last")
    started.turn()
    assert started.channel.asked == ["purchase"]


def test_it_asks_for_as_many_as_the_next_batch_can_take(started: Bench) -> None:
    started.turn()

    assert started.channel.wanted == started.process.limits.batch_size


def test_a_batch_handed_back_ends_the_wait(started: Bench) -> None:
    started.rabbit.publish(b"good-1")
    started.turn()
    started.work()

    assert started.channel.woken


def test_the_wait_ends_when_a_retry_is_due(started: Bench) -> None:
    started.rabbit.publish(b"good-1")
    started.turn()
    started.work(Fault.BEFORE_COMMIT)
    started.turn()
    started.turn()
    assert 0.0 < started.channel.patience <= 0.2

    started.clock.advance(started.channel.patience)
    assert started.turn() == 1


def test_a_dead_letter_is_acknowledged_once_it_is_confirmed(started: Bench) -> None:
    transport = started.process.transport
    started.rabbit.publish(b"unreadable-1", b"refused-2")
    started.turn()
    started.work()
    started.turn()
    transport.write_letters()
    started.turn()
    assert started.rabbit.unacknowledged == 2

    transport.confirm_letters()
    assert started.channel.woken
    started.turn()
    assert started.rabbit.unacknowledged == 0


def test_what_comes_again_runs_under_the_watch_that_it_was_given() -> None:
    rabbit, memory = Rabbit(), Memory()
    consumer = real_time_consumer(FakeTransport(rabbit, 10), memory)
    probe = next(consumer)
    assert probe is not None
    consumer.ack(probe)
    next(consumer)
    rabbit.requeue([Message(1, b"good-1")])
    rabbit.channels[0].deliver()
    next(consumer)

    assert memory.counts == {b"good-1": 1}


# Outages


def test_in_an_outage_work_is_held_first_and_then_given_back(started: Bench) -> None:
    started.store.health = Health.DOWN
    started.rabbit.publish(b"good-1", b"good-2")
    started.turn()
    started.work()
    started.turn()
    started.turn()
    assert started.rabbit.unacknowledged == 2
    assert started.channel.consuming

    started.clock.advance(HOLD_SECONDS)
    started.turn()
    assert started.rabbit.unacknowledged == 0
    assert not started.channel.consuming
    assert [message.body for message in started.rabbit.ready] == [b"good-1", b"good-2"]


def test_work_is_resumed_by_itself(started: Bench) -> None:
    started.store.health = Health.DOWN
    started.rabbit.publish(b"good-1")
    for _ in range(30):
        started.turn()
        started.work()
        started.clock.advance(1.0)
    started.store.health = Health.UP
    started.settle()

    assert b"good-1" in started.store.rows
    assert not started.rabbit.dead_letters


def test_the_wait_ends_when_a_probe_is_due(started: Bench) -> None:
    started.store.health = Health.DOWN
    started.rabbit.publish(b"good-1")
    started.turn()
    started.work()
    started.turn()
    started.turn()

    assert 0.0 < started.channel.patience <= 0.2
    started.clock.advance(started.channel.patience)
    assert started.turn() == 0


def test_the_wait_ends_when_the_hold_does(started: Bench) -> None:
    """A probe that is on its way for long must not keep the deliveries from other workers."""
    started.store.health = Health.DOWN
    started.rabbit.publish(b"good-1")
    started.turn()
    started.work()
    started.turn()
    started.clock.advance(HOLD_SECONDS - 0.5)
    assert started.turn() == 0, "the probe"
    started.turn()

    assert started.channel.patience == pytest.approx(0.5)


def test_a_channel_opened_in_an_outage_consumes_nothing(started: Bench) -> None:
    started.store.health = Health.DOWN
    started.rabbit.publish(b"good-1")
    started.turn()
    started.work()
    started.turn()
    started.channel.cut()
    for _ in range(5):
        started.turn()

    assert started.channel.is_open
    assert not started.channel.consuming
