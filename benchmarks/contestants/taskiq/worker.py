"""One task for each message, acknowledged when it has been executed, as taskiq has it."""

import os

import asyncpg
from taskiq import TaskiqEvents, TaskiqState
from taskiq_aio_pika import AioPikaBroker
from taskiq_aio_pika.queue import Queue

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

broker = AioPikaBroker(os.environ["RABBITMQ_URL"], qos=PREFETCH).with_queue(
    Queue(name=os.environ["PURCHASE_QUEUE"], declare=False)
)


async def keep(_: object) -> None:
    """Reset nothing, since nothing is ever set, and spare each call a round trip."""


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def connect(state: TaskiqState) -> None:
    state.pool = await asyncpg.create_pool(
        os.environ["DATABASE_URL"], min_size=CONNECTIONS, max_size=CONNECTIONS, reset=keep
    )


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def disconnect(state: TaskiqState) -> None:
    await state.pool.close()


@broker.task(task_name="confirm")
async def confirm(event: dict[str, str]) -> None:
    await broker.state.pool.execute(STATEMENT, event["saleId"], event["userId"])
