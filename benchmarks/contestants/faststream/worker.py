"""One handler call for each message, acknowledged by hand after its commit."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, RabbitBroker, RabbitMessage, RabbitQueue
from pydantic import BaseModel, Field

PREFETCH = 200
CONNECTIONS = 8
STATEMENT = """
WITH written AS (
    INSERT INTO orders (id, sale_id, user_id) VALUES (gen_random_uuid(), $1, $2)
    ON CONFLICT (sale_id, user_id) DO NOTHING
    RETURNING id, sale_id, user_id
)
INSERT INTO order_audit_trail (id, sale_id, user_id, event_type, metadata)
SELECT gen_random_uuid(), sale_id, user_id, 'CONFIRMED',
       jsonb_build_object('orderId', id, 'processedAt', now())
FROM written
"""


class Purchase(BaseModel):
    sale_id: str = Field(alias="saleId")
    user_id: str = Field(alias="userId", min_length=1, max_length=255)


class Database:
    pool: asyncpg.Pool


async def keep(_: object) -> None:
    """Reset nothing, since nothing is ever set, and spare each call a round trip."""


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    async with asyncpg.create_pool(
        os.environ["DATABASE_URL"], min_size=CONNECTIONS, max_size=CONNECTIONS, reset=keep
    ) as Database.pool:
        yield


broker = RabbitBroker(
    os.environ["RABBITMQ_URL"],
    default_channel=Channel(prefetch_count=PREFETCH),
    logger=None,  # which has two lines for each message
)
app = FastStream(broker, lifespan=lifespan)


@broker.subscriber(
    RabbitQueue(os.environ["PURCHASE_QUEUE"], declare=False), ack_policy=AckPolicy.MANUAL
)
async def confirm(purchase: Purchase, message: RabbitMessage) -> None:
    await Database.pool.execute(STATEMENT, purchase.sale_id, purchase.user_id)
    await message.ack()
