"""The consumer at its end: what is begun is finished, all else goes back, and nothing is begun."""

from __future__ import annotations

import logging
import time

import pytest

from flashsale.batching import Limits
from tests.simulation.rabbitmq import FakeTransport, Rabbit
from tests.simulation.store import Fault
from tests.unit.batching.consumer_bench import Bench, lines, real_time_consumer, started_bench


@pytest.fixture
def started(caplog: pytest.LogCaptureFixture) -> Bench:
    caplog.set_level(logging.INFO, "flashsale.batching")
    return started_bench()


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
    assert started.process.transport.close_seconds == 2.0


def test_closing_survives_a_broker_that_is_gone(
    started: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    started.rabbit.publish(b"good-1")
    started.turn()
    started.work()
    started.rabbit.go_down()
    started.process.close()

    assert [message.body for message in started.rabbit.ready] == [b"good-1"]
    assert lines(caplog)[-1] == ("broker.connection_lost", "the connection ended")


def test_closing_hands_out_nothing_more(started: Bench) -> None:
    started.rabbit.publish(b"good-1")
    started.process.close()

    assert started.process.poll() is None
    assert started.process.transport.opens == 1


def test_a_drain_opens_no_channel_any_more(started: Bench) -> None:
    started.channel.cut()
    started.process.drain()
    for _ in range(5):
        started.turn()

    assert started.process.transport.opens == 1


def test_a_drain_without_a_broker_does_not_spin() -> None:
    """In real time, with the consumer's own wait, which a drain interrupts."""
    consumer = real_time_consumer(FakeTransport(Rabbit(is_up=False), 10))
    consumer.drain()
    before = time.monotonic()
    next(consumer)

    assert time.monotonic() - before >= 0.04
