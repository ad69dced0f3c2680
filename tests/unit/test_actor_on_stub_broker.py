"""The actor on Dramatiq's stub broker: an event's whole way, in one process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flashsale.logs import quieten_libraries
from flashsale.orders import OrderBook
from flashsale.purchases import Purchase, Reason
from flashsale.settings import Settings
from flashsale.urls import parse_database_url
from tests.support.embedded import EmbeddedWorker, running
from tests.support.stores import Store, open_store, purchases_of
from tests.support.waiting import wait_until

NO_SALE = "00000000-0000-4000-8000-000000000000"
SOON_SECONDS = 10.0


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/flashsale.db"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with open_store(url) as made:
        yield made


@pytest.fixture
def settings(url: str) -> Settings:
    """Impatient, so that a test need not wait for what is waited for in seconds elsewhere."""
    return Settings(
        database=parse_database_url(url),
        batch_size=50,
        audit_interval_seconds=0.05,
        retry_min_seconds=0.01,
        retry_max_seconds=0.05,
        breaker_hold_seconds=0.05,
        probe_max_seconds=0.05,
        statement_timeout_seconds=0.2,
    )


def assert_conserved(worker: EmbeddedWorker, published: int) -> None:
    """Once it has stopped: each delivery is accounted for, and each event is settled."""
    tally = worker.tally
    assert tally.is_conserved
    assert tally.open == 0
    assert tally.settled + tally.dead_lettered == published


def test_each_event_ends_as_an_order_a_duplicate_or_a_dead_letter(
    store: Store, settings: Settings
) -> None:
    sale_id = store.add_sale()
    store.forbid_bad_users()
    users = [f"user-{number:03}" for number in range(300)]
    unknown = Purchase(NO_SALE, "lost")
    refused = Purchase(sale_id, "bad")
    events = [*purchases_of(sale_id, *users, *users[::3]), unknown, refused, b"{", b""]

    with running(settings) as worker:
        worker.publish(events)
        worker.join()

    assert store.users() == users
    assert worker.dead_letters() == [
        (Reason.CONSTRAINT, refused.encode()),
        (Reason.JSON, b""),
        (Reason.JSON, b"{"),
        (Reason.UNKNOWN_SALE, unknown.encode()),
    ]
    assert_conserved(worker, len(events))


def test_several_queues_are_one_worker_s_and_conserved_together(
    store: Store, settings: Settings
) -> None:
    sale_id = store.add_sale()
    users = [f"user-{number:03}" for number in range(300)]
    queues = ("a", "b", "c")

    with running(replace(settings, purchase_queues=queues)) as worker:
        worker.publish([*purchases_of(sale_id, *users, *users[::3]), b"{"])
        worker.join()

    assert store.users() == users
    assert worker.dead_letters() == [(Reason.JSON, b"{")]
    assert {letter.delivery.queue for letter in worker.broker.letters} <= set(queues)
    assert_conserved(worker, 401)


def test_every_order_has_its_audit_row_once_the_worker_has_stopped(
    store: Store, settings: Settings
) -> None:
    users = [f"user-{number:03}" for number in range(300)]
    with running(settings) as worker:
        worker.publish(purchases_of(store.add_sale(), *users, *users))
        worker.join()

    rows = store.trail()
    assert [row.event_type for row in rows] == ["CONFIRMED"] * 300
    assert {row.metadata["orderId"] for row in rows} == set(store.order_ids().values())


def test_bad_luck_is_tried_again_until_it_passes(store: Store, settings: Settings) -> None:
    """Another process writes to the SQLite file for longer than the worker waits for it."""
    sale_id = store.add_sale()
    with running(settings) as worker:
        worker.publish(purchases_of(sale_id, "before"))
        worker.join()
        with store.database.connection_context(), store.database.transaction("IMMEDIATE"):
            worker.publish(purchases_of(sale_id, "a", "b"))
            wait_until(lambda: worker.tally.held, SOON_SECONDS, "the batch is held")
        worker.join()

    assert store.users() == ["a", "b", "before"]
    assert worker.dead_letters() == []
    assert_conserved(worker, 3)


def test_an_outage_is_waited_for_and_ends_by_itself(
    store: Store, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """What is held goes back to the queue, nothing is dead-lettered, and it resumes."""
    caplog.set_level(logging.INFO)
    users = [f"user-{number:03}" for number in range(200)]
    sale_id = store.add_sale()
    with running(settings) as worker:
        worker.publish(purchases_of(sale_id, *users[:100]))
        worker.join()
        store.execute("ALTER TABLE orders RENAME TO elsewhere")
        worker.publish(purchases_of(sale_id, *users[100:]))
        wait_until(lambda: worker.tally.returned, SOON_SECONDS, "events are handed back")
        store.execute("ALTER TABLE elsewhere RENAME TO orders")
        worker.join()

    assert store.users() == users
    assert worker.dead_letters() == []
    assert_conserved(worker, 200)
    lines = [record.message for record in caplog.records]
    assert lines.count("work.suspended") == lines.count("work.resumed") == 1


def test_a_worker_without_tables_takes_nothing_and_begins_when_they_are_there(
    store: Store, settings: Settings
) -> None:
    sale_id = store.add_sale()
    store.execute("ALTER TABLE orders RENAME TO elsewhere")
    with running(settings) as worker:
        worker.publish(purchases_of(sale_id, "user"))
        store.execute("ALTER TABLE elsewhere RENAME TO orders")
        worker.join()

    assert store.users() == ["user"]
    assert_conserved(worker, 1)


def test_an_unforeseen_error_is_tried_again_and_its_text_is_not_logged(
    store: Store,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    canary = "somebody's user id"
    confirm = OrderBook.confirm
    failures: list[int] = []

    def fail_twice(self: OrderBook, purchases: list[Purchase], outcomes: list[object]) -> None:
        if purchases and len(failures) < 2:
            failures.append(len(purchases))
            raise KeyError(canary)
        confirm(self, purchases, outcomes)  # type: ignore[arg-type]

    monkeypatch.setattr(OrderBook, "confirm", fail_twice)
    caplog.set_level(logging.DEBUG)
    quieten_libraries()
    with running(settings) as worker:
        worker.publish(purchases_of(store.add_sale(), canary))
        worker.join()

    assert store.users() == [canary]
    assert len(failures) == 2
    assert canary not in caplog.text
    assert_conserved(worker, 1)


def test_no_line_at_any_level_names_a_user(
    store: Store, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    quieten_libraries()
    store.forbid_bad_users()
    sale_id = store.add_sale()
    with running(settings) as worker:
        worker.publish(purchases_of(sale_id, "good-canary", "good-canary", "bad-canary"))
        worker.publish([b'{"userId": "unread-canary"}', Purchase(NO_SALE, "lost-canary")])
        worker.join()

    assert "canary" not in caplog.text
    assert_conserved(worker, 5)
