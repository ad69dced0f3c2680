"""A purchase worker hosted by this process, and what a test does to its servers meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq
import psycopg2

from flashsale.settings import Settings
from flashsale.urls import parse_database_url
from flashsale.worker import PurchaseWorker
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.shop import Shop
from tests.support.waiting import wait_until

_STOP_MILLISECONDS = 10_000


class HostedWorker:
    """A shop's worker on Dramatiq's own, without the command and its processes.

    `settings` are added to the shop's.
    """

    def __init__(self, shop: Shop, **settings: Any) -> None:
        self._worker = PurchaseWorker(
            Settings(
                database=parse_database_url(shop.database_url),
                broker_urls=(shop.broker_url,),
                purchase_queues=(shop.purchase_queue,),
                dead_letter_queue=shop.dead_letter_queue,
                **settings,
            )
        )
        self.broker = self._worker.broker
        self.tally = self._worker.tally
        self.host = dramatiq.Worker(self.broker, worker_threads=2)
        self._runs = True
        self.host.start()

    def stop(self) -> None:
        """Stop as at SIGTERM. Harmless when repeated."""
        if self._runs:
            self._runs = False
            self.host.stop(_STOP_MILLISECONDS)

    def wait_for(self, **counts: int) -> None:
        """Wait until each of these counts of its tally has grown so far."""
        wait_until(
            lambda: all(getattr(self.tally, name) >= count for name, count in counts.items()),
            10,
            f"the worker counts {counts}",
        )


@contextmanager
def held(shop: Shop, user_id: str) -> Iterator[None]:
    """Keep each insert of this shopper's order waiting: another transaction might yet make it."""
    connection = psycopg2.connect(shop.database_url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO orders (id, sale_id, user_id) VALUES (gen_random_uuid(), %s, %s)",
                (shop.sale_id, user_id),
            )
        yield
    finally:
        connection.rollback()
        connection.close()


def wait_for_held_inserts(shop: Shop, count: int) -> None:
    waiting = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    wait_until(lambda: shop.query(waiting) == [(count,)], 10, f"{count} inserts wait")


def queues(server: PrivateRabbitMQ, prefix: str) -> dict[str, int]:
    """Queues by name, with all messages in them: those ready and those a consumer holds."""
    listed = json.loads(server.ctl("--formatter", "json", "list_queues", "name", "messages"))
    return {
        queue["name"]: queue["messages"] for queue in listed if queue["name"].startswith(prefix)
    }


def cut_connections(server: PrivateRabbitMQ) -> None:
    """Let RabbitMQ end every connection, as at a failover."""
    server.ctl("close_all_connections", "--vhost", "/", "cut by a test")


@contextmanager
def closed_to_new_connections(server: PrivateRabbitMQ) -> Iterator[None]:
    """Let RabbitMQ keep the connections there are, and refuse all others."""
    server.ctl("set_vhost_limits", "-p", "/", '{"max-connections": 0}')
    try:
        yield
    finally:
        server.ctl("clear_vhost_limits", "-p", "/")
