"""One actor call for each message, one transaction for each call, as Dramatiq's guide has it."""

import os
import uuid
from datetime import UTC, datetime
from urllib.parse import urlsplit

import dramatiq
import peewee
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from playhouse.postgres_ext import BinaryJSONField

# Peewee gives each thread a connection of its own, which is kept.
_url = urlsplit(os.environ["DATABASE_URL"])
database = peewee.PostgresqlDatabase(
    _url.path[1:], host=_url.hostname, port=_url.port, user=_url.username
)
dramatiq.set_broker(RabbitmqBroker(url=os.environ["RABBITMQ_URL"]))


class Order(peewee.Model):
    id = peewee.UUIDField(primary_key=True, default=uuid.uuid4)
    sale_id = peewee.UUIDField()
    user_id = peewee.CharField()

    class Meta:
        database = database
        table_name = "orders"


class AuditEvent(peewee.Model):
    id = peewee.UUIDField(primary_key=True, default=uuid.uuid4)
    sale_id = peewee.UUIDField()
    user_id = peewee.CharField()
    event_type = peewee.CharField()
    metadata = BinaryJSONField()

    class Meta:
        database = database
        table_name = "order_audit_trail"


@dramatiq.actor(queue_name=os.environ["PURCHASE_QUEUE"])
def confirm(event: dict[str, str]) -> None:
    buyer = {"sale_id": event["saleId"], "user_id": event["userId"]}
    with database.atomic():
        inserted = (
            Order.insert(id=uuid.uuid4(), **buyer)
            .on_conflict_ignore()
            .returning(Order.id)
            .execute()
        )
        for order in inserted:
            AuditEvent.create(
                **buyer,
                event_type="CONFIRMED",
                metadata={
                    "orderId": str(order.id),
                    "processedAt": datetime.now(UTC).isoformat(),
                },
            )
