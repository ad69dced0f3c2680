"""W2, W5, W19, W20, W21: to try again is to hold on to the delivery, not to publish a copy."""

from __future__ import annotations

import dramatiq
import pytest
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker

from flashsale.batching import Batch, Delivery, Failure, HeldRetries
from flashsale.brokers.publishing import ConfirmingPublisher, Outgoing
from flashsale.settings import TUNABLES, Settings
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.shop import Shop
from tests.support.waiting import wait_until
from tests.windows.conftest import StartHosted
from tests.windows.hosted import closed_to_new_connections, held, queues
from tests.windows.stock import StockWorker

# Statements that wait for a held order fail after a part of it: bad luck, to be tried again.
IMPATIENT = {"statement_timeout_seconds": 0.3, "retry_max_seconds": 0.2}


def test_w02_stock_acknowledges_messages_whose_retries_it_could_not_publish(
    rabbitmq_server: PrivateRabbitMQ, shop: Shop
) -> None:
    """Also with confirms: the error of the publish is logged, and the message counts as done."""
    stock = StockWorker(shop.broker_url, shop.purchase_queue)
    with stock:
        stock.hold("bad")
        stock.send("bad", "bad", "bad")
        wait_until(lambda: stock.begun == ["bad"], 5, "the first message is at work")
        with closed_to_new_connections(rabbitmq_server):
            stock.release("bad")
            wait_until(
                lambda: not sum(queues(rabbitmq_server, shop.purchase_queue).values()),
                10,
                "the messages are gone from the queue, its delay queue and its dead letters",
            )
        assert stock.begun == ["bad"] * 3
        assert stock.done == []


def test_w02_a_failed_batch_is_tried_again_over_the_connection_that_holds_it(
    rabbitmq_server: PrivateRabbitMQ, shop: Shop, start_hosted: StartHosted
) -> None:
    shop.buy(["early"])
    worker = start_hosted(shop, **IMPATIENT)
    worker.wait_for(settled=1)
    with ConfirmingPublisher([shop.broker_url], "flashsale test") as publisher:
        publisher.publish([])  # connects
        with closed_to_new_connections(rabbitmq_server):
            with held(shop, "late"):
                publisher.publish([Outgoing(shop.purchase_queue, shop.event("late"))])
                worker.wait_for(held=2)
            worker.wait_for(settled=2)

    assert worker.tally.delivered == 2
    worker.stop()
    shop.assert_settled(["early", "late"])


def test_w05_w21_an_event_between_two_attempts_is_in_one_queue_once(
    rabbitmq_server: PrivateRabbitMQ, shop: Shop, start_hosted: StartHosted
) -> None:
    """Stock has a copy in the delay queue before it acknowledges: two, or a lost one, at a crash.

    Where there is no delay queue, none can be left behind, or read on with stale tags.
    """
    worker = start_hosted(shop, **IMPATIENT)
    with held(shop, "buyer"):
        shop.buy(["buyer"])
        worker.wait_for(held=2)

        there = queues(rabbitmq_server, shop.purchase_queue)

        assert there == {shop.purchase_queue: 1, shop.dead_letter_queue: 0}
        assert worker.broker.get_declared_delay_queues() == set()


def test_w19_in_an_outage_no_delivery_is_held_until_rabbitmq_ends_the_channel(
    shop: Shop, start_hosted: StartHosted
) -> None:
    """RabbitMQ waits half an hour for an acknowledgement; no hold can be set to last so long."""
    assert TUNABLES["FLASHSALE_BREAKER_HOLD_SECONDS"].metadata["high"] < 1_800
    shop.buy(["early"])
    worker = start_hosted(shop, breaker_hold_seconds=0.1)
    worker.wait_for(settled=1)

    shop.query("ALTER TABLE orders RENAME TO orders_away")
    shop.buy(["late"])

    wait_until(lambda: shop.ready(shop.purchase_queue) == 1, 5, "the event is given back")
    shop.query("ALTER TABLE orders_away RENAME TO orders")
    worker.wait_for(settled=2)
    assert worker.tally.channels == 1
    worker.stop()
    shop.assert_settled(["early", "late"])


@pytest.mark.parametrize("failed_attempts", [0, 1, 19, 20, 10_000])
def test_w20_however_often_a_batch_has_failed_its_next_attempt_is_seconds_away(
    failed_attempts: int,
) -> None:
    """Stock's twentieth attempt comes days later, however soon the database is back."""
    settings = Settings()
    retries = HeldRetries(
        lambda error: (Failure.TRANSIENT, str(error)),
        clock=lambda: 1_000.0,
        min_seconds=settings.retry_min_seconds,
        max_seconds=settings.retry_max_seconds,
    )
    batch = Batch(None, ["event"], [Delivery(1, b"event")])
    batch.attempts = failed_attempts
    message = MessageProxy(dramatiq.Message("purchase", "confirm", (batch,), {}, {}))

    retries.after_process_message(StubBroker(middleware=[]), message, exception=OSError())

    assert batch.verdicts == [None]
    assert 1_000.0 < batch.hold_until <= 1_010.0
