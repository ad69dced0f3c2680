"""The worker takes over in place: with the API's tables, queues and environment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import StartWorker
from tests.support.api import API_MIGRATION, API_QUEUES, declare_as_the_api_does
from tests.support.shop import Shop, with_repeats

pytestmark = pytest.mark.acceptance

# As Prisma has it: keys that libpq does not know.
PRISMA_QUERY = "?schema=public&connection_limit=30&pool_timeout=20"
USERS = [f"buyer-{number}" for number in range(5_000)]


@pytest.fixture
def api_shop(empty_postgres_url: str, rabbitmq_url: str) -> Iterator[Shop]:
    """A shop with the tables that the API's migration makes, and no queues yet."""
    shop = Shop(empty_postgres_url + PRISMA_QUERY, rabbitmq_url, *API_QUEUES)
    shop.query(API_MIGRATION)
    shop.open_sale()
    yield shop
    with shop.channel() as channel:
        for queue in API_QUEUES:
            channel.queue_delete(queue)


def test_the_worker_drains_what_the_api_declared_and_published_before(
    api_shop: Shop, start_worker: StartWorker
) -> None:
    with api_shop.channel() as channel:
        declare_as_the_api_does(channel, *API_QUEUES)
    api_shop.buy(with_repeats(USERS))

    worker = start_worker(api_shop)
    api_shop.wait_for_orders(len(USERS), 20)
    worker.terminate()

    assert worker.wait(5) == 0
    assert worker.logged("topology.foreign") == []
    api_shop.assert_settled(USERS)


def test_the_api_may_come_after_the_worker(api_shop: Shop, start_worker: StartWorker) -> None:
    """RabbitMQ would refuse the API's declaration if the worker's had not been equal to it."""
    worker = start_worker(api_shop)
    worker.wait_for_log("broker.connected", 10)

    with api_shop.channel() as channel:
        declare_as_the_api_does(channel, *API_QUEUES)
    api_shop.buy(with_repeats(USERS))
    api_shop.wait_for_orders(len(USERS), 20)
    worker.terminate()

    assert worker.wait(5) == 0
    api_shop.assert_settled(USERS)
