"""For programs that publish purchases from Python: what the API does, with confirms.

::

    from flashsale.client import publish_purchase

    publish_purchase(sale_id, user_id)

RabbitMQ and the queues are those of the environment: ``RABBITMQ_URL``, ``PURCHASE_QUEUE`` and
their like. Where that lists several queues, each event goes to the one of its shopper; see
:func:`flashsale.spreading.queue_for`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Self

from flashsale.brokers.connections import open_blocking
from flashsale.brokers.publishing import ConfirmingPublisher, Outgoing
from flashsale.brokers.topology import ensure_topology
from flashsale.errors import EventRefused
from flashsale.purchases import Purchase, Reason
from flashsale.settings import Settings
from flashsale.spreading import queue_for


def publish_purchase(
    sale_id: str, user_id: str, timestamp: str | None = None, *, settings: Settings | None = None
) -> None:
    """Publish one purchase and return when RabbitMQ has confirmed it.

    Connects for this one event; for many use :class:`PurchasePublisher`.

    Args:
        sale_id: The sale's UUID.
        user_id: The shopper, 1 to 255 characters.
        timestamp: RFC 3339; now by default.
        settings: Instead of the environment's.

    Raises:
        EventRefused: the worker would refuse this event; nothing was published.
        BrokerUnavailable, BrokerMisconfigured: nothing was published.
        PublishUnconfirmed: it may or may not have been; publishing it again is harmless.
        SettingsError: the environment is wrong.
    """
    purchase = Purchase(sale_id, user_id, timestamp or timestamp_now())
    settings = settings or Settings.from_env()
    # A refused event is refused without a connection.
    encode_checked(purchase, max_bytes=settings.max_event_bytes)
    with PurchasePublisher(settings=settings) as publisher:
        publisher.publish(purchase)


class PurchasePublisher:
    """Publishes many purchases over one connection, each confirmed by RabbitMQ.

    The queues are declared before the first event, as the worker declares them. Use it as a
    context manager, in one thread; not across a fork.

    Args:
        settings: Instead of the environment's.
        name: What RabbitMQ lists the connection as.

    Attributes:
        notices: What the operator should know of queues that are not as flashsale declares them.
    """

    def __init__(self, *, settings: Settings | None = None, name: str = "flashsale client") -> None:
        self._settings = settings or Settings.from_env()
        self._name = name
        self._publisher = ConfirmingPublisher(self._settings.broker_urls, name)
        self._topology_ensured = False
        self.notices: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def confirmed(self) -> int:
        """Events confirmed so far, also those of calls that failed or were interrupted."""
        return self._publisher.confirmed

    def publish(self, purchase: Purchase) -> None:
        """Publish one purchase; raises what :meth:`publish_many` raises."""
        self.publish_many((purchase,))

    def publish_many(self, purchases: Iterable[Purchase]) -> int:
        """Publish all of `purchases`, which may be endless; returns how many, all confirmed.

        Raises:
            EventRefused: the worker would refuse an event. Those before it are confirmed, it and
                those after it were not published.
            BrokerUnavailable, BrokerMisconfigured: nothing was published.
            PublishUnconfirmed: tells by index which are confirmed; publishing the others again
                is harmless.
        """
        limit = self._settings.max_event_bytes
        return self.publish_bodies(
            encode_checked(purchase, max_bytes=limit) for purchase in purchases
        )

    def publish_bodies(self, bodies: Iterable[bytes]) -> int:
        """Publish `bodies` unchecked, as they are; raises what :meth:`publish_many` raises."""
        self.ensure_topology()
        queues = self._settings.purchase_queues
        return self._publisher.publish(Outgoing(queue_for(body, queues), body) for body in bodies)

    def ensure_topology(self) -> None:
        """Declare the queues, once; ``notices`` then says what is not as declared.

        Raises:
            BrokerUnavailable, BrokerMisconfigured: see :mod:`flashsale.brokers.topology`.
        """
        if self._topology_ensured:
            return
        connection = open_blocking(self._settings.broker_urls, self._name)
        try:
            self.notices = ensure_topology(
                connection,
                purchase_queues=self._settings.purchase_queues,
                dead_letter_queue=self._settings.dead_letter_queue,
                queue_type=self._settings.purchase_queue_type,
            )
        finally:
            if connection.is_open:
                connection.close()
        self._topology_ensured = True

    def close(self) -> None:
        """Close the connection. May be called again at any time."""
        self._publisher.close()


def timestamp_now() -> str:
    """The time as JavaScript's toISOString() writes it: ``2026-01-02T03:04:05.678Z``."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encode_checked(purchase: Purchase, *, max_bytes: int) -> bytes:
    """The event's body, after a look at it with the worker's eyes; raises EventRefused."""
    try:
        body = purchase.encode()
    except UnicodeEncodeError:
        raise EventRefused(Reason.TEXT, "an id holds half of a surrogate pair") from None
    Purchase.parse(body, max_bytes=max_bytes)
    return body


__all__ = ["Purchase", "PurchasePublisher", "publish_purchase"]
