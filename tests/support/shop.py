"""What surrounds a worker: a database with a sale in it, the queues, and the shoppers' events."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pika
import psycopg2
from pika.adapters.blocking_connection import BlockingChannel

from flashsale.brokers.publishing import ConfirmingPublisher, Outgoing
from flashsale.brokers.topology import ensure_topology
from flashsale.database import close_database, open_database
from flashsale.migration import migrate
from flashsale.spreading import queue_for
from flashsale.urls import parse_database_url
from tests.support.waiting import wait_until


class Shop:
    """Publishes events to its queues and tells what became of them.

    `purchase_queue` may list several, over which the events are spread as `flashsale publish` does.

    Every question is asked on a connection of its own, so the servers may be restarted in between.
    """

    def __init__(
        self, database_url: str, broker_url: str, purchase_queue: str, dead_letter_queue: str
    ) -> None:
        self.database_url = database_url
        self.broker_url = broker_url
        self.purchase_queue = purchase_queue
        self.purchase_queues = purchase_queue.split(",")
        self.dead_letter_queue = dead_letter_queue
        self.sale_id = str(uuid.uuid4())

    def environment(self) -> dict[str, str]:
        """What the worker of this shop is started with."""
        return {
            "DATABASE_URL": self.database_url,
            "RABBITMQ_URL": self.broker_url,
            "PURCHASE_QUEUE": self.purchase_queue,
            "DEAD_LETTER_QUEUE": self.dead_letter_queue,
        }

    def make_tables(self) -> None:
        """As ``flashsale migrate`` does."""
        database = open_database(parse_database_url(self.database_url))
        try:
            migrate(database)
        finally:
            close_database(database)

    def open_sale(self, *, after: str = "") -> None:
        """Insert the sale, in one transaction with the statements in `after`."""
        self.query(
            f"{after} INSERT INTO sales (id, name, total_stock, starts_at, ends_at, updated_at)"
            " VALUES (%s, 'Sale', 100000, now(), now(), now())",
            self.sale_id,
        )

    def slow_down(self, seconds: float) -> None:
        """Let each insert of orders take so much longer, for something to happen meanwhile."""
        self.query(
            "CREATE FUNCTION rest() RETURNS trigger LANGUAGE plpgsql AS"
            f" 'BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END';"
            " CREATE TRIGGER rest AFTER INSERT ON orders EXECUTE FUNCTION rest()"
        )

    def age_orders(self) -> None:
        """Make the orders old enough for the reconciler to miss their audit rows."""
        self.query("UPDATE orders SET created_at = created_at - interval '15 seconds'")

    def event(self, user_id: str, sale_id: str | None = None) -> bytes:
        """The body that the API publishes for a purchase of this shopper."""
        event = {
            "saleId": sale_id or self.sale_id,
            "userId": user_id,
            "timestamp": "2026-01-01T00:00:00.000Z",
        }
        return json.dumps(event).encode()

    def publish(self, bodies: Iterable[bytes]) -> None:
        """Publish, and return when all is confirmed; the queues are declared where they lack."""
        with self.channel() as channel:
            ensure_topology(
                channel.connection,
                purchase_queues=self.purchase_queues,
                dead_letter_queue=self.dead_letter_queue,
                queue_type="classic",
            )
        with ConfirmingPublisher([self.broker_url], "flashsale test") as publisher:
            publisher.publish(
                Outgoing(queue_for(body, self.purchase_queues), body) for body in bodies
            )

    def buy(self, users: Iterable[str]) -> None:
        """Publish a purchase of each of these shoppers."""
        self.publish(self.event(user) for user in users)

    @contextmanager
    def channel(self) -> Iterator[BlockingChannel]:
        connection = pika.BlockingConnection(pika.URLParameters(self.broker_url))
        try:
            yield connection.channel()
        finally:
            if connection.is_open:
                connection.close()

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows that a statement returns, after its commit."""
        connection = psycopg2.connect(self.database_url.partition("?")[0], connect_timeout=10)
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, values or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def orders(self) -> list[str]:
        """The shopper of each order, sorted."""
        return sorted(user for (user,) in self.query("SELECT user_id FROM orders"))

    def order_count(self) -> int:
        ((count,),) = self.query("SELECT count(*) FROM orders")
        return int(count)

    def confirmations(self) -> list[str]:
        """The shopper of each CONFIRMED audit row that names the shopper's order, sorted."""
        rows = self.query(
            "SELECT audit.user_id FROM order_audit_trail AS audit JOIN orders"
            " ON orders.id::text = metadata->>'orderId' AND orders.user_id = audit.user_id"
            " AND orders.sale_id = audit.sale_id WHERE event_type = 'CONFIRMED'"
        )
        return sorted(user for (user,) in rows)

    def ready(self, queue: str) -> int:
        """Messages in a queue that no consumer holds."""
        with self.channel() as channel:
            return int(channel.queue_declare(queue, passive=True).method.message_count)

    def consumers(self) -> int:
        """How many consume the purchase queue now."""
        with self.channel() as channel:
            queue = channel.queue_declare(self.purchase_queue, passive=True)
            return int(queue.method.consumer_count)

    def take_all(self, queue: str) -> list[tuple[bytes, dict[str, Any]]]:
        """Take every message out of a queue: its body and its headers."""
        taken = []
        with self.channel() as channel:
            while True:
                method, properties, body = channel.basic_get(queue, auto_ack=True)
                if method is None:
                    return taken
                taken.append((body, properties.headers or {}))

    def wait_for_orders(self, count: int, timeout: float) -> None:
        wait_until(lambda: self.order_count() >= count, timeout, f"{count} orders are committed")

    def assert_settled(self, users: Sequence[str]) -> None:
        """Check, with no worker running, that each event led to its one order and to nothing else.

        `users` are the distinct shoppers whose events were published.
        """
        expected = sorted(users)
        assert self.orders() == expected
        assert self.confirmations() == expected
        confirmed = "SELECT count(*) FROM order_audit_trail WHERE event_type = 'CONFIRMED'"
        assert self.query(confirmed) == [(len(expected),)]
        assert [self.ready(queue) for queue in self.purchase_queues if self.ready(queue)] == []
        assert self.ready(self.dead_letter_queue) == 0


def with_repeats(users: Sequence[str]) -> Iterator[str]:
    """These shoppers, every 19th of them twice: close together, so in batches side by side."""
    for number, user in enumerate(users):
        yield user
        if number % 19 == 0:
            yield user
