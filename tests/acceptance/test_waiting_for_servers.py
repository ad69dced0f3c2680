"""Whatever is not there yet is waited for, in one log line, and nothing is dead-lettered."""

from __future__ import annotations

import pytest

from tests.acceptance.conftest import StartWorker, finish
from tests.conftest import QueueNames
from tests.support.api import API_MIGRATION
from tests.support.postgres import PrivatePostgres
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.shop import Shop
from tests.support.workers import RunningWorker

pytestmark = pytest.mark.acceptance

PROCESSES = 3


def the_cause(worker: RunningWorker, event: str) -> str:
    """What every process says it waits for, once."""
    causes = [line["cause"] for line in worker.wait_for_log(event, 15, lines=PROCESSES)]
    assert causes == causes[:1] * PROCESSES
    return str(causes[0])


def test_rabbitmq_may_come_after_the_worker(
    mortal_rabbitmq: PrivateRabbitMQ, mortal_rabbitmq_shop: Shop, start_worker: StartWorker
) -> None:
    shop = mortal_rabbitmq_shop
    mortal_rabbitmq.stop()
    try:
        worker = start_worker(shop)
        cause = the_cause(worker, "broker.unreachable")
    finally:
        mortal_rabbitmq.start()

    assert cause == (
        f"RabbitMQ cannot be reached at 127.0.0.1:{mortal_rabbitmq.port} (Connection refused);"
        " check that it runs and that RABBITMQ_URL is right"
    )
    shop.buy(["early"])
    finish(shop, worker, ["early"])


def test_postgres_may_come_after_the_worker(
    mortal_postgres: PrivatePostgres,
    mortal_postgres_shop: Shop,
    start_worker: StartWorker,
) -> None:
    shop = mortal_postgres_shop
    shop.buy(["early"])
    mortal_postgres.stop()
    try:
        worker = start_worker(shop)
        cause = the_cause(worker, "work.waiting")
        assert shop.ready(shop.purchase_queue) == 1
    finally:
        mortal_postgres.start()

    assert cause.startswith("the database cannot be reached: check host, user, password and name")
    finish(shop, worker, ["early"])


def test_the_tables_may_come_after_the_worker(
    empty_postgres_url: str,
    rabbitmq_url: str,
    queue_names: QueueNames,
    start_worker: StartWorker,
) -> None:
    shop = Shop(empty_postgres_url, rabbitmq_url, *queue_names)
    shop.buy(["early"])

    worker = start_worker(shop)
    cause = the_cause(worker, "work.waiting")
    assert shop.ready(shop.purchase_queue) == 1
    # Not one after the other: an event of a sale that is not there is a dead letter.
    shop.open_sale(after=API_MIGRATION)

    assert "run `flashsale migrate`" in cause
    finish(shop, worker, ["early"])
