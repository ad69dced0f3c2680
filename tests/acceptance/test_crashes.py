"""Servers and workers that die in the middle of a drain lose nothing and repeat nothing."""

from __future__ import annotations

import os
import signal

import pytest

from tests.acceptance.conftest import RECONCILE_SOON, StartWorker, finish
from tests.support.postgres import PrivatePostgres
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.shop import Shop
from tests.support.workers import RunningWorker

pytestmark = pytest.mark.acceptance

USERS = [f"buyer-{number}" for number in range(6_000)]
SOME = 500


def in_the_middle(shop: Shop, start_worker: StartWorker, **env: str) -> RunningWorker:
    """A worker that has made some orders of many."""
    shop.slow_down(0.1)
    shop.buy(USERS)
    worker = start_worker(shop, FLASHSALE_BATCH_SIZE="50", **env)
    shop.wait_for_orders(SOME, 15)
    return worker


def test_a_kill_of_rabbitmq_in_the_middle(
    mortal_rabbitmq: PrivateRabbitMQ, mortal_rabbitmq_shop: Shop, start_worker: StartWorker
) -> None:
    shop = mortal_rabbitmq_shop
    worker = in_the_middle(shop, start_worker, **RECONCILE_SOON)

    mortal_rabbitmq.kill()
    mortal_rabbitmq.start()

    assert shop.order_count() < len(USERS)
    finish(shop, worker, USERS)


def test_a_crash_of_postgres_in_the_middle(
    mortal_postgres: PrivatePostgres, mortal_postgres_shop: Shop, start_worker: StartWorker
) -> None:
    shop = mortal_postgres_shop
    worker = in_the_middle(shop, start_worker, **RECONCILE_SOON)

    mortal_postgres.crash()
    worker.wait_for_log("work.suspended", 10)
    mortal_postgres.start()

    assert shop.order_count() < len(USERS)
    finish(shop, worker, USERS)


def test_a_kill_of_one_process_ends_the_worker_for_its_supervisor_to_start_another(
    shop: Shop, start_worker: StartWorker
) -> None:
    worker = in_the_middle(shop, start_worker)

    os.kill(worker.consumer_pids()[0], signal.SIGKILL)

    assert worker.wait(8) != 0
    finish(shop, start_worker(shop, **RECONCILE_SOON), USERS)


def test_a_kill_between_commit_and_audit_flush_is_completed_by_the_next_start(
    shop: Shop, start_worker: StartWorker
) -> None:
    worker = in_the_middle(
        shop,
        start_worker,
        FLASHSALE_AUDIT_INTERVAL_SECONDS="60",
        FLASHSALE_AUDIT_BATCH_SIZE="10000",
    )

    worker.kill()

    assert SOME <= shop.order_count() < len(USERS)
    assert shop.confirmations() == []
    finish(shop, start_worker(shop, **RECONCILE_SOON), USERS)
