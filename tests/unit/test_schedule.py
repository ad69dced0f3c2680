"""When the audit trail is flushed: a second after the first event, or with the hundredth."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from apscheduler.executors.debug import DebugExecutor
from apscheduler.schedulers.base import BaseScheduler
from freezegun import freeze_time
from freezegun.api import FrozenDateTimeFactory

from flashsale.audit import AuditTrail
from flashsale.audit_rows import AuditEntry, now
from flashsale.ids import new_order_ids
from flashsale.schedule import SizeTrigger, add_interval_jobs
from flashsale.settings import Settings
from tests.support.stores import Store
from tests.support.waiting import wait_until

SOON_SECONDS = 5.0


class SteppedScheduler(BaseScheduler):  # type: ignore[misc]
    """APScheduler without a thread: :meth:`step` runs what is due, here and now."""

    def shutdown(self, wait: bool = True) -> None:
        super().shutdown(wait)

    def wakeup(self) -> None:
        """There is no sleeper."""

    def step(self) -> None:
        self._process_jobs()


@pytest.fixture
def clock() -> Iterator[FrozenDateTimeFactory]:
    with freeze_time("2026-01-02 03:04:05") as frozen:
        yield frozen


@contextmanager
def scheduled(
    trail: AuditTrail, reconciles: list[int], settings: Settings | None = None
) -> Iterator[SteppedScheduler]:
    scheduler = SteppedScheduler()
    add_interval_jobs(
        scheduler,
        settings or Settings(),
        flush=trail.flush_quietly,
        reconcile=lambda: reconciles.append(len(reconciles) + 1),
    )
    for name in ("default", "reconcile"):
        scheduler.remove_executor(name)
        scheduler.add_executor(DebugExecutor(), name)
    scheduler.start()
    yield scheduler
    scheduler.shutdown()


@contextmanager
def triggered(trail: AuditTrail) -> Iterator[None]:
    trigger = SizeTrigger(trail.flush_quietly)
    trail.on_full = trigger.flush_soon
    trigger.start()
    try:
        yield
    finally:
        trigger.stop()


def events_of(sale_id: str, count: int) -> list[AuditEntry]:
    return [
        AuditEntry.confirmed(sale_id, order_id, order_id, now())
        for order_id in new_order_ids(count)
    ]


def test_an_event_is_written_when_a_second_has_passed_and_not_before(
    store: Store, clock: FrozenDateTimeFactory
) -> None:
    trail = AuditTrail(store.database)
    with scheduled(trail, []) as scheduler:
        trail.record(events_of(store.add_sale(), 1))
        clock.tick(0.9)
        scheduler.step()
        assert store.trail() == []

        clock.tick(0.1)
        scheduler.step()
        assert len(store.trail()) == 1


def test_a_clock_that_is_set_back_keeps_nothing_waiting(
    store: Store, clock: FrozenDateTimeFactory
) -> None:
    """The timer would else be silent for as long as the clock has to go until it is late again."""
    trail, reconciles, sale_id = AuditTrail(store.database), list[int](), store.add_sale()
    with scheduled(trail, reconciles) as scheduler:
        scheduler.step()
        clock.tick(-3600)
        for events in (1, 2):
            trail.record(events_of(sale_id, 1))
            clock.tick(1)
            scheduler.step()
            assert len(store.trail()) == events

    assert reconciles == [1, 2]


def test_the_interval_is_a_setting(store: Store, clock: FrozenDateTimeFactory) -> None:
    trail = AuditTrail(store.database)
    with scheduled(trail, [], Settings(audit_interval_seconds=0.25)) as scheduler:
        trail.record(events_of(store.add_sale(), 1))
        clock.tick(0.25)
        scheduler.step()

    assert len(store.trail()) == 1


def test_a_flush_that_failed_is_tried_again_at_the_next_interval(
    store: Store, clock: FrozenDateTimeFactory
) -> None:
    trail = AuditTrail(store.database)
    with scheduled(trail, []) as scheduler:
        trail.record(events_of(store.add_sale(), 1))
        store.execute("ALTER TABLE order_audit_trail RENAME TO elsewhere")
        clock.tick(1)
        scheduler.step()
        store.execute("ALTER TABLE elsewhere RENAME TO order_audit_trail")
        clock.tick(1)
        scheduler.step()

    assert len(store.trail()) == 1


def test_a_reconcile_runs_at_the_start_and_every_minute(
    store: Store, clock: FrozenDateTimeFactory
) -> None:
    reconciles: list[int] = []
    with scheduled(AuditTrail(store.database), reconciles) as scheduler:
        scheduler.step()
        assert len(reconciles) == 1
        clock.tick(59)
        scheduler.step()
        assert len(reconciles) == 1
        clock.tick(1)
        scheduler.step()
        assert len(reconciles) == 2


def test_runs_that_were_missed_are_one_run(store: Store, clock: FrozenDateTimeFactory) -> None:
    """A host that slept an hour makes neither sixty reconciles of it nor none."""
    reconciles: list[int] = []
    with scheduled(AuditTrail(store.database), reconciles) as scheduler:
        scheduler.step()
        clock.tick(3_600)
        scheduler.step()

    assert len(reconciles) == 2


def test_a_full_batch_is_written_without_the_scheduler(store: Store) -> None:
    trail = AuditTrail(store.database, batch_size=100)
    with triggered(trail):
        trail.record(events_of(store.add_sale(), 100))
        wait_until(lambda: not len(trail), SOON_SECONDS, "the batch is written")

    assert len(store.trail()) == 100


def test_a_full_batch_that_could_not_be_written_is_with_the_next_one(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    trail = AuditTrail(store.database, batch_size=100)
    sale_id = store.add_sale()
    store.execute("ALTER TABLE order_audit_trail RENAME TO elsewhere")
    with triggered(trail):
        with caplog.at_level(logging.WARNING):
            trail.record(events_of(sale_id, 100))
            wait_until(lambda: caplog.records, SOON_SECONDS, "the flush fails")
        store.execute("ALTER TABLE elsewhere RENAME TO order_audit_trail")
        trail.record(events_of(sale_id, 1))
        wait_until(lambda: not len(trail), SOON_SECONDS, "both are written")

    assert len(store.trail()) == 101


def test_a_flush_that_fails_unforeseen_does_not_end_the_flushing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    flushed, errors = threading.Event(), [RuntimeError("user-1")]

    def flush_at_second_try() -> None:
        if errors:
            raise errors.pop()
        flushed.set()

    trigger = SizeTrigger(flush_at_second_try)
    trigger.start()
    try:
        trigger.flush_soon()
        wait_until(lambda: caplog.records, SOON_SECONDS, "the flush fails")
        trigger.flush_soon()
        assert flushed.wait(SOON_SECONDS)
    finally:
        trigger.stop()

    assert [record.cause for record in caplog.records] == ["RuntimeError"]


def test_a_trigger_that_was_never_started_stops() -> None:
    SizeTrigger(lambda: None).stop()


def test_a_trigger_may_be_stopped_twice_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    trigger = SizeTrigger(lambda: None)
    trigger.start()
    trigger.stop()
    trigger.stop()

    assert set(threading.enumerate()) <= before
