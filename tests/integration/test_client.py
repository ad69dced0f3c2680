"""The Python client: confirmed, and nothing the worker would refuse."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from flashsale.client import PurchasePublisher, publish_purchase
from flashsale.errors import EventRefused
from flashsale.purchases import Purchase
from flashsale.settings import Settings
from tests.conftest import QueueNames
from tests.support.ports import free_port
from tests.support.rabbitmq import PrivateRabbitMQ

SALE = "0b0e4c8a-6f1d-4b7e-9a53-2f6f0c1d8e11"


@pytest.fixture
def settings(rabbitmq_url: str, queue_names: QueueNames) -> Settings:
    return Settings(
        broker_urls=(rabbitmq_url,),
        purchase_queues=(queue_names.purchase_queue,),
        dead_letter_queue=queue_names.dead_letter_queue,
    )


def shoppers_in(server: PrivateRabbitMQ, queue: str) -> list[str]:
    with server.connect() as connection:
        channel = connection.channel()
        count = channel.queue_declare(queue, passive=True).method.message_count
        deliveries = channel.consume(queue, auto_ack=True)
        return [Purchase.parse(next(deliveries)[2]).user_id for _ in range(count)]


def test_one_purchase_is_in_the_queue_as_the_api_would_send_it(
    rabbitmq_server: PrivateRabbitMQ, settings: Settings
) -> None:
    publish_purchase(SALE, "zoë", settings=settings)

    connection = rabbitmq_server.connect()
    body = connection.channel().basic_get(settings.purchase_queues[0], auto_ack=True)[2]
    connection.close()
    event = json.loads(body)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event.pop("timestamp"))
    assert event == {"saleId": SALE, "userId": "zoë"}


def test_the_environment_is_enough(
    rabbitmq_server: PrivateRabbitMQ,
    rabbitmq_url: str,
    queue_names: QueueNames,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RABBITMQ_URL", rabbitmq_url)
    monkeypatch.setenv("PURCHASE_QUEUE", queue_names.purchase_queue)
    monkeypatch.delenv("DEAD_LETTER_QUEUE", raising=False)

    publish_purchase(SALE, "shopper", "2026-01-02T03:04:05.678Z")

    assert shoppers_in(rabbitmq_server, queue_names.purchase_queue) == ["shopper"]


@pytest.mark.parametrize(
    ("sale_id", "user_id"), [("no-uuid", "a"), (SALE, " "), (SALE, "\ud800"), (SALE, "x" * 256)]
)
def test_what_the_worker_would_refuse_is_refused_without_a_connection(
    sale_id: str, user_id: str
) -> None:
    nowhere = Settings(broker_urls=(f"amqp://guest:guest@127.0.0.1:{free_port()}",))

    with pytest.raises(EventRefused):
        publish_purchase(sale_id, user_id, settings=nowhere)


def test_many_purchases_share_a_publisher(
    rabbitmq_server: PrivateRabbitMQ, settings: Settings
) -> None:
    with PurchasePublisher(settings=settings) as publisher:
        publisher.publish(Purchase(SALE, "first"))
        count = publisher.publish_many(Purchase(SALE, f"user-{n}") for n in range(2_000))

    assert count == 2_000
    assert publisher.confirmed == 2_001
    shoppers = shoppers_in(rabbitmq_server, settings.purchase_queues[0])
    assert shoppers == ["first", *(f"user-{n}" for n in range(2_000))]


def test_the_events_before_a_refused_one_are_published(
    rabbitmq_server: PrivateRabbitMQ, settings: Settings
) -> None:
    purchases = [Purchase(SALE, "good"), Purchase(SALE, ""), Purchase(SALE, "late")]

    with PurchasePublisher(settings=settings) as publisher, pytest.raises(EventRefused):
        publisher.publish_many(purchases)

    assert publisher.confirmed == 1
    assert shoppers_in(rabbitmq_server, settings.purchase_queues[0]) == ["good"]


def test_a_queue_that_is_not_as_declared_is_used_and_told(
    rabbitmq_server: PrivateRabbitMQ, settings: Settings
) -> None:
    connection = rabbitmq_server.connect()
    connection.channel().queue_declare(settings.purchase_queues[0], durable=True)
    connection.close()

    with PurchasePublisher(settings=settings) as publisher:
        publisher.publish(Purchase(SALE, "shopper"))

    assert "x-dead-letter" in publisher.notices[0]


def test_an_event_larger_than_the_worker_takes_is_refused_here(settings: Settings) -> None:
    """The limit is the worker's own, not a number of the client's."""
    small = replace(settings, max_event_bytes=1_024)

    with pytest.raises(EventRefused, match="too_large"):
        publish_purchase(SALE, "\U0001f6d2" * 255, settings=small)
