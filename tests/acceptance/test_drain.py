"""A backlog becomes exactly one order and one audit row for each shopper."""

from __future__ import annotations

import pytest

from tests.acceptance.conftest import StartWorker
from tests.support.shop import Shop, with_repeats

pytestmark = pytest.mark.acceptance


def test_a_backlog_with_repeats_is_drained_to_exactly_one_order_each(
    shop: Shop, start_worker: StartWorker
) -> None:
    users = [f"buyer-{number}" for number in range(19_000)]
    shop.buy(with_repeats(users))

    worker = start_worker(shop)
    shop.wait_for_orders(len(users), 30)
    worker.terminate()

    assert worker.wait(5) == 0
    shop.assert_settled(users)


def test_a_lone_event_is_committed_without_waiting_for_others(
    shop: Shop, start_worker: StartWorker
) -> None:
    worker = start_worker(shop)
    worker.wait_for_log("broker.connected", 10, lines=3)

    for count, user in enumerate(["first", "second", "third"], 1):
        shop.buy([user])
        shop.wait_for_orders(count, 5)

    worker.terminate()
    assert worker.wait(5) == 0
    shop.assert_settled(["first", "second", "third"])
