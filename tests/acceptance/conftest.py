"""Fixtures for tests that start the real command against real servers."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.conftest import QueueNames
from tests.support.postgres import PrivatePostgres
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.shop import Shop
from tests.support.waiting import wait_until
from tests.support.workers import RunningWorker

StartWorker = Callable[..., RunningWorker]

RECONCILE_SOON = {"FLASHSALE_RECONCILE_INTERVAL_SECONDS": "1"}


@pytest.fixture
def start_worker() -> Iterator[StartWorker]:
    """Starts workers for a shop; keyword arguments are added to their environment."""
    workers: list[RunningWorker] = []

    def start(shop: Shop, **env: str) -> RunningWorker:
        workers.append(RunningWorker({**shop.environment(), **env}))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


@pytest.fixture
def shop(postgres_url: str, rabbitmq_url: str, queue_names: QueueNames) -> Shop:
    """A shop with an open sale on the servers that all tests share."""
    shop = Shop(postgres_url, rabbitmq_url, *queue_names)
    shop.open_sale()
    return shop


@pytest.fixture(scope="session")
def mortal_rabbitmq(rabbitmq_server: PrivateRabbitMQ) -> Iterator[PrivateRabbitMQ]:
    """A node for tests that kill it; each of them leaves it running."""
    with PrivateRabbitMQ() as server:
        yield server


@pytest.fixture(scope="session")
def mortal_postgres(postgres_server: PrivatePostgres) -> Iterator[PrivatePostgres]:
    """A server for tests that crash it; each of them leaves it running."""
    with PrivatePostgres() as server:
        yield server


@pytest.fixture
def mortal_postgres_shop(
    mortal_postgres: PrivatePostgres, rabbitmq_url: str, queue_names: QueueNames
) -> Shop:
    """A shop with an open sale whose database server the test may crash."""
    name = f"test_{uuid.uuid4().hex}"
    mortal_postgres.create_database(name)
    shop = Shop(mortal_postgres.url(name), rabbitmq_url, *queue_names)
    shop.make_tables()
    shop.open_sale()
    return shop


@pytest.fixture
def mortal_rabbitmq_shop(postgres_url: str, mortal_rabbitmq: PrivateRabbitMQ) -> Shop:
    """A shop with an open sale whose node the test may kill."""
    queue = f"purchase-{uuid.uuid4().hex}"
    shop = Shop(postgres_url, mortal_rabbitmq.url(), queue, f"{queue}.XQ")
    shop.open_sale()
    return shop


def finish(shop: Shop, worker: RunningWorker, users: Sequence[str]) -> None:
    """Wait for the rest, end the worker, and check that each event has led to its one order.

    After a crash the worker is to be started with RECONCILE_SOON.
    """
    shop.wait_for_orders(len(users), 30)
    # An order whose worker died, or whose commit lost its reply, has its audit row from the
    # reconciler, which leaves young orders alone.
    shop.age_orders()
    wait_until(lambda: len(shop.confirmations()) == len(users), 10, "all audit rows are written")
    worker.terminate()
    assert worker.wait(5) == 0
    shop.assert_settled(users)
