"""Whatever is sent to the queue, in one batch: each event gets what it deserves, as do the others.

Before each event of the table stands a good one, and behind it another. An insert that is kept
waiting lets the worker collect all of them meanwhile, so they are one batch and one statement: the
neighbours of every bad event are committed by one transaction, whose id PostgreSQL keeps in
``xmin`` of their rows.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pika
import psycopg2
import pytest

from flashsale.purchases import Reason
from tests.support.events import ACCEPTED, SALE, WITH_UNKNOWN_KEYS, body
from tests.support.exporter import Exporter, Samples
from tests.support.postgres import PrivatePostgres
from tests.support.properties import UNREADABLE
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.refusals import REFUSED
from tests.support.shop import Shop
from tests.support.waiting import wait_until
from tests.support.workers import RunningWorker

pytestmark = pytest.mark.acceptance

PLUG = "waits for the lock"
LAST = b"the last of all"
NO_SALE = "00000000-0000-0000-0000-000000000000"
NO_SALE_EITHER = "ffffffff-ffff-ffff-ffff-ffffffffffff"
# What is refused without the database, and so as it arrives.
UNREAD = set(Reason) - {Reason.UNKNOWN_SALE}
ENVIRONMENT = {
    "FLASHSALE_BATCHES_IN_FLIGHT": "1",
    "FLASHSALE_BATCH_SIZE": "1000",  # all of them
    "FLASHSALE_STATEMENT_TIMEOUT_SECONDS": "60",  # of which the wait is a part
}
HEADERS = {
    *("reason", "explanation", "sha256", "first-seen", "last-seen", "attempts", "queue", "version"),
}
# The longest that RabbitMQ takes, less what frames and other properties need.
HEADER_BYTES = 120_000


class Row(NamedTuple):
    """An event, and what becomes of it: the order of this shopper, or a dead letter."""

    body: bytes
    becomes: str | Reason
    properties: dict[str, Any] | pika.BasicProperties | None = None


def hostile(copies: str) -> dict[str, dict[str, Any]]:
    """Properties that command RabbitMQ, lie, or cannot be copied. `copies` is a queue."""
    death = {"count": 99, "reason": "rejected", "queue": "purchase", "exchange": ""}
    return {
        "copied to a queue": {"headers": {"CC": [copies]}},
        "copied in secret": {"headers": {"BCC": [copies]}},
        "of a user": {"user_id": "guest"},
        "that expires": {"expiration": "600000"},
        "with a reply queue": {"reply_to": copies, "correlation_id": "1", "message_id": "1"},
        "with as many headers as fit": {"headers": {"padding": "x" * HEADER_BYTES}},
        "with forged deaths": {"headers": {"x-death": [death], "x-retry-count": 99}},
        "with forged findings": {"headers": {"x-flashsale-reason": "poison", "x-flashsale-a": "b"}},
        "that is not persistent": {"delivery_mode": 1},
        "that says it is a pickle": {"content_type": "application/x-python-serialize"},
        "that says it is gzip": {"content_type": "application/json", "content_encoding": "gzip"},
        "with a priority and a type": {"priority": 255, "type": "x" * 255, "app_id": "y" * 255},
    }


def rows(copies: str) -> dict[str, Row]:
    table = {name: Row(data, user) for name, (data, user) in ACCEPTED.items()}
    table |= {name: Row(data, reason) for name, (data, reason) in REFUSED.items()}
    for name, sale_id in {"nil": NO_SALE, "highest": NO_SALE_EITHER}.items():
        table[f"the {name} sale"] = Row(body(saleId=sale_id), Reason.UNKNOWN_SALE)
    table["ten megabytes"] = Row(body(userId="x" * 10_000_000), Reason.TOO_LARGE)
    # The worker leaves it to pika to read messages in other frames than three.
    for number, (name, raw) in enumerate(UNREADABLE.items()):
        table[f"a large event with {name}"] = Row(b"%d" % number * 200_000, Reason.TOO_LARGE, raw)
        table[f"a small event with {name}"] = Row(b"[%d]" % number, Reason.TYPE, raw)
    table["no bytes"] = Row(b"", Reason.JSON, UNREADABLE["a date beyond all years"])
    for name, properties in hostile(copies).items():
        table[f"a good event {name}"] = Row(body(userId=name), name, properties)
        bad = body(userId=f"bad, {name}", saleId="none")
        table[f"a bad event {name}"] = Row(bad, Reason.FORMAT, properties)
    return table


NAMES = list(rows(""))


@dataclass
class Aftermath:
    """What was found when the worker had done with all of them."""

    rows: dict[str, Row]
    #: By shopper: the sale, and the transaction that has committed the order.
    orders: dict[str, tuple[str, str]] = field(default_factory=dict)
    letters: list[tuple[pika.BasicProperties, bytes]] = field(default_factory=list)
    samples: Samples = field(default_factory=dict)
    #: Those that a publisher's own CC and BCC have made.
    copies: list[bytes] = field(default_factory=list)
    log: str = ""
    stopped: dict[str, Any] = field(default_factory=dict)

    @property
    def batch(self) -> str:
        """The transaction of the batch."""
        return self.orders[neighbours(NAMES[0])[0]][1]

    def letters_of(self, data: bytes) -> list[pika.BasicProperties]:
        return [properties for properties, found in self.letters if found == data]


def neighbours(name: str) -> tuple[str, str]:
    return f"before: {name}", f"behind: {name}"


@pytest.fixture(scope="module")
def aftermath(
    postgres_server: PrivatePostgres, migrated_template: str, rabbitmq_server: PrivateRabbitMQ
) -> Iterator[Aftermath]:
    name = f"bad_input_{uuid.uuid4().hex}"
    postgres_server.create_database(name, migrated_template)
    queue = f"purchase-{uuid.uuid4().hex}"
    shop = Shop(postgres_server.url(name), rabbitmq_server.url(), queue, f"{queue}.XQ")
    shop.sale_id = SALE
    copies = f"{queue}.copies"
    try:
        shop.open_sale()
        yield happen(shop, copies)
    finally:
        with shop.channel() as channel:
            for each in (shop.purchase_queue, shop.dead_letter_queue, copies):
                channel.queue_delete(each)
        postgres_server.drop_database(name)


def happen(shop: Shop, copies: str) -> Aftermath:
    """Send the table to a worker, in one batch."""
    found = Aftermath(rows(copies))
    becomes = [row.becomes for row in found.rows.values()]
    # Deliveries come in order, and what cannot be read needs no batch: when the last of all has its
    # letter, everything has arrived.
    at_once = 1 + sum(each in UNREAD for each in becomes)
    letters = 1 + sum(isinstance(each, Reason) for each in becomes)
    orders = 3 * len(becomes) + 1 - letters
    make_plug(shop)
    shop.buy(["first"])
    exporter = Exporter()
    env = shop.environment() | ENVIRONMENT | exporter.env
    with RunningWorker(env, processes=1) as worker:
        shop.wait_for_orders(1, 15)
        exporter.wait_until_ready()  # it is one of the processes
        pids = worker.pids()
        with plugged(shop):
            send(shop, found.rows, copies)
            wait_until(lambda: shop.ready(shop.dead_letter_queue) == at_once, 30, "all has come")
            assert shop.order_count() == 1
        shop.wait_for_orders(2 + orders, 15)
        wait_until(lambda: shop.ready(shop.dead_letter_queue) == letters, 15, "all letters")
        shop.buy(["after all"])
        wait_until(lambda: "after all" in shop.orders(), 5, "the worker lives")
        found.samples = exporter.scrape_settled(3 * len(becomes) + 4)
        assert worker.pids() == pids
        worker.terminate()
        assert worker.wait(5) == 0
        found.log = worker.log()
        (found.stopped,) = worker.logged("worker.stopped")
    rows_found = shop.query("SELECT user_id, sale_id::text, xmin::text FROM orders")
    found.orders = {user: (sale_id, transaction) for user, sale_id, transaction in rows_found}
    assert shop.confirmations() == shop.orders()
    found.letters = take(shop, shop.dead_letter_queue)
    found.copies = [data for _, data in take(shop, copies)]
    return found


def make_plug(shop: Shop) -> None:
    """Let the insert of one shopper's order wait for a lock."""
    shop.query(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END';"
        " CREATE TRIGGER wait AFTER INSERT ON orders FOR EACH ROW"
        f" WHEN (NEW.user_id = '{PLUG}') EXECUTE FUNCTION wait()"
    )


