"""W1, W17, W18, W28: an acknowledgement speaks of one delivery, on the channel it came from."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack

import pytest

from flashsale.batching import ChannelLost
from flashsale.brokers.rabbitmq import RabbitmqTransport
from flashsale.brokers.worker_queues import WorkerQueues
from flashsale.settings import Settings
from tests.conftest import QueueNames
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.shop import Shop
from tests.support.waiting import wait_until
from tests.windows.conftest import StartHosted, StartWorker
from tests.windows.hosted import cut_connections, held, queues, wait_for_held_inserts
from tests.windows.stock import StockWorker

# Two batches at work, both of which may wait for as long as the test has them held.
PATIENT = {"batches_in_flight": 2, "statement_timeout_seconds": 60.0}


def test_w01_stock_acknowledges_another_message_after_a_reconnect(
    rabbitmq_server: PrivateRabbitMQ, shop: Shop
) -> None:
    """Tags start again at 1: the late ack of `slow`, number 2, takes `next`, now number 2."""
    stock = StockWorker(shop.broker_url, shop.purchase_queue)
    stock.hold("slow")
    stock.hold("next")
    with stock:
        stock.send("quick", "slow", "next")
        wait_until(lambda: "slow" in stock.begun, 5, "the slow message is at work")
        cut_connections(rabbitmq_server)
        # Once more each, on the new channel, behind the old `next`.
        wait_until(lambda: stock.worker.work_queue.qsize() == 3, 5, "both are redelivered")

        stock.release("slow")
        wait_until(lambda: "next" in stock.begun, 5, "the thread has left the slow message")
        stock.close_consumers()

        left = [json.loads(body)["args"] for body, _ in shop.take_all(shop.purchase_queue)]
        assert stock.done == ["quick", "slow"]
        assert left == [["slow"]]  # `next` is nowhere, and not done


def test_w01_a_batch_of_a_lost_channel_acknowledges_nothing(
    rabbitmq_server: PrivateRabbitMQ, shop: Shop, start_hosted: StartHosted
) -> None:
    """The old `next`, number 3, ends while number 3 on the new channel is `third`, not begun."""
    shop.buy(["quick"])
    worker = start_hosted(shop, **PATIENT)
    worker.wait_for(settled=1)
    with held(shop, "slow"):
        with held(shop, "next"):
            shop.buy(["slow"])
            wait_for_held_inserts(shop, 1)
            shop.buy(["next"])
            wait_for_held_inserts(shop, 2)
            cut_connections(rabbitmq_server)
            shop.buy(["third"])
            worker.wait_for(channels=2, delivered=6)

        worker.wait_for(stale=1)
        assert queues(rabbitmq_server, shop.purchase_queue)[shop.purchase_queue] == 3

    worker.wait_for(settled=4)
    worker.stop()
    shop.assert_settled(["next", "quick", "slow", "third"])


def test_w01b_a_stale_batch_makes_no_cumulative_acknowledgement(
    rabbitmq_server: PrivateRabbitMQ, shop: Shop, start_hosted: StartHosted
) -> None:
    """It would take `slow`, which is not done, with all that is below its highest tag."""
    others = [f"other-{number}" for number in range(9)]
    shop.buy(["quick"])
    worker = start_hosted(shop, **PATIENT)
    worker.wait_for(settled=1)
    with held(shop, "slow"):
        with held(shop, others[0]):
            shop.buy(["slow"])
            wait_for_held_inserts(shop, 1)
            shop.buy(others)
            wait_for_held_inserts(shop, 2)
            worker.wait_for(delivered=11)
            cut_connections(rabbitmq_server)
            worker.wait_for(delivered=21)

        worker.wait_for(stale=1)
        assert queues(rabbitmq_server, shop.purchase_queue)[shop.purchase_queue] == 10

    worker.wait_for(settled=11)
    worker.stop()
    shop.assert_settled(["quick", "slow", *others])


def test_w17_an_order_whose_acknowledgement_was_lost_is_not_made_again(
    rabbitmq_server: PrivateRabbitMQ, shop: Shop, start_hosted: StartHosted
) -> None:
    worker = start_hosted(shop)
    with held(shop, "buyer"):
        shop.buy(["buyer"])
        wait_for_held_inserts(shop, 1)
        cut_connections(rabbitmq_server)
        worker.wait_for(channels=2)

    worker.wait_for(stale=1, settled=1)
    worker.stop()
    shop.assert_settled(["buyer"])


def test_w18_an_acknowledgement_that_cannot_be_sent_ends_its_channel(
    rabbitmq_server: PrivateRabbitMQ, rabbitmq_url: str, queue_names: QueueNames, shop: Shop
) -> None:
    """Stock logs it and goes on with one place less in its prefetch, for as long as it runs."""
    shop.buy(["buyer"])
    settings = Settings(
        broker_urls=(rabbitmq_url,),
        purchase_queues=(queue_names.purchase_queue,),
        dead_letter_queue=queue_names.dead_letter_queue,
    )
    transport = RabbitmqTransport(settings, WorkerQueues(settings))
    channel = transport.open()
    channel.start_consuming()
    (delivery,) = wait_until(lambda: channel.receive(0.1, 1), 5, "the event is delivered")
    cut_connections(rabbitmq_server)

    with pytest.raises(ChannelLost):
        channel.ack(delivery.tag, multiple=False)
    channel.close()

    assert shop.ready(shop.purchase_queue) == 1


@pytest.mark.acceptance
def test_w28_a_worker_paused_past_its_heartbeats_makes_each_order_once(
    shop: Shop, start_worker: StartWorker
) -> None:
    """RabbitMQ gives its events to others meanwhile, and its own late acks to nobody."""
    worker = start_worker(shop, RABBITMQ_URL=f"{shop.broker_url}?heartbeat=1")
    with ExitStack() as hold:
        hold.enter_context(held(shop, "buyer"))
        shop.buy(["buyer"])
        wait_for_held_inserts(shop, 1)
        os.killpg(worker.pid, signal.SIGSTOP)
        wait_until(lambda: shop.ready(shop.purchase_queue) == 1, 15, "the event is given back")
        hold.close()
        other = start_worker(shop)
        shop.wait_for_orders(1, 10)
        os.killpg(worker.pid, signal.SIGCONT)
        worker.wait_for_log("broker.connected", 10, lines=2)

    for each in (worker, other):
        each.terminate()
        assert each.wait(8) == 0
    shop.assert_settled(["buyer"])
