"""Dead letters for tests: put into their queue as they come there in life, and counted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel

from flashsale.brokers.publishing import ConfirmingPublisher, Outgoing
from flashsale.brokers.topology import ensure_topology
from tests.conftest import QueueNames

SALE = "0b0e4c8a-6f1d-4b7e-9a53-2f6f0c1d8e11"


def event(user: str, sale: str = SALE) -> bytes:
    """A body that the worker would take."""
    document = {"saleId": sale, "userId": user, "timestamp": "2026-01-01T00:00:00.000Z"}
    return json.dumps(document).encode()


class LetterBox:
    """The two queues of one test, and the letters in them."""

    def __init__(self, url: str, names: QueueNames) -> None:
        self.url = url
        self.purchases, self.letters = names
        with self.channel() as channel:
            ensure_topology(
                channel.connection,
                purchase_queues=(self.purchases,),
                dead_letter_queue=self.letters,
                queue_type="classic",
            )

    def environment(self) -> dict[str, str]:
        return {
            "RABBITMQ_URL": self.url,
            "PURCHASE_QUEUE": self.purchases,
            "DEAD_LETTER_QUEUE": self.letters,
        }

    def put(
        self,
        bodies: Iterable[bytes],
        reason: str | None = "unknown_sale",
        *,
        last_seen: str = "2026-01-02T00:00:00+00:00",
        headers: Mapping[str, Any] | None = None,
    ) -> None:
        """Letters as the worker writes them; without a reason, as the worker before it did."""

        def letter(body: bytes) -> Outgoing:
            if reason is None:
                return Outgoing(self.letters, body, headers)
            ours = {
                "reason": reason,
                "sha256": hashlib.sha256(body).hexdigest(),
                "first-seen": "2026-01-01T00:00:00+00:00",
                "last-seen": last_seen,
                "attempts": 1,
                "queue": self.purchases,
                "version": "0",
            }
            whole = {f"x-flashsale-{name}": value for name, value in ours.items()}
            return Outgoing(self.letters, body, {**whole, **(headers or {})})

        with ConfirmingPublisher([self.url], "flashsale test") as publisher:
            publisher.publish(map(letter, bodies))

    def depth(self, queue: str) -> int:
        """How many messages are ready in a queue."""
        with self.channel() as channel:
            return int(channel.queue_declare(queue, passive=True).method.message_count)

    def bodies(self, queue: str) -> list[bytes]:
        """Take all bodies out of a queue, in order."""
        with self.channel() as channel:
            count = channel.queue_declare(queue, passive=True).method.message_count
            return [channel.basic_get(queue, auto_ack=True)[2] for _ in range(count)]

    @contextmanager
    def consumer(self, queue: str) -> Iterator[None]:
        """Somebody who consumes `queue`, and is stuck with the first message of it."""
        with self.channel() as channel:
            channel.basic_qos(prefetch_count=1)
            channel.basic_publish("", queue, b"held")
            channel.basic_consume(queue, lambda *_: None)
            yield

    @contextmanager
    def channel(self) -> Iterator[BlockingChannel]:
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            yield connection.channel()
        finally:
            if connection.is_open:
                connection.close()


def listed(run: Callable[..., tuple[int, str, str]], *arguments: str) -> list[dict[str, Any]]:
    """What `flashsale dead-letters list --json` tells of each letter."""
    code, out, _ = run("list", "--json", *arguments)
    assert code == 0
    return list(json.loads(out)["letters"])
