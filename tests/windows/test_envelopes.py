"""W9 to W16: on the purchase queue a Dramatiq envelope is one more bad event, and commands nothing.

Stock lets the body of a message choose queue, actor, options and the actors to call next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.shop import Shop
from tests.support.waiting import wait_until
from tests.windows.conftest import StartHosted
from tests.windows.hosted import queues
from tests.windows.stock import ACTOR_NAME, StockWorker, envelope

FAR_AWAY = 32_503_680_000_000  # the year 3000, in milliseconds
NEXT = {
    "queue_name": "hijacked",
    "actor_name": ACTOR_NAME,
    "args": [],
    "kwargs": {},
    "options": {},
    "message_id": "1",
    "message_timestamp": 0,
}


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param({"options": None}, id="w09-options-null"),
        pytest.param({"options": 1}, id="w09-options-a-number"),
        pytest.param({"actor_name": ["work"]}, id="w10-actor-a-list"),
        pytest.param({"queue_name": "elsewhere"}, id="w11-unknown-queue"),
        pytest.param({"options": {"throws": "ValueError"}}, id="w12-throws-a-string"),
        pytest.param({"queue_name": "{queue}.DQ"}, id="w13-delay-queue"),
        pytest.param({"options": {"eta": FAR_AWAY}}, id="w14-eta-far-away"),
        pytest.param({"options": {"retries": "many"}}, id="w15-retries-a-string"),
        pytest.param({"options": {"max_retries": "many"}}, id="w15-max-retries-a-string"),
        pytest.param({"options": {"min_backoff": "long"}}, id="w15-min-backoff-a-string"),
        pytest.param({"options": {"broker_priority": "high"}}, id="w15-priority-a-string"),
        pytest.param({"options": {"pipe_target": NEXT}}, id="w16-pipe-target"),
        pytest.param({"options": {"on_success": ACTOR_NAME}}, id="w16-on-success"),
        pytest.param({"options": {"on_failure": ACTOR_NAME}}, id="w16-on-failure"),
        pytest.param({"options": {"max_age": 1}}, id="w16-max-age"),
    ],
)
def test_an_envelope_is_dead_lettered_and_commands_nothing(
    forged: dict[str, Any],
    rabbitmq_server: PrivateRabbitMQ,
    shop: Shop,
    start_hosted: StartHosted,
) -> None:
    if "queue_name" in forged:
        forged = {"queue_name": forged["queue_name"].format(queue=shop.purchase_queue)}
    bad = envelope(shop.purchase_queue, "bad", **forged)
    shop.publish([shop.event("before"), bad, shop.event("after")])

    worker = start_hosted(shop)
    worker.wait_for(settled=2, dead_lettered=1)

    assert worker.tally.channels == 1
    assert all(thread.is_alive() for thread in worker.host.workers)
    assert list(worker.host.consumers) == [shop.purchase_queue]
    worker.stop()
    ((body, headers),) = shop.take_all(shop.dead_letter_queue)
    assert (body, headers["x-flashsale-reason"]) == (bad, "missing")
    shop.assert_settled(["after", "before"])
    names = queues(rabbitmq_server, "")
    assert not {"hijacked", "elsewhere", f"{shop.purchase_queue}.DQ"} & set(names)


def test_w09_stock_restarts_its_consumer_for_ever_for_one_message(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = StockWorker(shop.broker_url, shop.purchase_queue)
    consumers = count_calls(monkeypatch, stock.broker, "consume", queue_name=shop.purchase_queue)
    stock.publish(envelope(shop.purchase_queue, "worst", options=None))
    stock.send("good")
    with stock:
        wait_until(lambda: consumers() >= 5, 10, "the consumer has been made again and again")
        assert stock.begun == []


def test_w11_stock_loses_a_thread_to_each_message_of_an_unknown_queue(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And goes on, as a process, with none."""
    causes = []
    monkeypatch.setattr(threading, "excepthook", lambda death: causes.append(death.exc_type))
    stock = StockWorker(shop.broker_url, shop.purchase_queue, threads=2)
    with stock:
        stock.publish(*[envelope(shop.purchase_queue, "odd", queue_name="elsewhere")] * 2)
        for thread in stock.worker.workers:
            thread.join(5)
        stock.send("good")
        wait_until(lambda: stock.worker.work_queue.qsize() == 1, 5, "the good message is there")

        assert causes == [KeyError, KeyError]
        assert [thread.is_alive() for thread in stock.worker.workers] == [False, False]
        assert stock.worker.consumers[shop.purchase_queue].is_alive()
        assert stock.done == ["odd", "odd"]


def test_w14_stock_waits_for_far_away_messages_until_nothing_else_arrives(shop: Shop) -> None:
    stock = StockWorker(shop.broker_url, shop.purchase_queue, threads=2)
    with stock:
        consumer = stock.worker.consumers[shop.purchase_queue]
        distant = envelope(shop.purchase_queue, "distant", options={"eta": FAR_AWAY})
        stock.publish(*[distant] * 4)
        wait_until(lambda: consumer.delay_queue.qsize() == 4, 5, "they fill the prefetch")

        stock.send("good")

        with pytest.raises(TimeoutError):
            wait_until(lambda: stock.begun, 1, "the good message is at work")
        assert shop.ready(shop.purchase_queue) == 1


def count_calls(
    monkeypatch: pytest.MonkeyPatch, target: object, method: str, **wanted: object
) -> Callable[[], int]:
    """The number of calls of a method, from now on, with these keyword arguments."""
    original = getattr(target, method)
    calls = []

    def counting(*args: object, **kwargs: object) -> object:
        if wanted.items() <= kwargs.items():
            calls.append(kwargs)
        return original(*args, **kwargs)

    monkeypatch.setattr(target, method, counting)
    return lambda: len(calls)
