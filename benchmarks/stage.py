"""Private servers, as durable as real ones, and on them a fresh shop for each run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Self

from flashsale.brokers.publishing import ConfirmingPublisher, Outgoing
from tests.support.postgres import PrivatePostgres
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.shop import Shop

from .contestants import Contestant
from .scenarios.load import USER_SQL, publish_backlog, purchases

_DATABASE, _TEMPLATE = "flashsale", "empty_shop"
_QUEUE, _DEAD_LETTERS = "purchase", "purchase.XQ"

_COUNTS = f"""
SELECT (SELECT count(*) FROM orders WHERE status = 'CONFIRMED'),
       (SELECT count(*) FROM order_audit_trail),
       (SELECT count(DISTINCT orders.id) FROM order_audit_trail AS audit
        JOIN orders ON orders.id::text = metadata->>'orderId'
                   AND orders.sale_id = audit.sale_id AND orders.user_id = audit.user_id
        JOIN generate_series(0, %s - 1) AS n ON orders.user_id = {USER_SQL}
        WHERE event_type = 'CONFIRMED' AND metadata ? 'processedAt' AND orders.sale_id = %s)
"""


class Result(NamedTuple):
    """What is in the tables and the queues after a run, counted.

    Attributes:
        orders: All confirmed orders.
        audit_rows: All rows of the audit trail.
        complete: Events with their own order and a CONFIRMED audit row that names it.
        unsettled: Messages left in the queue, also those that were delivered and never
            acknowledged: they are back once the worker is gone.
    """

    orders: int
    audit_rows: int
    complete: int
    unsettled: int = 0

    def faults(self, events: int) -> list[str]:
        """What is not as it must be after so many events; empty where all is exactly right."""
        expected = (
            ("orders", self.orders, events),
            ("audit rows", self.audit_rows, events),
            ("events with an order and its CONFIRMED audit row", self.complete, events),
            ("messages not acknowledged", self.unsettled, 0),
        )
        return [f"{found} {what}, not {right}" for what, found, right in expected if found != right]


class Stage:
    """PostgreSQL and RabbitMQ for the length of the ``with`` block, shared by all its runs.

    fsync and synchronous_commit are on, the queue is durable, its messages are persistent. The
    server keeps commit times. `settings` are added to PostgreSQL's, `vm_arguments` to those of
    RabbitMQ's VM.
    """

    def __init__(
        self, settings: Mapping[str, str] | None = None, *, vm_arguments: str = ""
    ) -> None:
        # PostgreSQL's own default; the tests' server makes do with less.
        defaults = {"track_commit_timestamp": "on", "shared_buffers": "128MB"}
        self.postgres = PrivatePostgres({**defaults, **(settings or {})})
        self.rabbitmq = PrivateRabbitMQ(vm_arguments=vm_arguments)

    def __enter__(self) -> Self:
        try:
            self.postgres.start()
            self.rabbitmq.start()
            self._shop(_DATABASE).make_tables()
            self.postgres.create_database(_TEMPLATE, template=_DATABASE)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.rabbitmq.close()
        self.postgres.close()

    def pids(self) -> dict[str, int]:
        """The servers' process ids by their names in the report."""
        return {"postgresql": self.postgres.pid, "rabbitmq": self.rabbitmq.pid}

    def fresh_shop(self) -> Shop:
        """A shop with a new database, an empty queue and one open sale."""
        self.postgres.drop_database(_DATABASE)
        self.postgres.create_database(_DATABASE, template=_TEMPLATE)
        shop = self._shop(_DATABASE)
        shop.open_sale()
        with shop.channel() as channel:
            for queue in (_QUEUE, _DEAD_LETTERS):
                channel.queue_delete(queue)
            # As the API declares it. The queue of dead letters is left to the contestant.
            channel.queue_declare(
                _QUEUE,
                durable=True,
                arguments={
                    "x-dead-letter-exchange": "",
                    "x-dead-letter-routing-key": _DEAD_LETTERS,
                },
            )
        return shop

    def _shop(self, database: str) -> Shop:
        return Shop(self.postgres.url(database), self.rabbitmq.url(), _QUEUE, _DEAD_LETTERS)


def publish(shop: Shop, contestant: Contestant, events: int) -> None:
    """Publish so many purchases as the contestant's messages; returns when all are confirmed."""
    envelope = contestant.envelope()
    if envelope is None:
        publish_backlog(shop.broker_url, shop.purchase_queue, shop.sale_id, events)
        return
    with ConfirmingPublisher([shop.broker_url], "flashsale benchmark") as publisher:
        publisher.publish(
            Outgoing(shop.purchase_queue, *envelope(body))
            for body in purchases(shop.sale_id, 0, events)
        )


def settle(shop: Shop, events: int) -> Result:
    """Count what these purchases led to; no worker may be running."""
    ((orders, audit_rows, complete),) = shop.query(_COUNTS, events, shop.sale_id)
    return Result(orders, audit_rows, complete, shop.ready(shop.purchase_queue))
