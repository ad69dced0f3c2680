"""What the exporter sees of the queues."""

from __future__ import annotations

from collections.abc import Sequence

from flashsale.exporter.queues import Level, QueueWatch
from flashsale.settings import Settings
from tests.conftest import QueueNames
from tests.support.ports import free_port
from tests.support.rabbitmq import PrivateRabbitMQ


def watch(urls: Sequence[str], names: QueueNames) -> QueueWatch:
    return QueueWatch(
        Settings(
            broker_urls=tuple(urls),
            purchase_queues=(names.purchase_queue, "missing"),
            dead_letter_queue=names.dead_letter_queue,
        )
    )


def test_a_queue_that_is_missing_is_left_out_and_not_made(
    rabbitmq_server: PrivateRabbitMQ, queue_names: QueueNames
) -> None:
    connection = rabbitmq_server.connect()
    channel = connection.channel()
    channel.queue_declare(queue_names.purchase_queue, durable=True)
    channel.confirm_delivery()
    channel.basic_publish("", queue_names.purchase_queue, b"event")
    connection.close()
    watched = watch([rabbitmq_server.url()], queue_names)
    try:
        for _ in range(2):
            watched.look()
            assert watched.levels == {queue_names.purchase_queue: Level(ready=1, consumers=0)}
    finally:
        watched.close()


def test_a_broker_that_is_away_is_told_from_one_without_queues(queue_names: QueueNames) -> None:
    watched = watch([f"amqp://127.0.0.1:{free_port()}"], queue_names)
    watched.levels = {}
    watched.look()

    assert watched.levels is None
