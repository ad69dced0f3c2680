"""A worker that alone cannot reach the database leaves its events to those that can."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from tests.acceptance.conftest import RECONCILE_SOON
from tests.support.shop import Shop
from tests.support.waiting import wait_until
from tests.support.workers import RunningWorker
from tests.torture.proxy import Fault, Proxy

pytestmark = pytest.mark.acceptance

USERS = [f"buyer-{number}" for number in range(3_000)]
MORE = [f"later-{number}" for number in range(600)]


@pytest.fixture
def proxy(shop: Shop) -> Iterator[Proxy]:
    """In front of the shop's PostgreSQL."""
    port = urlsplit(shop.database_url).port
    assert port is not None
    with Proxy(port) as proxy:
        yield proxy


@pytest.mark.parametrize(
    "fault", [Fault(refuse=True), Fault(drop_replies=True)], ids=["refused", "silent"]
)
def test_the_others_finish_its_events_and_it_rejoins(
    shop: Shop, proxy: Proxy, fault: Fault
) -> None:
    environment = {**shop.environment(), **RECONCILE_SOON, "FLASHSALE_BATCH_SIZE": "50"}
    port = str(urlsplit(shop.database_url).port)
    behind = {**environment, "DATABASE_URL": shop.database_url.replace(port, str(proxy.port), 1)}
    with ExitStack() as stack:
        cut_off, *others = [
            stack.enter_context(RunningWorker(env, processes=1))
            for env in (behind, environment, environment)
        ]
        for worker in (cut_off, *others):
            worker.wait_for_log("broker.connected", 15)
        # All three: else the others may have taken every event before the first consumes.
        wait_until(lambda: shop.consumers() == 3, 15, "all of them consume")
        # So that they are at work for seconds: what is published slowly must not be done at once.
        shop.slow_down(0.3)
        shop.buy(USERS)
        shop.wait_for_orders(300, 15)
        proxy.impose(fault)
        if fault.refuse:
            proxy.cut()

        shop.wait_for_orders(len(USERS), 15)

        proxy.heal()
        for worker in others:
            worker.terminate()
            assert worker.wait(8) == 0
        shop.buy(MORE)
        shop.wait_for_orders(len(USERS) + len(MORE), 15)
        assert cut_off.logged("work.resumed")
        shop.age_orders()
        everybody = len(USERS) + len(MORE)
        wait_until(lambda: len(shop.confirmations()) == everybody, 10, "all audit rows are there")
        cut_off.terminate()
        assert cut_off.wait(8) == 0
    shop.assert_settled([*USERS, *MORE])
