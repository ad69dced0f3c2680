"""One task for each message, acknowledged after it, as Celery's guide to optimizing has it.

Late acknowledgement, and a prefetch for short tasks; no results, events or remote control. Each
pool process, or thread, keeps a connection to the database.
"""

import os
import threading
from typing import Any

import psycopg2
from celery import Celery
from kombu import Queue

STATEMENT = """
WITH written AS (
    INSERT INTO orders (id, sale_id, user_id) VALUES (gen_random_uuid(), %s, %s)
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
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=64,
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


@app.task(name="confirm")
def confirm(event: dict[str, str]) -> None:
    with connection().cursor() as cursor:
        cursor.execute(STATEMENT, (event["saleId"], event["userId"]))
