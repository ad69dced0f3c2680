"""python -m worker PROCESSES: a batching consumer as a team would write it by hand, and well.

In each process one task takes 500 events, or what has come 10 ms after the first of them, writes
them with one prepared statement, and acknowledges all of them at once. An event that cannot be
read is rejected; any other failure ends the process, and what it had not acknowledged comes again.
"""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
from typing import Annotated

import aio_pika
import asyncpg
import msgspec
import uvloop

BATCH_SIZE = 500
PREFETCH = 2_000
LINGER_SECONDS = 0.01

# The rows are locked in one order everywhere, so that two processes cannot deadlock.
STATEMENT = """
WITH written AS (
    INSERT INTO orders (id, sale_id, user_id)
    SELECT gen_random_uuid(), sale_id, user_id
    FROM unnest($1::uuid[], $2::text[]) AS event (sale_id, user_id)
    ORDER BY sale_id, user_id
    ON CONFLICT (sale_id, user_id) DO NOTHING
    RETURNING id, sale_id, user_id
)
INSERT INTO order_audit_trail (id, sale_id, user_id, event_type, metadata)
SELECT gen_random_uuid(), sale_id, user_id, 'CONFIRMED',
       jsonb_build_object('orderId', id, 'processedAt', now())
FROM written
"""


class Purchase(msgspec.Struct, rename="camel"):
    sale_id: str
    user_id: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


decode = msgspec.json.Decoder(Purchase).decode
Arrived = asyncio.Queue[aio_pika.abc.AbstractIncomingMessage]


async def collect(arrived: Arrived) -> list[aio_pika.abc.AbstractIncomingMessage]:
    """The next batch: it goes when it is full, or 10 ms after its first message."""
    messages = [await arrived.get()]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while len(messages) < BATCH_SIZE:
                messages.append(await arrived.get())
    return messages


async def write_batches(arrived: Arrived, database: asyncpg.Connection) -> None:
    statement = await database.prepare(STATEMENT)
    while True:
        messages = await collect(arrived)
        good, sale_ids, user_ids = None, [], []
        for message in messages:
            try:
                purchase = decode(message.body)
            except msgspec.MsgspecError:
                await message.reject()
                continue
            good = message
            sale_ids.append(purchase.sale_id)
            user_ids.append(purchase.user_id)
        if good:
            await statement.fetch(sale_ids, user_ids)
            await good.ack(multiple=True)


async def drain() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    database = await asyncpg.connect(os.environ["DATABASE_URL"])
    connection = await aio_pika.connect(os.environ["RABBITMQ_URL"])
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=PREFETCH)
    queue = await channel.get_queue(os.environ["PURCHASE_QUEUE"])
    arrived: Arrived = asyncio.Queue()
    await queue.consume(arrived.put)
    writing = asyncio.create_task(write_batches(arrived, database))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({writing, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not writing.done():
        writing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await writing
    await connection.close()
    await database.close()


def main() -> None:
    processes = [
        multiprocessing.Process(target=lambda: uvloop.run(drain())) for _ in range(int(sys.argv[1]))
    ]
    for process in processes:
        process.start()
    signal.signal(signal.SIGTERM, lambda *_: [process.terminate() for process in processes])
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