@contextmanager
def plugged(shop: Shop) -> Iterator[None]:
    """Keep an insert waiting for the length of the block."""
    with closing(psycopg2.connect(shop.database_url)) as holder, holder.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(1)")
        shop.buy([PLUG])
        waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        wait_until(lambda: shop.query(waiting), 10, "the insert waits")
        yield


def send(shop: Shop, table: dict[str, Row], copies: str) -> None:
    queue = shop.purchase_queue
    with shop.channel() as channel:
        channel.queue_declare(copies, durable=True)
        for name, row in table.items():
            before, behind = neighbours(name)
            publish(channel, queue, body(userId=before), None)
            publish(channel, queue, row.body, row.properties)
            publish(channel, queue, body(userId=behind), None)
        publish(channel, queue, LAST, None)


def publish(
    channel: Any,
    queue: str,
    data: bytes,
    properties: dict[str, Any] | pika.BasicProperties | None,
) -> None:
    if not isinstance(properties, pika.BasicProperties):
        properties = pika.BasicProperties(**({"delivery_mode": 2} | (properties or {})))
    channel.basic_publish("", queue, data, properties)


def take(shop: Shop, queue: str) -> list[tuple[pika.BasicProperties, bytes]]:
    taken = []
    with shop.channel() as channel:
        while True:
            method, properties, data = channel.basic_get(queue, auto_ack=True)
            if method is None:
                return taken
            taken.append((properties, data))


