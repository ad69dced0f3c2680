"""The consumer against a model of RabbitMQ: when it consumes, gives way, reconnects and ends."""

from __future__ import annotations

import logging
import time

import pytest

from flashsale.batching import BatchingConsumer, Breaker, Limits, Tally
from tests.simulation.process import HOLD_SECONDS
from tests.simulation.rabbitmq import FakeTransport, Rabbit
from tests.simulation.store import Fault, Health, decode
from tests.unit.batching.consumer_bench import Bench, new_bench, started_bench


@pytest.fixture
def started(caplog: pytest.LogCaptureFixture) -> Bench:
    caplog.set_level(logging.INFO, "flashsale.batching.consumer")
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

    started.work()
    started.turn()
    assert started.channel.gathered == 0.0


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


# The end


def test_a_drain_gives_back_what_no_worker_has_begun(started: Bench) -> None:
    for number in range(4):
        started.rabbit.publish(f"good-{number}".encode())
        started.turn()
        started.clock.advance(Limits().collect_seconds)
    assert started.rabbit.unacknowledged == 4
    assert len(started.process.batches()) == 2

    started.process.drain()
    assert started.turn() is None
    assert started.rabbit.unacknowledged == 2
    assert not started.channel.consuming


def test_a_drain_settles_what_is_under_way(started: Bench) -> None:
    started.rabbit.publish(b"good-1")
    started.turn()
    started.process.drain()
    started.turn()
    started.work()
    started.turn()

    assert started.rabbit.unacknowledged == 0
    assert not started.rabbit.ready


def test_what_fails_in_a_drain_goes_back_at_once(started: Bench) -> None:
    started.rabbit.publish(b"good-1")
    started.turn()
    started.process.drain()
    started.work(Fault.BEFORE_COMMIT)
    started.turn()

    assert [message.body for message in started.rabbit.ready] == [b"good-1"]


def test_closing_acknowledges_what_was_done_last(started: Bench) -> None:
    started.rabbit.publish(b"good-1", b"refused-2", b"unreadable-3")
    started.turn()
    started.work()
    started.turn()
    started.process.close()

    assert not started.rabbit.ready, "the dead letters were confirmed in the last moment"
    assert started.process.tally.is_conserved
    assert started.process.tally.open == 0


def test_closing_leaves_dead_letters_without_a_confirm_to_come_again(started: Bench) -> None:
    started.rabbit.publish(b"unreadable-1")
    started.turn()
    started.process.transport.finishes = False
    started.process.close()

    assert [message.body for message in started.rabbit.ready] == [b"unreadable-1"]
    assert not started.channel.is_open
    assert started.process.tally.open == 0


def test_closing_survives_a_broker_that_is_gone(started: Bench) -> None:
    started.rabbit.publish(b"good-1")
    started.turn()
    started.work()
    started.rabbit.go_down()
    started.process.close()

    assert [message.body for message in started.rabbit.ready] == [b"good-1"]


def test_a_drain_opens_no_channel_any_more(started: Bench) -> None:
    started.channel.cut()
    started.process.drain()
    for _ in range(5):
        started.turn()

    assert started.process.transport.opens == 1


def test_a_drain_without_a_broker_does_not_spin() -> None:
    """In real time, with the consumer's own wait, which a drain interrupts."""
    consumer = BatchingConsumer(
        FakeTransport(Rabbit(is_up=False), 10),
        decode,
        queue_name="purchase",
        actor_name="confirm_purchases",
        breaker=Breaker(clock=time.monotonic),
        tally=Tally(),
        limits=Limits(),
    )
    consumer.drain()
    before = time.monotonic()
    next(consumer)

    assert time.monotonic() - before >= 0.04
