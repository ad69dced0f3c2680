"""What the windows' tests start, and end whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import dramatiq.worker
import pytest

from tests.conftest import QueueNames
from tests.support.shop import Shop
from tests.support.workers import RunningWorker
from tests.windows.hosted import HostedWorker

StartHosted = Callable[..., HostedWorker]
StartWorker = Callable[..., RunningWorker]


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for Dramatiq's delays, which are seconds, and change nothing else of it."""
    monkeypatch.setattr(dramatiq.worker, "CONSUMER_RESTART_DELAY_SECS", 0.1)
    monkeypatch.setattr(dramatiq.worker, "POST_PROCESS_MESSAGE_RETRY_DELAY_SECS", 0.1)


@pytest.fixture
def shop(postgres_url: str, rabbitmq_url: str, queue_names: QueueNames) -> Shop:
    """A shop with an open sale, and no queues yet."""
    shop = Shop(postgres_url, rabbitmq_url, *queue_names)
    shop.open_sale()
    return shop


@pytest.fixture
def start_hosted() -> Iterator[StartHosted]:
    """Starts workers in this process; keyword arguments are added to their settings."""
    workers: list[HostedWorker] = []

    def start(shop: Shop, **settings: object) -> HostedWorker:
        workers.append(HostedWorker(shop, **settings))
        return workers[-1]

    yield start
    for worker in workers:
        worker.stop()


@pytest.fixture
def start_worker() -> Iterator[StartWorker]:
    """Starts the command, with one process; keyword arguments are added to its environment."""
    workers: list[RunningWorker] = []

    def start(shop: Shop, *, processes: int = 1, **env: str) -> RunningWorker:
        workers.append(RunningWorker({**shop.environment(), **env}, processes=processes))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()
