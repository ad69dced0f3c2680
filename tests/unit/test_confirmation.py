"""What an actor's work means for its deliveries and for the audit trail."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flashsale.audit import AuditTrail
from flashsale.batching import DONE, Batch, Delivery, Failure, Rejection
from flashsale.confirmation import Confirmation, failure_of, read_purchase
from flashsale.errors import (
    StoreError,
    SystemFault,
    TransientFault,
    UnclassifiedFault,
)
from flashsale.metrics import WorkerMetrics
from flashsale.orders import OrderBook
from flashsale.purchases import Purchase, Reason
from tests.support.stores import Store, before_each_statement, open_store, purchases_of

NO_SALE = "00000000-0000-4000-8000-000000000000"
CANARY = "somebody's user id"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path}/flashsale.db", statement_timeout_seconds=0.1) as made:
        yield made


@pytest.fixture
def trail(store: Store) -> AuditTrail:
    return AuditTrail(store.database)


@pytest.fixture
def confirmation(store: Store, trail: AuditTrail) -> Confirmation:
    return Confirmation(OrderBook(store.database), trail, failures_limit=10)


def batch_of(purchases: list[Purchase]) -> Batch[Purchase]:
    return Batch(None, purchases, [Delivery(tag, b"") for tag in range(len(purchases))])


def without_orders(store: Store) -> None:
    store.execute("ALTER TABLE orders RENAME TO elsewhere")


def with_orders(store: Store) -> None:
    store.execute("ALTER TABLE elsewhere RENAME TO orders")


def test_every_eighth_row_of_a_batch_says_when_its_purchase_was_made(
    store: Store, trail: AuditTrail, confirmation: Confirmation
) -> None:
    sale_id = store.add_sale()
    users = [f"user-{number:02}" for number in range(10)]
    purchases = [Purchase(sale_id, user, "2026-01-02T04:04:05.678+01:00") for user in users]
    confirmation.confirm_purchases(batch_of([*purchases[:8], Purchase(sale_id, "x", "soon")]))
    confirmation.confirm_purchases(batch_of(purchases[8:]))
    trail.flush()

    times = {row.user_id: row.metadata.get("occurredAt") for row in store.trail()}
    assert {user: time for user, time in times.items() if time} == dict.fromkeys(
        ("user-00", "user-08"), "2026-01-02T03:04:05.678000+00:00"
    )


def test_each_delivery_has_the_verdict_of_its_purchase(
    store: Store, confirmation: Confirmation
) -> None:
    sale_id = store.add_sale()
    store.forbid_bad_users()
    batch = batch_of([*purchases_of(sale_id, "new", "new", "bad"), Purchase(NO_SALE, "lost")])

    confirmation.confirm_purchases(batch)

    assert batch.verdicts == [
        DONE,
        DONE,
        Rejection(Reason.CONSTRAINT),
        Rejection(Reason.UNKNOWN_SALE),
    ]
    assert [getattr(verdict, "explanation", None) for verdict in batch.verdicts] == [
        *(None, None, "refused by a constraint of SQLite"),
        None,  # the reason says it all
    ]


def test_a_batch_is_counted_with_what_was_done_before(
    store: Store, trail: AuditTrail, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="flashsale.confirmation")
    metrics = WorkerMetrics()
    confirmation = Confirmation(
        OrderBook(store.database), trail, failures_limit=10, metrics=metrics
    )
    sale_id = store.add_sale()
    confirmation.confirm_purchases(batch_of([Purchase(sale_id, "old", "2026-01-01T00:00:00Z")]))
    batch = batch_of([*purchases_of(sale_id, "old", "new", "new"), Purchase(NO_SALE, "lost")])
    confirmation.confirm_purchases(batch)
    confirmation.confirm_purchases(Batch.probe())

    assert batch.repeats == 2
    assert metrics.batch_events.report()["sum"] == 5
    assert sum(metrics.batch_seconds.report()["counts"]) == 2
    assert sum(metrics.event_age_seconds.report()["counts"]) == 1  # the other has no timestamp
    assert confirmation.last_event_at == datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    assert confirmation.last_event_at + confirmation.last_event_age == pytest.approx(
        time.time(), abs=60
    )
    assert sum(metrics.database_seconds["confirm"].report()["counts"]) == 2
    assert sum(metrics.database_seconds["probe"].report()["counts"]) == 1
    assert [(line.events, line.confirmed, line.duplicates) for line in caplog.records] == [
        (1, 1, 0),
        (4, 1, 2),
    ]


def test_the_first_timestamp_of_a_batch_is_counted_by_what_it_is(
    store: Store, trail: AuditTrail
) -> None:
    metrics = WorkerMetrics()
    confirmation = Confirmation(
        OrderBook(store.database), trail, failures_limit=10, metrics=metrics
    )
    sale_id = store.add_sale()
    now = datetime.now(UTC)
    yesterday, tomorrow = (now + timedelta(hours=hours) for hours in (-23, 23))
    for timestamp in (
        *(yesterday.isoformat(), tomorrow.isoformat(), None, "soon", "0001-01-01T00:00:00Z"),
        (now + timedelta(hours=25)).isoformat(),
    ):
        first = Purchase(sale_id, "first", timestamp)
        confirmation.confirm_purchases(batch_of([first, Purchase(sale_id, "second", "soon")]))

    assert metrics.events == {
        "timestamps.good": 2,
        "timestamps.missing": 1,
        "timestamps.unreadable": 1,
        "timestamps.skewed": 2,
    }
    ages = metrics.event_age_seconds.report()
    assert sum(ages["counts"]) == 4
    # 23 hours, and a day at most for the one of the year 1.
    assert ages["sum"] == pytest.approx((23 + 24) * 3_600, abs=60)


def test_an_order_has_one_confirmed_row_and_a_duplicate_none(
    store: Store, confirmation: Confirmation, trail: AuditTrail
) -> None:
    sale_id = store.add_sale()
    for _ in range(2):
        confirmation.confirm_purchases(batch_of(purchases_of(sale_id, "user")))
    trail.flush()

    (row,) = store.trail()
    assert row.event_type == "CONFIRMED"
    assert row.metadata["orderId"] == store.order_ids()[sale_id, "user"]


def test_an_outage_leaves_no_verdict_and_one_failed_row_for_each_event(
    store: Store, confirmation: Confirmation, trail: AuditTrail
) -> None:
    """However often it is tried again, held here or redelivered."""
    batch = batch_of(purchases_of(store.add_sale(), "a", "b"))
    without_orders(store)
    with pytest.raises(SystemFault):
        confirmation.confirm_purchases(batch)
    assert batch.verdicts == [None, None]
    with pytest.raises(SystemFault):
        confirmation.confirm_purchases(batch.rest())
    assert len(trail) == 2
    with pytest.raises(SystemFault):
        confirmation.confirm_purchases(batch_of(list(batch.items)))

    with_orders(store)
    confirmation.confirm_purchases(batch.rest())
    trail.flush()
    assert [(row.user_id, row.event_type) for row in store.trail()] == [
        ("a", "CONFIRMED"),
        ("a", "FAILED_DB"),
        ("b", "CONFIRMED"),
        ("b", "FAILED_DB"),
    ]


def test_the_failed_rows_of_an_outage_are_bounded(
    store: Store, confirmation: Confirmation, trail: AuditTrail
) -> None:
    """They may not displace the record of written orders."""
    without_orders(store)
    for number in range(50):
        with pytest.raises(SystemFault):
            confirmation.confirm_purchases(batch_of(purchases_of(NO_SALE, f"user-{number}")))

    assert len(trail) == 10


def test_an_unknown_sale_leaves_no_row(
    store: Store, confirmation: Confirmation, trail: AuditTrail
) -> None:
    """Not even one that failed first: its foreign key could not be satisfied."""
    batch = batch_of([Purchase(NO_SALE, "lost")])
    without_orders(store)
    with pytest.raises(SystemFault):
        confirmation.confirm_purchases(batch)
    with_orders(store)
    confirmation.confirm_purchases(batch.rest())
    trail.flush()

    assert (len(trail), store.trail()) == (0, [])


def test_a_failed_row_holds_no_value_of_another_event(
    store: Store, confirmation: Confirmation, trail: AuditTrail
) -> None:
    without_orders(store)
    with pytest.raises(SystemFault):
        confirmation.confirm_purchases(batch_of(purchases_of(store.add_sale(), "a", CANARY)))
    with_orders(store)
    trail.flush()

    by_user = {row.user_id: row for row in store.trail()}
    assert CANARY not in json.dumps(by_user["a"].metadata)
    assert set(by_user["a"].metadata) == {"error", "errorCode", "failedAt"}


def test_what_was_written_before_a_failure_has_its_verdict_and_its_row(
    store: Store, confirmation: Confirmation, trail: AuditTrail
) -> None:
    sale_id = store.add_sale()
    store.forbid_bad_users()
    batch = batch_of(purchases_of(sale_id, "a", "bad", "c", "d"))
    second_half = 5  # after all four, the first half, "a" alone and "bad" alone

    def lose_orders(statement: int) -> None:
        if statement == second_half:
            without_orders(store)

    with before_each_statement(store.database, lose_orders), pytest.raises(SystemFault):
        confirmation.confirm_purchases(batch)
    trail.flush()

    assert batch.verdicts == [DONE, Rejection(Reason.CONSTRAINT), None, None]
    assert [(row.user_id, row.event_type) for row in store.trail()] == [
        ("a", "CONFIRMED"),
        ("c", "FAILED_DB"),
        ("d", "FAILED_DB"),
    ]


def test_an_unforeseen_error_tells_its_type_and_place_and_not_its_text(
    store: Store, confirmation: Confirmation
) -> None:
    def fail(statement: int) -> None:
        raise KeyError(CANARY)

    batch = batch_of(purchases_of(store.add_sale(), CANARY))
    with before_each_statement(store.database, fail), pytest.raises(UnclassifiedFault) as caught:
        confirmation.confirm_purchases(batch)

    assert "KeyError at " in str(caught.value)
    assert Path(__file__).name in str(caught.value)
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert batch.verdicts == [None]


@pytest.mark.parametrize(
    ("error", "failure", "explanation"),
    [
        (TransientFault("a deadlock", sqlstate="40P01"), Failure.TRANSIENT, "a deadlock (SQLSTATE"),
        (SystemFault("no answer"), Failure.SYSTEM, "no answer"),
        (UnclassifiedFault("the driver"), Failure.UNCLASSIFIED, "the driver"),
        (StoreError("unknown"), Failure.UNCLASSIFIED, "unknown"),
        (ValueError(CANARY), Failure.UNCLASSIFIED, "ValueError"),
    ],
)
def test_an_exception_tells_what_its_batch_had(
    error: Exception, failure: Failure, explanation: str
) -> None:
    found, words = failure_of(error)

    assert found is failure
    assert words.startswith(explanation)
    assert CANARY not in words


def test_a_body_is_a_purchase_or_the_reason_why_there_is_none() -> None:
    body = Purchase(NO_SALE, "user").encode()

    assert read_purchase(body, 1_000, pytest.fail) == Purchase(NO_SALE, "user")
    assert read_purchase(body, 10, pytest.fail) == Rejection(Reason.TOO_LARGE)
    assert read_purchase(b"{", 1_000, pytest.fail) == Rejection(Reason.JSON)


def test_a_body_that_is_no_purchase_is_refused_in_words_that_hold_nothing_of_it() -> None:
    body = f'{{"saleId": "{NO_SALE}", "userId": "{CANARY}\\u0000"}}'.encode()

    refused = read_purchase(body, 1_000, pytest.fail)

    assert isinstance(refused, Rejection)
    assert refused.explanation == "userId holds a control character"
