"""The audit queue: bounded, never in the way, and not let go of before the rows are written."""

from __future__ import annotations

import json
import logging
import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest
from freezegun import freeze_time

from flashsale.audit import AuditTrail
from flashsale.audit_rows import AuditEntry, now
from flashsale.errors import StoreError, SystemFault, TransientFault
from flashsale.ids import new_order_ids
from flashsale.purchases import Purchase
from tests.support.stores import Store, before_each_statement

ORDER = "019c5f3a-7b21-7c4d-9e8f-0123456789ab"
SALE = "0b0e4c8a-6f1d-4b7e-9a53-2f6f0c1d8e11"


def events_of(sale_id: str, count: int, *, user: str = "user") -> list[AuditEntry]:
    return [
        AuditEntry.confirmed(sale_id, f"{user}-{number:04}", order_id, now())
        for number, order_id in enumerate(new_order_ids(count))
    ]


def test_what_is_recorded_is_not_written_before_a_flush(store: Store) -> None:
    trail = AuditTrail(store.database)
    trail.record(events_of(store.add_sale(), 3))

    assert (len(trail), store.trail()) == (3, [])
    assert trail.flush() == 3
    assert (len(trail), len(store.trail()), trail.written) == (0, 3, 3)


def test_a_flush_of_nothing_does_not_ask_the_database(store: Store) -> None:
    trail = AuditTrail(store.database)
    statements: list[int] = []

    with before_each_statement(store.database, statements.append):
        assert trail.flush() == 0

    assert statements == []


def test_a_batch_triggers_when_it_is_full_and_not_one_event_earlier(store: Store) -> None:
    triggered: list[int] = []
    trail = AuditTrail(store.database, batch_size=100)
    trail.on_full = lambda: triggered.append(len(trail))

    trail.record(events_of(SALE, 99))
    assert triggered == []
    trail.record(events_of(SALE, 1))
    assert triggered == [100]


