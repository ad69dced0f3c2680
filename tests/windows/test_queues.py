"""W8, W29: queues that somebody else declared, and queues that somebody deleted."""

from __future__ import annotations

import pytest

from tests.support.api import declare_as_the_api_does
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.shop import Shop
from tests.support.waiting import wait_until
from tests.windows.conftest import StartHosted
from tests.windows.hosted import queues


def test_w08_a_queue_declared_with_another_dead_letter_key_is_used_as_it_is(
    shop: Shop, start_hosted: StartHosted, caplog: pytest.LogCaptureFixture
) -> None:
    """Stock is refused with 406 at each of its restarts, for ever."""
    with shop.channel() as channel:
        declare_as_the_api_does(channel, shop.purchase_queue, "somebody.elses")
        channel.queue_delete("somebody.elses")
        channel.basic_publish("", shop.purchase_queue, shop.event("buyer"))

    worker = start_hosted(shop)
    worker.wait_for(settled=1)

    assert worker.tally.channels == 1
    assert "topology.foreign" in caplog.text
    worker.stop()
    shop.assert_settled(["buyer"])


def test_w29_a_queue_deleted_under_the_worker_is_reported_and_not_made_again(
    rabbitmq_server: PrivateRabbitMQ,
    shop: Shop,
    start_hosted: StartHosted,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An empty new queue would hide that its events are gone."""
    shop.buy(["early"])
    worker = start_hosted(shop)
    worker.wait_for(settled=1)

    with shop.channel() as channel:
        channel.queue_delete(shop.purchase_queue)

    def causes() -> list[str]:
        return [vars(line)["cause"] for line in caplog.records if "cause" in vars(line)]

    told = f"queue '{shop.purchase_queue}' does not exist"
    wait_until(lambda: any(told in cause for cause in causes()), 10, "the missing queue is told")
    worker.stop()
    assert queues(rabbitmq_server, shop.purchase_queue) == {shop.dead_letter_queue: 0}
