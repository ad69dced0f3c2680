"""SIGTERM: work under way ends, all else goes back to its queue, and the process goes in time."""

from __future__ import annotations

import os
import signal

import pytest

from tests.acceptance.conftest import RECONCILE_SOON, StartWorker, finish
from tests.support.postgres import PrivatePostgres
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.shop import Shop
from tests.support.waiting import wait_until

pytestmark = pytest.mark.acceptance

USERS = [f"buyer-{number}" for number in range(6_000)]


@pytest.mark.parametrize("to_each_process", [False, True])
def test_under_load_every_event_is_an_order_with_its_audit_row_or_back_in_the_queue(
    shop: Shop, start_worker: StartWorker, to_each_process: bool
) -> None:
    """Docker and Kubernetes signal the master, systemd every process of the group."""
    shop.slow_down(0.1)
    shop.buy(USERS)
    # Nothing but the shutdown flushes the audit trail.
    worker = start_worker(
        shop,
        FLASHSALE_BATCH_SIZE="50",
        FLASHSALE_AUDIT_INTERVAL_SECONDS="60",
        FLASHSALE_AUDIT_BATCH_SIZE="10000",
    )
    shop.wait_for_orders(500, 15)
    assert shop.confirmations() == []

    if to_each_process:
        os.killpg(worker.pid, signal.SIGTERM)
    else:
        worker.terminate()

    assert worker.wait(5) == 0
    orders = shop.orders()
    assert 500 <= len(orders) < len(USERS)
    wait_until(  # RabbitMQ takes back what closed connections held in its own time
        lambda: shop.ready(shop.purchase_queue) == len(USERS) - len(orders), 10, "all is back"
    )
    assert shop.confirmations() == orders
    finish(shop, start_worker(shop, **RECONCILE_SOON), USERS)


def test_while_postgres_is_down_the_worker_ends_all_the_same(
    mortal_postgres: PrivatePostgres, mortal_postgres_shop: Shop, start_worker: StartWorker
) -> None:
    shop = mortal_postgres_shop
    shop.slow_down(0.1)
    shop.buy(USERS)
    worker = start_worker(shop, FLASHSALE_BATCH_SIZE="50")
    shop.wait_for_orders(500, 15)
    mortal_postgres.crash()
    try:
        worker.wait_for_log("work.suspended", 10)
        worker.terminate()
        assert worker.wait(8) == 0
    finally:
        mortal_postgres.start()

    finish(shop, start_worker(shop, **RECONCILE_SOON), USERS)


def test_while_rabbitmq_hangs_the_audit_trail_is_written_all_the_same(
    mortal_rabbitmq: PrivateRabbitMQ, mortal_rabbitmq_shop: Shop, start_worker: StartWorker
) -> None:
    shop = mortal_rabbitmq_shop
    users = USERS[:100]
    shop.buy(users)
    worker = start_worker(
        shop,
        FLASHSALE_AUDIT_INTERVAL_SECONDS="60",
        FLASHSALE_AUDIT_BATCH_SIZE="10000",
        FLASHSALE_RECONCILE_INTERVAL_SECONDS="3600",
    )
    shop.wait_for_orders(len(users), 15)
    assert shop.confirmations() == []
    os.kill(mortal_rabbitmq.pid, signal.SIGSTOP)
    try:
        worker.terminate()
        assert worker.wait(6.5) == 0  # before the backstop
    finally:
        os.kill(mortal_rabbitmq.pid, signal.SIGCONT)

    assert shop.confirmations() == shop.orders()
