"""A task for up to 500 messages, or what has come in a tenth of a second, by celery-batches.

It acknowledges the messages of a batch also when its task has raised: such a batch is lost, which
this comparison lets pass.
"""

import os
import threading
from collections.abc import Sequence
from typing import Any

import psycopg2
from celery import Celery
from celery_batches import Batches, SimpleRequest
from kombu import Queue

BATCH_SIZE = 500
STATEMENT = """
WITH written AS (
    INSERT INTO orders (id, sale_id, user_id)
    SELECT gen_random_uuid(), sale_id, user_id
    FROM unnest(%s::uuid[], %s::text[]) AS event (sale_id, user_id)
    ORDER BY sale_id, user_id
    ON CONFLICT (sale_id, user_id) DO NOTHING
    RETURNING id, sale_id, user_id
)
INSERT INTO order_audit_trail (id, sale_id, user_id, event_type, metadata)
SELECT gen_random_uuid(), sale_id, user_id, 'CONFIRMED',
       jsonb_build_object('orderId', id, 'processedAt', now())
FROM written
"""

app = Celery("worker", broker=os.environ["RABBITMQ_URL"])
app.conf.update(
    task_queues=[Queue(os.environ["PURCHASE_QUEUE"], no_declare=True)],
    task_acks_late=True,
    task_ignore_result=True,
    # Times the eight threads: two batches for each process.
    worker_prefetch_multiplier=2 * BATCH_SIZE // 8,
    worker_disable_rate_limits=True,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
)
_local = threading.local()


def connection() -> Any:
    """This thread's connection, in autocommit: the statement is the transaction."""
    if not hasattr(_local, "connection"):
        _local.connection = psycopg2.connect(os.environ["DATABASE_URL"])
        _local.connection.autocommit = True
    return _local.connection


@app.task(name="confirm", base=Batches, flush_every=BATCH_SIZE, flush_interval=0.1)
def confirm(requests: Sequence[SimpleRequest]) -> None:
    events = [request.args[0] for request in requests]
    sale_ids = [event["saleId"] for event in events]
    user_ids = [event["userId"] for event in events]
    with connection().cursor() as cursor:
        cursor.execute(STATEMENT, (sale_ids, user_ids))
