"""A stand-in for the NestJS worker that flashsale replaces: what it does, in Python of our own.

``python -m tests.support.old_worker [QUEUE DEAD_LETTERS]`` takes events, writes rows, acknowledges,
repeats and dead-letters as that worker does: one event at a time, an order and an audit row in
statements of their own, three repeats without a pause, and then a refusal that lets RabbitMQ
dead-letter. The statements, and which values they refuse, are those of Prisma Client 6.19, as its
query log has them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

import pika
import psycopg2
from pika.exceptions import AMQPError

from tests.support.api import API_QUEUES, declare_as_the_api_does

_MOST_REPEATS = 3
_POLL_SECONDS = 0.05
_RECONNECT_SECONDS = 1.0
_UNIQUE_VIOLATION = "23505"
# What Prisma calls the errors of PostgreSQL; it knows no code for the others.
_PRISMA_CODES = {"23503": "P2003", "22001": "P2000"}


class _Refused(Exception):
    """The event is not what an order can be made of."""


class Database:
    """One connection, made anew when it is lost; each statement commits by itself."""

    def __init__(self, url: str) -> None:
        self._url = url.partition("?")[0]
        self._connection: Any = None
        self.execute("SELECT 1")

    def execute(self, statement: str, *values: Any) -> None:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg2.connect(self._url, connect_timeout=5)
            self._connection.autocommit = True
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values)

    def close(self) -> None:
        self._connection.close()


def process(database: Database, body: bytes) -> None:
    """Make an order of an event; an event that has one already is a success.

    Raises:
        Exception: whatever kept it from that.
    """
    # Node replaces what is not UTF-8, and JSON.parse takes the last of two equal keys.
    event = json.loads(body.decode(errors="replace"), parse_constant=_refuse)
    if not isinstance(event, dict) or not {"saleId", "userId"} <= event.keys():
        raise _Refused("Invalid message format")
    sale_id, user_id = event["saleId"], event["userId"]
    order_id = str(uuid.uuid4())
    try:
        _check_types(sale_id, user_id)
        database.execute(
            "INSERT INTO orders (id, sale_id, user_id, status, created_at)"
            " VALUES (%s, %s, %s, 'CONFIRMED', %s)",
            *(order_id, sale_id, user_id, _now()),
        )
    except Exception as error:
        code = getattr(error, "pgcode", None)
        if code == _UNIQUE_VIOLATION:
            return
        about = {"error": str(error), "errorCode": _PRISMA_CODES.get(code or "", "UNKNOWN")}
        _audit(database, sale_id, user_id, "FAILED_DB", {**about, "failedAt": _instant()})
        raise
    about = {"orderId": order_id, "processedAt": _instant()}
    _audit(database, sale_id, user_id, "CONFIRMED", about)


def _audit(
    database: Database, sale_id: Any, user_id: Any, kind: str, metadata: Mapping[str, str]
) -> None:
    """Write an audit row, or say that it could not be written, and go on."""
    try:
        _check_types(sale_id, user_id)
        database.execute(
            "INSERT INTO order_audit_trail"
            " (id, sale_id, user_id, event_type, metadata, created_at)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            *(str(uuid.uuid4()), sale_id, user_id, kind, json.dumps(metadata), _now()),
        )
    except Exception as error:  # noqa: BLE001  # it takes any failure so
        sys.stderr.write(f"audit event not written: {error}\n")


def _check_types(*ids: object) -> None:
    if not all(isinstance(each, str) for each in ids):
        raise _Refused("Invalid value provided")


def _refuse(constant: str) -> NoReturn:
    raise _Refused(f"{constant} is not JSON")


def _now() -> datetime:
    """By the worker's own clock, as Prisma takes it, to the millisecond."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _instant() -> str:
    return _now().isoformat(timespec="milliseconds").replace("+00:00", "Z")


class OldWorker:
    """Consumes until it is told to stop; what it holds then goes back to its queue.

    `queues` are the names of the events' and of the dead letters'.
    """

    def __init__(self, env: Mapping[str, str], queues: tuple[str, str]) -> None:
        self._database = Database(env["DATABASE_URL"])
        self._broker_url = env["RABBITMQ_URL"]
        self._queues = queues
        self._stopping = threading.Event()

    def stop(self, *_: object) -> None:
        self._stopping.set()

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._consume()
            except AMQPError as error:
                sys.stderr.write(f"disconnected: {type(error).__name__}\n")
                self._stopping.wait(_RECONNECT_SECONDS)

    def _consume(self) -> None:
        connection = pika.BlockingConnection(pika.URLParameters(self._broker_url))
        try:
            channel = connection.channel()
            declare_as_the_api_does(channel, *self._queues)
            channel.basic_qos(prefetch_count=1)
            for method, properties, body in channel.consume(
                self._queues[0], inactivity_timeout=_POLL_SECONDS
            ):
                if self._stopping.is_set():
                    return
                if method is not None:
                    self._handle(channel, method.delivery_tag, properties, body)
        finally:
            if connection.is_open:
                connection.close()

    def _handle(self, channel: Any, tag: int, properties: Any, body: bytes) -> None:
        try:
            process(self._database, body)
        except Exception as error:  # noqa: BLE001  # it takes any failure so
            sys.stderr.write(f"not processed: {type(error).__name__}\n")
            repeats = (properties.headers or {}).get("x-retry-count", 0)
            if repeats >= _MOST_REPEATS:
                channel.basic_nack(tag, requeue=False)
                return
            # To the end of the queue, at once, and without waiting for a confirm.
            channel.basic_publish(
                "",
                self._queues[0],
                body.decode(errors="replace").encode(),
                pika.BasicProperties(delivery_mode=2, headers={"x-retry-count": repeats + 1}),
            )
        channel.basic_ack(tag)


def main() -> None:
    """Run one, with the environment of the old worker, until SIGTERM."""
    purchases, letters = sys.argv[1:] or API_QUEUES
    worker = OldWorker(os.environ, (purchases, letters))
    signal.signal(signal.SIGTERM, worker.stop)
    worker.run()


if __name__ == "__main__":
    main()
