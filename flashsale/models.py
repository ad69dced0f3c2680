"""The three tables as Peewee models. Their DDL, indexes included, is in ``migrations/``.

The models belong to no database until the process says which: ``database.bind(MODELS)``, once,
before any thread uses them. Binding is process-wide in Peewee, so ``bind_ctx`` is for tests with
one thread only.

``created_at`` is left to the database's default, so that one clock stamps all rows. Ids have no
default anywhere: whoever creates a row chooses its id.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from enum import StrEnum

import peewee

ORDER_CONFIRMED = "CONFIRMED"


class AuditEventType(StrEnum):
    """What a line of the audit trail says happened. The worker writes two of them."""

    ATTEMPTED = "ATTEMPTED"
    RESERVED = "RESERVED"
    REJECTED_DUPLICATE = "REJECTED_DUPLICATE"
    REJECTED_SOLD_OUT = "REJECTED_SOLD_OUT"
    REJECTED_NOT_ACTIVE = "REJECTED_NOT_ACTIVE"
    CONFIRMED = "CONFIRMED"
    FAILED_DB = "FAILED_DB"
    ADMIN_RESET = "ADMIN_RESET"


class UuidField(peewee.Field):
    """A :class:`uuid.UUID`; in the database a uuid, on SQLite its text with dashes, in lower case.

    Peewee's own UUIDField stores bare hex on SQLite, which no join or comparison with the text
    PostgreSQL and the events use would match. Takes a UUID or its usual text.

    Raises:
        ValueError: for any other text, also for spellings that ``uuid.UUID`` takes as another id.
    """

    field_type = "UUID"

    def adapt(self, value: uuid.UUID | str) -> str:
        text = str(value).lower()
        if str(uuid.UUID(text)) != text:
            raise ValueError("a UUID must be written in its usual form, with four dashes")
        return text

    def python_value(self, value: uuid.UUID | str | None) -> uuid.UUID | None:
        return uuid.UUID(value) if isinstance(value, str) else value


class TimestampField(peewee.DateTimeField):
    """A moment: an aware datetime. In the database a timestamptz, on SQLite text in UTC.

    Raises:
        ValueError: for a datetime without a time zone, whose moment nobody knows.
    """

    field_type = "TIMESTAMPTZ"

    def get_modifiers(self) -> list[int]:
        return [6]

    def db_value(self, value: datetime | None) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a datetime without a time zone names no moment")
        return value.astimezone(UTC)


class Sale(peewee.Model):
    """A flash sale. The API owns these rows; the worker reads them."""

    id = UuidField(primary_key=True)
    name = peewee.CharField(max_length=255)
    total_stock = peewee.IntegerField()
    starts_at = TimestampField()
    ends_at = TimestampField()
    created_at = TimestampField()
    updated_at = TimestampField(default=lambda: datetime.now(UTC))

    class Meta:
        table_name = "sales"


class Order(peewee.Model):
    """A confirmed purchase: at most one for each user of a sale."""

    id = UuidField(primary_key=True)
    sale = peewee.ForeignKeyField(
        Sale, column_name="sale_id", on_delete="CASCADE", on_update="CASCADE"
    )
    user_id = peewee.CharField(max_length=255)
    status = peewee.CharField(max_length=50, default=ORDER_CONFIRMED)
    created_at = TimestampField()

    class Meta:
        table_name = "orders"


class AuditEvent(peewee.Model):
    """A line of the audit trail; ``event_type`` is an :class:`AuditEventType`."""

    id = UuidField(primary_key=True)
    sale = peewee.ForeignKeyField(
        Sale, column_name="sale_id", on_delete="CASCADE", on_update="CASCADE"
    )
    user_id = peewee.CharField(max_length=255)
    event_type = peewee.CharField(max_length=100)
    metadata = peewee.JSONField(null=True)
    created_at = TimestampField()

    class Meta:
        table_name = "order_audit_trail"


MODELS = (Sale, Order, AuditEvent)
