"""W3, W4, W6, W7: what is published is in a queue, or its sender knows that it is not."""

from __future__ import annotations

import dramatiq
import pytest

from flashsale.brokers.publishing import ConfirmingPublisher, Outgoing
from flashsale.errors import PublishUnconfirmed
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.shop import Shop
from tests.support.waiting import wait_until
from tests.windows.conftest import StartHosted
from tests.windows.hosted import queues
from tests.windows.stock import ACTOR_NAME, StockWorker

UNREADABLE = b'{"saleId": \xff, "userId": "shopper@example.com"}'


def test_w03_stock_reports_a_message_as_sent_that_is_in_no_queue(shop: Shop) -> None:
    stock = StockWorker(shop.broker_url, shop.purchase_queue)
    with stock:
        stock.close_consumers()
        with shop.channel() as channel:
            channel.queue_delete(shop.purchase_queue)
        stock.broker.confirm_delivery = False  # as it comes
        del stock.broker.channel
        message = dramatiq.Message(shop.purchase_queue, ACTOR_NAME, ("lost",), {}, {})

        assert stock.broker.enqueue(message) is message

        stock.broker.channel.basic_qos(prefetch_count=1)  # answered after what was sent before
        with shop.channel() as channel:
            channel.queue_declare(shop.purchase_queue, durable=True)
        assert shop.ready(shop.purchase_queue) == 0


def test_w03_a_message_that_is_in_no_queue_is_an_error(shop: Shop) -> None:
    with (
        ConfirmingPublisher([shop.broker_url], "flashsale test") as publisher,
        pytest.raises(PublishUnconfirmed, match="has no queue"),
    ):
        publisher.publish([Outgoing(shop.purchase_queue, shop.event("buyer"))])


def test_w04_a_dead_letter_that_waits_for_rabbitmqs_memory_keeps_no_order_waiting(
    rabbitmq_server: PrivateRabbitMQ, shop: Shop, start_hosted: StartHosted
) -> None:
    """Under an alarm RabbitMQ confirms nothing, and reads nothing more from who has published."""
    shop.publish([shop.event("first"), UNREADABLE, shop.event("second")])
    rabbitmq_server.ctl("set_vm_memory_high_watermark", "absolute", "1")
    try:
        worker = start_hosted(shop)
        worker.wait_for(settled=2)
        wait_until(
            lambda: queues(rabbitmq_server, shop.purchase_queue)[shop.purchase_queue] == 1,
            5,
            "all but the unreadable event is acknowledged",
        )
        assert worker.tally.dead_lettered == 0
    finally:
        rabbitmq_server.ctl("set_vm_memory_high_watermark", "0.4")

    worker.wait_for(dead_lettered=1)
    worker.stop()
    # Twice, where the alarm outlasted the first attempt to publish it.
    assert {body for body, _ in shop.take_all(shop.dead_letter_queue)} == {UNREADABLE}
    shop.assert_settled(["first", "second"])


def test_w06_an_unreadable_body_is_kept_with_its_reason_without_a_term_and_out_of_the_log(
    shop: Shop, start_hosted: StartHosted, caplog: pytest.LogCaptureFixture
) -> None:
    shop.publish([UNREADABLE])
    worker = start_hosted(shop)
    worker.wait_for(dead_lettered=1)
    worker.stop()

    ((body, headers),) = shop.take_all(shop.dead_letter_queue)
    assert body == UNREADABLE
    assert headers["x-flashsale-reason"] == "encoding"
    assert "events.dead_lettered" in caplog.text
    assert "shopper@example.com" not in caplog.text
    with shop.channel() as channel:  # refused, if the queue had a time limit or any other argument
        channel.queue_declare(shop.dead_letter_queue, durable=True)


def test_w07_stock_drops_what_it_rejects_when_there_is_no_dead_letter_queue(
    rabbitmq_server: PrivateRabbitMQ, shop: Shop
) -> None:
    stock = StockWorker(shop.broker_url, shop.purchase_queue, max_retries=0)
    with shop.channel() as channel:
        channel.queue_delete(shop.dead_letter_queue)
    with stock:
        stock.send("bad")
        wait_until(lambda: stock.begun == ["bad"], 5, "the message is at work")
        wait_until(
            lambda: not sum(queues(rabbitmq_server, shop.purchase_queue).values()),
            5,
            "the message is in no queue",
        )


def test_w07_an_event_stays_in_its_queue_until_its_dead_letter_has_one(
    rabbitmq_server: PrivateRabbitMQ,
    shop: Shop,
    start_hosted: StartHosted,
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = start_hosted(shop)
    worker.wait_for(channels=1)
    with shop.channel() as channel:
        channel.queue_delete(shop.dead_letter_queue)
        channel.basic_publish("", shop.purchase_queue, UNREADABLE)
    wait_until(lambda: "dead_letters.unwritten" in caplog.text, 5, "the missing queue is reported")
    assert queues(rabbitmq_server, shop.purchase_queue) == {shop.purchase_queue: 1}

    with shop.channel() as channel:
        channel.queue_declare(shop.dead_letter_queue, durable=True)
    worker.wait_for(dead_lettered=1)

    worker.stop()
    assert [body for body, _ in shop.take_all(shop.dead_letter_queue)] == [UNREADABLE]
    shop.assert_settled([])