def test_the_queue_is_bounded_and_what_is_dropped_is_counted(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """The oldest stay; one line tells of the first that is dropped, and none of the others."""
    trail = AuditTrail(store.database, limit=10)
    events = events_of(store.add_sale(), 15)

    for event in events:
        trail.record([event])

    assert (len(trail), trail.dropped) == (10, 5)
    assert [record.message for record in caplog.records] == ["audit.queue_full"]
    trail.flush()
    assert [row.id for row in store.trail()] == [event.id for event in events[:10]]


def test_a_batch_larger_than_the_room_left_fills_it(store: Store) -> None:
    trail = AuditTrail(store.database, limit=10)
    trail.record(events_of(SALE, 7))
    trail.record(events_of(SALE, 7))

    assert (len(trail), trail.dropped) == (10, 4)


def test_a_failed_flush_keeps_its_rows(store: Store) -> None:
    trail = AuditTrail(store.database)
    trail.record(events_of(store.add_sale(), 3))
    store.execute("ALTER TABLE order_audit_trail RENAME TO elsewhere")

    with pytest.raises(SystemFault):
        trail.flush()
    assert (len(trail), trail.written) == (3, 0)

    store.execute("ALTER TABLE elsewhere RENAME TO order_audit_trail")
    assert trail.flush() == 3
    assert len(store.trail()) == 3


def test_a_long_queue_is_written_in_statements_of_bounded_size(store: Store) -> None:
    """What an earlier statement wrote has left the queue when a later one fails."""
    trail = AuditTrail(store.database)
    trail.record(events_of(store.add_sale(), 2_500))

    def lose_table(statement: int) -> None:
        if statement == 3:
            store.execute("ALTER TABLE order_audit_trail RENAME TO elsewhere")

    with before_each_statement(store.database, lose_table), pytest.raises(SystemFault):
        trail.flush()

    assert (len(trail), trail.written) == (500, 2_000)


def test_flushes_follow_each_other_and_take_what_came_meanwhile(store: Store) -> None:
    trail = AuditTrail(store.database)
    sale_id = store.add_sale()
    trail.record(events_of(sale_id, 3, user="before"))
    inserting, go_on = threading.Event(), threading.Event()
    written: list[int] = []

    def pause(statement: int) -> None:
        if statement == 1:
            inserting.set()
            assert go_on.wait(10)

    with before_each_statement(store.database, pause):
        threads = [threading.Thread(target=lambda: written.append(trail.flush())) for _ in range(2)]
        threads[0].start()
        assert inserting.wait(10)
        threads[1].start()
        trail.record(events_of(sale_id, 2, user="meanwhile"))
        assert len(trail) == 5
        go_on.set()
        for thread in threads:
            thread.join()

    assert sum(written) == trail.written == len(store.trail()) == 5


def test_recording_beside_flushing_loses_nothing(store: Store) -> None:
    trail = AuditTrail(store.database)
    sale_id = store.add_sale()
    events = events_of(sale_id, 4_000)
    parts = [events[start::4] for start in range(4)]

    def record(part: list[AuditEntry]) -> None:
        for at in range(0, len(part), 10):
            trail.record(part[at : at + 10])

    threads = [threading.Thread(target=record, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        trail.flush()
    trail.flush()

    assert {row.id for row in store.trail()} == {event.id for event in events}


def test_a_row_written_twice_is_one_row(store: Store) -> None:
    trail = AuditTrail(store.database)
    events = events_of(store.add_sale(), 3)
    for _ in range(2):
        trail.record(events)
        trail.flush()

    assert len(store.trail()) == 3


def test_the_row_of_a_sale_that_is_gone_does_not_keep_the_others_back(store: Store) -> None:
    trail = AuditTrail(store.database)
    kept = events_of(store.add_sale(), 2)
    trail.record([kept[0], *events_of(SALE, 1, user="gone"), kept[1]])

    trail.flush()

    assert (len(trail), [row.id for row in store.trail()]) == (0, [event.id for event in kept])


def test_an_outage_is_logged_when_it_begins_and_when_it_ends(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    trail = AuditTrail(store.database)
    trail.record(events_of(store.add_sale(), 3))
    store.execute("ALTER TABLE order_audit_trail RENAME TO elsewhere")
    assert [trail.flush_quietly() for _ in range(3)] == [0, 0, 0]
    store.execute("ALTER TABLE elsewhere RENAME TO order_audit_trail")
    assert [trail.flush_quietly() for _ in range(2)] == [3, 0]

    assert [record.message for record in caplog.records] == [
        "audit.flush_failed",
        "audit.flush_resumed",
    ]


@freeze_time("2026-01-02 03:04:05.250")
def test_a_confirmed_row_names_the_order_and_the_time_as_the_old_worker_did(store: Store) -> None:
    sale_id = store.add_sale()
    trail = AuditTrail(store.database)
    trail.record([AuditEntry.confirmed(sale_id, "user", ORDER, now())])
    trail.flush()

    (row,) = store.trail()
    assert (row.sale_id, row.user_id, row.event_type) == (sale_id, "user", "CONFIRMED")
    assert row.metadata == {"orderId": ORDER, "processedAt": "2026-01-02T03:04:05.250Z"}


@freeze_time("2026-01-02 03:04:05.250")
def test_a_failed_row_names_the_error_its_code_and_the_time() -> None:
    with_code = AuditEntry.failed(
        Purchase(SALE, "user"), TransientFault("a deadlock", sqlstate="40P01"), now()
    )
    without = AuditEntry.failed(Purchase(SALE, "user"), StoreError('the "server"'), now())

    assert (with_code.user_id, with_code.event_type) == ("user", "FAILED_DB")
    assert json.loads(with_code.metadata) == {
        "error": "a deadlock (SQLSTATE 40P01)",
        "errorCode": "40P01",
        "failedAt": "2026-01-02T03:04:05.250Z",
    }
    assert json.loads(without.metadata)["errorCode"] is None
    assert without.id == with_code.id


@pytest.mark.parametrize(
    ("moment", "written"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, 999, UTC), "2026-01-02T03:04:05.000Z"),
        (datetime(2026, 1, 2, 3, 4, 5, 999_999, UTC), "2026-01-02T03:04:05.999Z"),
        (
            datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=9))),
            "2026-01-01T18:04:05.000Z",
        ),
    ],
)
def test_times_are_written_in_utc_with_milliseconds(moment: datetime, written: str) -> None:
    event = AuditEntry.confirmed(SALE, "user", ORDER, moment)

    assert json.loads(event.metadata)["processedAt"] == written
