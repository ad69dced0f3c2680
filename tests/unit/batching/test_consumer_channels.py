"""The consumer when channels are lost, or cannot be opened, or its workers do not return."""

from __future__ import annotations

import logging

import pytest

from tests.unit.batching.consumer_bench import Bench, lines, new_bench, started_bench


@pytest.fixture
def started(caplog: pytest.LogCaptureFixture) -> Bench:
    caplog.set_level(logging.INFO, "flashsale.batching")
    return started_bench()


def test_a_lost_channel_is_replaced_and_its_deliveries_come_again(started: Bench) -> None:
    started.rabbit.publish(b"good-1", b"good-2")
    started.turn()
    started.channel.cut()
    started.turn()
    started.work()
    started.settle()

    assert started.store.rows >= {b"good-1", b"good-2"}
    assert started.process.tally.channels == 2
    assert started.process.tally.stale == 2
    assert not started.rabbit.protocol_errors


def test_an_unreachable_broker_is_tried_ever_less_often_up_to_a_limit(started: Bench) -> None:
    started.rabbit.go_down()
    for _ in range(30):
        started.turn()

    waits = started.process.waits
    assert waits[0] <= 0.2
    assert waits[2] <= 0.8, "each at most twice the one before"
    assert min(waits[10:]) >= 1.5
    assert max(waits) <= 3.0
    assert started.process.tally.failed_channels == 29  # the first turn lost the connection


def test_a_channel_that_never_lasts_is_opened_ever_less_often(started: Bench) -> None:
    """For instance where the broker accepts the connection and refuses to let it consume."""
    for _ in range(30):
        started.turn()
        started.channel.cut()

    waits = started.process.waits
    assert waits[0] <= 0.2
    assert min(waits[10:]) >= 1.5


def test_after_a_channel_that_lasted_reconnecting_is_quick_again(started: Bench) -> None:
    for _ in range(20):
        started.turn()
        started.channel.cut()
    started.turn()
    started.turn()
    started.clock.advance(60.0)
    started.turn()
    started.process.waits.clear()
    started.channel.cut()
    started.turn()

    assert started.process.waits[0] <= 0.2


def test_a_cause_is_logged_once_and_not_for_each_attempt(
    started: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.clear()
    started.rabbit.go_down()
    for _ in range(30):
        started.turn()
    started.rabbit.is_up = True
    started.turn()

    assert lines(caplog) == [
        ("broker.connection_lost", "the connection ended"),
        ("broker.unreachable", "RabbitMQ cannot be reached"),
        ("broker.connected", "purchase"),
    ]


def test_a_broker_that_stays_away_is_told_again_each_minute(
    started: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    started.rabbit.go_down()
    started.turn()
    for _ in range(4 * 60):
        started.turn()
        started.clock.advance(1.0)

    told = [record for record in caplog.records if record.message == "broker.unreachable"]
    assert len(told) == 4


def test_a_worker_counts_as_free_again_while_the_broker_is_away(started: Bench) -> None:
    """Else an outage of the broker alone would look as if all workers were stuck."""
    started.rabbit.publish(b"good-1")
    started.turn()
    started.rabbit.go_down()
    started.turn()
    started.work()
    started.clock.advance(600.0)
    started.turn()

    assert started.process.consumer.stuck_seconds() == 0.0


def test_a_consumer_that_was_never_turned_shows() -> None:
    fresh = new_bench()
    fresh.clock.advance(600.0)

    assert fresh.process.consumer.stuck_seconds() == 600.0
    assert not fresh.process.consumer.is_consuming


def test_a_worker_that_never_returns_shows(started: Bench) -> None:
    started.rabbit.publish(b"good-1")
    started.turn()
    started.clock.advance(600.0)
    started.turn()

    assert started.process.consumer.stuck_seconds() == 600.0