@pytest.mark.parametrize("name", NAMES)
def test_an_event_gets_what_it_deserves_and_its_neighbours_their_orders(
    name: str, aftermath: Aftermath
) -> None:
    row = aftermath.rows[name]

    for neighbour in neighbours(name):
        assert aftermath.orders[neighbour] == (SALE, aftermath.batch)
    if isinstance(row.becomes, Reason):
        (letter,) = aftermath.letters_of(row.body)
        assert letter.headers["x-flashsale-reason"] == row.becomes
    else:
        assert aftermath.orders[row.becomes] == (SALE, aftermath.batch)
        assert aftermath.letters_of(row.body) == []


def test_there_is_nothing_else(aftermath: Aftermath) -> None:
    table = aftermath.rows.values()
    bad = [row.body for row in table if isinstance(row.becomes, Reason)]
    good = [row.becomes for row in table if not isinstance(row.becomes, Reason)]
    beside = [user for name in aftermath.rows for user in neighbours(name)]

    assert sorted(data for _, data in aftermath.letters) == sorted([*bad, LAST])
    assert sorted(aftermath.orders) == sorted([*good, *beside, "first", PLUG, "after all"])
    assert aftermath.stopped["delivered"] == 3 * len(aftermath.rows) + 4


def test_one_attempt_was_enough(aftermath: Aftermath) -> None:
    """No event has let the batch, its channel or the process begin anew."""
    attempts = {
        letter.headers["x-flashsale-reason"]: letter.headers["x-flashsale-attempts"]
        for letter, _ in aftermath.letters
    }

    assert attempts.pop("unknown_sale") == 1
    assert set(attempts.values()) == {0}
    assert aftermath.stopped["returned"] == 0
    assert [line for line in aftermath.log.splitlines() if '"level": "error"' in line] == []
    assert aftermath.log.count("broker.connected") == 1


def test_a_dead_letter_carries_what_we_have_found_and_nothing_of_its_message(
    aftermath: Aftermath,
) -> None:
    for letter, data in aftermath.letters:
        headers = letter.headers
        unsaid = {"explanation"} if headers["x-flashsale-reason"] == "unknown_sale" else set()
        assert set(headers) == {f"x-flashsale-{name}" for name in HEADERS - unsaid}
        assert headers["x-flashsale-sha256"] == hashlib.sha256(data).hexdigest()
        assert letter.delivery_mode == pika.spec.PERSISTENT_DELIVERY_MODE
        for copied in ("expiration", "user_id", "reply_to", "correlation_id", "priority", "app_id"):
            assert getattr(letter, copied) is None, copied


def test_a_dead_letter_is_copied_to_no_queue_of_its_message_s_choice(aftermath: Aftermath) -> None:
    """A publisher's own copies are its own affair: there is one of each message."""
    named = [
        row.body
        for row in aftermath.rows.values()
        if isinstance(row.properties, dict)
        and {"CC", "BCC"} & set(row.properties.get("headers", {}))
    ]

    assert sorted(aftermath.copies) == sorted(named)


def test_what_is_odd_and_harmless_is_counted(aftermath: Aftermath) -> None:
    unreadable = 2 * len(UNREADABLE) + 1  # of whose properties nothing is known
    samples = aftermath.samples

    assert samples["not_persistent_total", ()] == 2 + unreadable
    assert samples["unknown_keys_total", ()] == len(WITH_UNKNOWN_KEYS)
    # One event of each batch, all of them of long ago.
    assert samples["timestamps_total", ("skewed",)] == samples["batches_total", ()]


def test_nothing_of_an_event_is_logged(aftermath: Aftermath) -> None:
    for user in aftermath.orders:
        if len(user) > 8:
            assert user not in aftermath.log
    assert SALE not in aftermath.log
