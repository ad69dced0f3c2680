"""Dead letters reach their queue byte for byte, or their events stay where they are."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence

import pika
import pytest

from flashsale.batching import Delivery, Letter, Rejection
from flashsale.batching.ledger import Ledger
from flashsale.brokers import dead_letter_writer
from flashsale.brokers.dead_letter_writer import DeadLetterWriter
from flashsale.brokers.publishing import ConfirmingPublisher, Outgoing
from tests.conftest import QueueNames
from tests.support.rabbitmq import PrivateRabbitMQ
from tests.support.transports import rabbitmq_medium, take
from tests.support.waiting import wait_until

PATIENCE = 5.0
CONNECTION_NAME = "flashsale test of dead letters"


class CountingPublisher(ConfirmingPublisher):
    attempts = 0

    def publish(self, messages: Iterable[Outgoing]) -> int:
        self.attempts += 1
        return super().publish(messages)


class Confirmations:
    """Collects what a writer reports, from its thread."""

    def __init__(self) -> None:
        self.letters: list[Letter] = []
        self._come = threading.Semaphore(0)

    def __call__(self, letters: Sequence[Letter]) -> None:
        self.letters.extend(letters)
        self._come.release(len(letters))

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self._come.acquire(timeout=PATIENCE)


@pytest.fixture
def connection(rabbitmq_server: PrivateRabbitMQ) -> Iterator[pika.BlockingConnection]:
    connection = rabbitmq_server.connect()
    yield connection
    connection.close()


@pytest.fixture
def declared(connection: pika.BlockingConnection, queue_names: QueueNames) -> QueueNames:
    """The queues, of which the dead-letter queue exists."""
    connection.channel().queue_declare(queue_names.dead_letter_queue, durable=True)
    return queue_names


@pytest.fixture
def publisher(rabbitmq_url: str) -> CountingPublisher:
    return CountingPublisher([rabbitmq_url], CONNECTION_NAME)


@pytest.fixture
def writer(publisher: CountingPublisher, queue_names: QueueNames) -> Iterator[DeadLetterWriter]:
    writer = DeadLetterWriter(
        publisher,
        dead_letter_queue=queue_names.dead_letter_queue,
    )
    yield writer
    writer.close(0)


def a_letter(body: bytes, ledger: Ledger | None = None) -> Letter:
    delivery = Delivery(1, body)
    return Letter(ledger or Ledger(), delivery, Rejection("constraint", "23514"), 2, time.time())


def bodies_in(connection: pika.BlockingConnection, queue: str) -> list[bytes]:
    channel = connection.channel()
    count = channel.queue_declare(queue, passive=True).method.message_count
    return [channel.basic_get(queue, auto_ack=True)[2] for _ in range(count)]


def test_nothing_of_a_hostile_message_but_its_body_is_carried_over(
    connection: pika.BlockingConnection, rabbitmq_url: str, queue_names: QueueNames
) -> None:
    """Copied, they would multiply the letter, let it expire, or have RabbitMQ refuse it."""
    medium = rabbitmq_medium(rabbitmq_url, *queue_names)
    events = medium.transport.open()
    channel = connection.channel()
    copies = channel.queue_declare("", exclusive=True).method.queue
    body = bytes(range(256))
    hostile = pika.BasicProperties(
        headers={
            "CC": [copies],
            "x-death": [{"count": 99}],
            "x-flashsale-reason": "forged",
            "x-flashsale-note": "forged",
            "x-flashsale-explanation": "forged",
            "padding": "x" * 100_000,
        },
        expiration="60000",
        user_id="guest",
        message_id="forged",
        reply_to=copies,
    )
    channel.basic_publish("", queue_names.purchase_queue, body, hostile)
    events.start_consuming()
    (delivery,) = take(events, 1)
    confirmations = Confirmations()

    rejection = Rejection("constraint", "23514", "refused by a \ud800 constraint")
    letter = Letter(Ledger(), delivery, rejection, 2, 1_700_000_000.5)
    medium.transport.dead_letter([letter], confirmations)
    confirmations.wait_for(1)

    medium.transport.close(PATIENCE)
    events.close()
    _, properties, written = channel.basic_get(queue_names.dead_letter_queue, auto_ack=True)
    assert written == body
    last_seen = properties.headers.pop("x-flashsale-last-seen")
    version = properties.headers.pop("x-flashsale-version")
    assert last_seen > "2026"
    assert version
    assert properties.headers == {
        "x-flashsale-reason": "constraint",
        "x-flashsale-sqlstate": "23514",
        "x-flashsale-explanation": r"refused by a \ud800 constraint",
        "x-flashsale-sha256": hashlib.sha256(body).hexdigest(),
        "x-flashsale-first-seen": "2023-11-14T22:13:20.500000+00:00",
        "x-flashsale-attempts": 2,
        "x-flashsale-queue": queue_names.purchase_queue,
    }
    assert properties.delivery_mode == pika.spec.PERSISTENT_DELIVERY_MODE
    assert properties.expiration is None
    assert properties.user_id is None
    assert properties.reply_to is None
    assert bodies_in(connection, copies) == [body]  # the publisher's own copy, and no other


def test_without_its_queue_a_letter_waits_and_says_so_once(
    connection: pika.BlockingConnection,
    declared: QueueNames,
    publisher: CountingPublisher,
    writer: DeadLetterWriter,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Unconfirmed, its event stays unacknowledged; once the queue is back, it is written."""
    monkeypatch.setattr(dead_letter_writer, "_RETRY_MAX_SECONDS", 0.1)
    queue = declared.dead_letter_queue
    connection.channel().queue_delete(queue)
    confirmations = Confirmations()

    with caplog.at_level(logging.DEBUG, logger=dead_letter_writer.__name__):
        writer.write([a_letter(b"event")], confirmations)
        wait_until(lambda: publisher.attempts == 4, PATIENCE, "the writer has tried again")
        assert confirmations.letters == []
        connection.channel().queue_declare(queue, durable=True)
        confirmations.wait_for(1)

    assert bodies_in(connection, queue) == [b"event"]
    (error,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert error.message == "dead_letters.unwritten"
    assert f"no queue '{queue}'" in error.cause


@pytest.mark.parametrize("state", ["deleted", "unbound"])
def test_an_exchange_that_leads_nowhere_costs_one_attempt(
    connection: pika.BlockingConnection,
    declared: QueueNames,
    writer: DeadLetterWriter,
    publisher: CountingPublisher,
    state: str,
) -> None:
    """A queue that was deleted and made again has lost its binding. Later letters know it."""
    queue = declared.dead_letter_queue
    writer.lead(queue)
    if state == "unbound":
        connection.channel().exchange_declare(queue, "fanout", durable=True)
    confirmations = Confirmations()

    writer.write([a_letter(b"event")], confirmations)
    confirmations.wait_for(1)
    assert publisher.attempts == 2
    writer.lead(queue)  # as each reconnect of the consumer does
    writer.write([a_letter(b"another")], confirmations)
    confirmations.wait_for(1)

    assert publisher.attempts == 3
    assert writer.failed_attempts == 1
    assert bodies_in(connection, queue) == [b"event", b"another"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_writer_whose_thread_has_ended_says_so(
    declared: QueueNames, writer: DeadLetterWriter
) -> None:
    """The watchdog ends the process then: its letters would wait for ever."""

    def fail(_: Sequence[Letter]) -> None:
        raise MemoryError

    assert not writer.is_dead
    writer.write([a_letter(b"event")], fail)

    wait_until(lambda: writer.is_dead, PATIENCE, "the thread has ended")


def test_a_writer_that_was_closed_is_not_taken_for_dead(
    declared: QueueNames, writer: DeadLetterWriter
) -> None:
    confirmations = Confirmations()
    writer.write([a_letter(b"event")], confirmations)
    writer.close(PATIENCE)

    assert not writer.is_dead


def test_closing_waits_for_the_letters_under_way(
    connection: pika.BlockingConnection, declared: QueueNames, writer: DeadLetterWriter
) -> None:
    confirmations = Confirmations()
    letters = [a_letter(str(number).encode()) for number in range(500)]

    writer.write(letters[:250], confirmations)
    writer.write(letters[250:], confirmations)
    writer.close(PATIENCE)

    assert confirmations.letters == letters
    written = bodies_in(connection, declared.dead_letter_queue)
    assert written == [letter.delivery.body for letter in letters]


def test_closing_gives_up_letters_that_cannot_be_written(
    queue_names: QueueNames, writer: DeadLetterWriter
) -> None:
    """Their events return to the queue as the channel closes."""
    confirmations = Confirmations()
    writer.write([a_letter(b"event")], confirmations)

    writer.close(0.2)

    assert not [thread for thread in threading.enumerate() if thread.name == "dead-letters"]
    assert confirmations.letters == []


def test_a_letter_whose_channel_is_gone_is_not_written(
    connection: pika.BlockingConnection, declared: QueueNames, writer: DeadLetterWriter
) -> None:
    """Its event comes again, and is judged again."""
    gone = Ledger()
    gone.is_closed = True
    confirmations = Confirmations()

    writer.write([a_letter(b"gone", gone), a_letter(b"here")], confirmations)
    confirmations.wait_for(1)

    assert bodies_in(connection, declared.dead_letter_queue) == [b"here"]


def test_no_idle_connection_is_kept_for_the_next_letter(
    rabbitmq_server: PrivateRabbitMQ,
    connection: pika.BlockingConnection,
    declared: QueueNames,
    writer: DeadLetterWriter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    confirmations = Confirmations()

    def is_connected() -> bool:
        return CONNECTION_NAME in rabbitmq_server.ctl("list_connections", "client_properties")

    writer.write([a_letter(b"first")], confirmations)
    confirmations.wait_for(1)
    assert is_connected()
    monkeypatch.setattr(dead_letter_writer, "_IDLE_SECONDS", 0.1)
    writer.write([a_letter(b"second")], confirmations)
    wait_until(lambda: not is_connected(), 15, "the connection is closed")
    writer.write([a_letter(b"third")], confirmations)
    confirmations.wait_for(2)

    written = bodies_in(connection, declared.dead_letter_queue)
    assert written == [b"first", b"second", b"third"]


@pytest.mark.usefixtures("declared")
def test_a_letter_is_taken_while_an_idle_connection_is_slow_to_close(
    writer: DeadLetterWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The consumer's thread calls `write` and must not wait for RabbitMQ."""
    confirmations = Confirmations()
    closing, go_on = threading.Event(), threading.Event()
    close = ConfirmingPublisher.close

    def slow_close(publisher: ConfirmingPublisher) -> None:
        closing.set()
        assert go_on.wait(15)
        close(publisher)

    monkeypatch.setattr(dead_letter_writer, "_IDLE_SECONDS", 0.1)
    monkeypatch.setattr(ConfirmingPublisher, "close", slow_close)
    writer.write([a_letter(b"first")], confirmations)
    assert closing.wait(15)

    writer.write([a_letter(b"second")], confirmations)

    go_on.set()
    confirmations.wait_for(2)
