"""What the audit queue tells of itself: its counters, its log lines, and when it last moved."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import pytest
from freezegun import freeze_time

from flashsale.audit import AuditTrail
from flashsale.audit_rows import AuditEntry
from flashsale.errors import EventFault, SystemFault
from tests.support.stores import Store, events_of

SALE = "0b0e4c8a-6f1d-4b7e-9a53-2f6f0c1d8e11"


def some_events(count: int) -> list[AuditEntry]:
    return events_of(SALE, *(f"user-{number}" for number in range(count)))


def without_table(store: Store) -> None:
    store.execute("ALTER TABLE order_audit_trail RENAME TO elsewhere")


def with_table(store: Store) -> None:
    store.execute("ALTER TABLE elsewhere RENAME TO order_audit_trail")


def lines_of(caplog: pytest.LogCaptureFixture, *fields: str) -> list[Sequence[object]]:
    """The level and message of each line, and those of `fields` that it has."""
    return [
        (
            *(record.levelname, record.message),
            *((name, vars(record)[name]) for name in fields if name in vars(record)),
        )
        for record in caplog.records
    ]


def test_a_new_queue_has_nothing_to_tell(store: Store) -> None:
    with freeze_time("2026-01-02 03:04:05"):
        made_at = time.monotonic()
        trail = AuditTrail(store.database)

    assert (trail.recorded, trail.dropped, trail.written, trail.refused) == (0, 0, 0, 0)
    assert trail.moved_at == made_at


def test_every_event_that_is_recorded_counts_the_dropped_ones_too(store: Store) -> None:
    trail = AuditTrail(store.database, limit=10)

    told = []
    for count in (4, 7, 2):
        trail.record(some_events(count))
        told.append((trail.recorded, trail.dropped, len(trail)))

    assert told == [(4, 0, 4), (11, 1, 10), (13, 3, 10)]


def test_a_queue_that_is_exactly_full_has_dropped_nothing(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    trail = AuditTrail(store.database, limit=10)
    for _ in range(2):
        trail.record(some_events(5))

    assert (len(trail), trail.dropped, caplog.records) == (10, 0, [])


def test_a_queue_that_is_full_again_after_a_flush_says_so_again(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """With its limit, and how many of the first excessive batch were dropped."""
    trail = AuditTrail(store.database, limit=10)
    for excess in (3, 5):
        trail.record(some_events(10 + excess))
        trail.record(some_events(1))
        trail.flush()

    assert lines_of(caplog, "limit", "dropped") == [
        ("ERROR", "audit.queue_full", ("limit", 10), ("dropped", 3)),
        ("ERROR", "audit.queue_full", ("limit", 10), ("dropped", 5)),
    ]
    assert trail.dropped == 10


def test_written_and_refused_rows_add_up_over_the_flushes(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    sale_id = store.add_sale()
    store.forbid_bad_users("order_audit_trail")
    trail = AuditTrail(store.database)

    told = []
    for users in (["a", "bad-1", "b", "bad-2", "c"], ["d", "bad-3"]):
        trail.record(events_of(sale_id, *users))
        told.append((trail.flush(), trail.written, trail.refused, len(trail)))

    assert told == [(3, 3, 2, 0), (1, 4, 3, 0)]
    cause = "refused by a constraint of SQLite"
    assert lines_of(caplog, "rows", "causes") == [
        ("ERROR", "audit.rows_refused", ("rows", 2), ("causes", {cause: 2})),
        ("ERROR", "audit.rows_refused", ("rows", 1), ("causes", {cause: 1})),
    ]


def test_a_single_row_that_is_refused_waits_as_well(store: Store) -> None:
    """It is all there is: nothing tells that the table would take another."""
    store.forbid_bad_users("order_audit_trail")
    trail = AuditTrail(store.database)
    trail.record(events_of(store.add_sale(), "bad"))

    with pytest.raises(EventFault, match="refused by a constraint of SQLite"):
        trail.flush()
    assert (len(trail), trail.written, trail.refused) == (1, 0, 0)


def test_each_outage_is_logged_with_its_cause_and_with_the_rows_of_the_flush_that_ends_it(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sale_id = store.add_sale()
    trail = AuditTrail(store.database)
    trail.record(events_of(sale_id, "before"))
    assert trail.flush_quietly() == 1
    assert caplog.records == [], "a flush that follows no failed one is nothing to tell of"

    causes = []
    for users in (["a", "b"], ["c"]):
        without_table(store)
        trail.record(events_of(sale_id, *users))
        with pytest.raises(SystemFault) as caught:
            trail.flush()
        causes.append(str(caught.value))
        assert [trail.flush_quietly() for _ in range(2)] == [0, 0]
        with_table(store)
        assert trail.flush_quietly() == len(users)

    assert lines_of(caplog, "cause", "rows") == [
        ("WARNING", "audit.flush_failed", ("cause", causes[0])),
        ("INFO", "audit.flush_resumed", ("rows", 2)),
        ("WARNING", "audit.flush_failed", ("cause", causes[1])),
        ("INFO", "audit.flush_resumed", ("rows", 1)),
    ]
    assert all(causes)


def test_the_queue_moves_when_a_flush_writes_fails_or_finds_nothing_to_do(store: Store) -> None:
    with freeze_time("2026-01-02 03:04:05") as clock:
        trail = AuditTrail(store.database)

        def moved(do: Callable[[], object]) -> bool:
            clock.tick(60)
            do()
            return trail.moved_at == time.monotonic()

        sale_id = store.add_sale()
        assert not moved(lambda: trail.record(events_of(sale_id, "a")))
        assert moved(trail.flush)
        assert moved(trail.flush_quietly), "nothing waits"
        trail.record(events_of(sale_id, "b"))
        without_table(store)
        assert moved(trail.flush_quietly), "it fails"
        with_table(store)
        assert moved(trail.flush_quietly), "it writes"
