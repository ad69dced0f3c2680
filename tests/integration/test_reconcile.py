"""The reconciler: every order has its CONFIRMED row in the end, whoever wrote it and died."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, tzinfo

import pytest
from msgspec.structs import astuple, replace

import flashsale.reconcile
from flashsale.audit import AuditTrail
from flashsale.audit_rows import AuditEntry, now
from flashsale.errors import StoreError, SystemFault
from flashsale.orders import OrderBook
from flashsale.reconcile import Reconciler
from flashsale.verification import verify
from tests.support.postgres import PrivatePostgres
from tests.support.stores import Store, purchases_of

# Before which nothing is too young: negative, since two clocks may be a little apart.
IN_A_SECOND = -timedelta(seconds=1)
LONG_AGO = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)


# Leadership belongs to a connection and a connection to a thread, so that in these tests a thread
# of its own stands for another process.


def add_order(
    store: Store, sale_id: str, user_id: str, *, at: datetime = LONG_AGO, status: str = "CONFIRMED"
) -> str:
    """An order as the old worker wrote it: with a random id, and here without its audit row."""
    order_id = str(uuid.uuid4())
    store.execute(
        "INSERT INTO orders (id, sale_id, user_id, status, created_at) VALUES (?, ?, ?, ?, ?)",
        *(order_id, sale_id, user_id, status, at.isoformat(" ")),
    )
    return order_id


@pytest.fixture
def reconciler(store: Store) -> Iterator[Reconciler]:
    made = Reconciler(store.database)
    yield made
    made.release()


def test_an_order_without_a_row_gets_the_very_row_its_worker_would_have_written(
    store: Store, reconciler: Reconciler
) -> None:
    sale_id = store.add_sale()
    OrderBook(store.database).confirm(purchases_of(sale_id, "user"), [None])
    order_id = store.order_ids()[sale_id, "user"]

    assert reconciler.run(settling=IN_A_SECOND) == 1
    (row,) = store.trail()
    assert row[:4] == astuple(AuditEntry.confirmed(sale_id, "user", order_id, now()))[:4]
    assert row.metadata["orderId"] == order_id


def test_the_row_has_the_time_of_its_order(store: Store, reconciler: Reconciler) -> None:
    add_order(store, store.add_sale(), "user")
    reconciler.run()

    (row,) = store.trail()
    assert row.metadata["processedAt"] == "2026-01-02T03:04:05.678Z"


def test_exactly_the_missing_rows_are_written(store: Store, reconciler: Reconciler) -> None:
    """Not for orders that have one, be its id another's; and once only."""
    sale_id = store.add_sale()
    complete = add_order(store, sale_id, "complete")
    trail = AuditTrail(store.database)
    trail.record([AuditEntry.confirmed(sale_id, "complete", complete, now())])
    add_order(store, sale_id, "by the old worker")
    trail.record([AuditEntry.confirmed(sale_id, "by the old worker", str(uuid.uuid4()), now())])
    add_order(store, sale_id, "failed first")
    trail.record([AuditEntry(str(uuid.uuid4()), sale_id, "failed first", "FAILED_DB", "{}")])
    trail.flush()
    add_order(store, sale_id, "missing")
    add_order(store, sale_id, "cancelled", status="CANCELLED")

    assert reconciler.run() == 2
    assert [row.user_id for row in store.trail() if row.event_type == "CONFIRMED"] == [
        "by the old worker",
        "complete",
        "failed first",
        "missing",
    ]
    assert Reconciler(store.database).run() == 0


def test_an_old_worker_whose_clock_is_behind_may_get_a_second_row_which_verify_tells(
    postgres_store: Store,
) -> None:
    """It dates its orders itself: one of this moment seems old, and its row to be missing."""
    sale_id = postgres_store.add_sale()
    order_id = add_order(postgres_store, sale_id, "user", at=now() - timedelta(seconds=15))
    reconciler = Reconciler(postgres_store.database)
    assert reconciler.run() == 1
    reconciler.release()

    trail = AuditTrail(postgres_store.database)
    of_the_old_worker = AuditEntry.confirmed(sale_id, "user", order_id, now())
    trail.record([replace(of_the_old_worker, id=str(uuid.uuid4()))])
    trail.flush()

    (finding,) = verify(postgres_store.database).violations
    assert (finding.check.name, finding.cases) == ("repeated_audit", 1)


def test_a_row_that_the_database_refuses_does_not_hold_the_others_back(
    store: Store, reconciler: Reconciler, caplog: pytest.LogCaptureFixture
) -> None:
    sale_id = store.add_sale()
    for user_id in ("a", "bad", "c"):
        add_order(store, sale_id, user_id)
    store.forbid_bad_users("order_audit_trail")

    assert reconciler.run() == 2
    assert reconciler.written == 2
    assert [row.user_id for row in store.trail()] == ["a", "c"]
    assert "audit.rows_refused" in [record.message for record in caplog.records]


def test_orders_that_a_table_refused_all_are_searched_for_again(
    store: Store, reconciler: Reconciler
) -> None:
    sale_id = store.add_sale()
    for number in range(20):
        add_order(store, sale_id, f"bad-{number}")
    store.forbid_bad_users("order_audit_trail")
    with pytest.raises(StoreError):
        reconciler.run()

    store.execute(
        "ALTER TABLE order_audit_trail DROP CONSTRAINT forbidden"
        if store.on_postgres
        else "DROP TRIGGER forbidden"
    )
    assert reconciler.run() == 20


def test_a_young_order_is_left_to_the_queue_of_its_worker(
    store: Store, reconciler: Reconciler
) -> None:
    add_order(store, store.add_sale(), "user", at=now())
    assert reconciler.run() == 0
    assert store.trail() == []

    assert reconciler.run(settling=IN_A_SECOND) == 1


@pytest.mark.parametrize("orders_per_window", [1, 3, 4, 100])
def test_windows_miss_no_order_though_many_have_one_time(
    store: Store,
    reconciler: Reconciler,
    monkeypatch: pytest.MonkeyPatch,
    orders_per_window: int,
) -> None:
    """All orders of a batch have the same time, wherever the window ends."""
    monkeypatch.setattr(flashsale.reconcile, "_ORDERS_PER_WINDOW", orders_per_window)
    sale_id = store.add_sale()
    for number in range(12):
        at = LONG_AGO + timedelta(milliseconds=number // 4)
        add_order(store, sale_id, f"user-{number:02}", at=at)

    assert reconciler.run() == 12
    assert [row.user_id for row in store.trail()] == store.users()


def test_a_search_begins_where_the_last_one_ended(store: Store, reconciler: Reconciler) -> None:
    """With an overlap, for transactions that began before its end and committed after it."""
    sale_id = store.add_sale()
    reconciler.run()
    add_order(store, sale_id, "long searched", at=now() - timedelta(hours=1))
    add_order(store, sale_id, "just committed", at=now() - timedelta(seconds=30))

    assert reconciler.run() == 1
    assert [row.user_id for row in store.trail()] == ["just committed"]


def test_the_newest_orders_are_searched_first_and_the_others_a_while_at_a_time(
    store: Store, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that starts beside millions of orders has a sale to serve."""
    monkeypatch.setattr(flashsale.reconcile, "_ORDERS_PER_WINDOW", 2)
    sale_id = store.add_sale()
    for number in range(12):
        add_order(store, sale_id, f"user-{number:02}", at=LONG_AGO + timedelta(seconds=number))
    reconciler.run()
    store.execute("DELETE FROM order_audit_trail WHERE user_id IN ('user-00', 'user-11')")

    anew = Reconciler(store.database)
    reconciler.release()
    runs = [anew.run(history_seconds=1e-9) for _ in range(12)]
    anew.release()

    assert runs[0] == 1
    assert sum(runs) == 2
    assert store.trail()[-1].user_id == "user-11"
    assert runs.index(1, 1) > 1


def test_a_host_whose_clock_is_ahead_misses_no_order(
    postgres_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orders are dated by the server, so its clock alone tells how far the search has come."""

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) + timedelta(hours=1)

    monkeypatch.setattr(flashsale.reconcile, "datetime", Ahead)
    reconciler = Reconciler(postgres_store.database)
    sale_id = postgres_store.add_sale()
    reconciler.run()
    add_order(postgres_store, sale_id, "since then", at=now() - timedelta(seconds=30))

    assert reconciler.run() == 1
    reconciler.release()


def test_a_server_whose_clock_is_set_back_misses_no_order(
    store: Store, reconciler: Reconciler
) -> None:
    """A search up to an hour from now stands for one before the clock was set back."""
    sale_id = store.add_sale()
    reconciler.run(settling=-timedelta(hours=1))
    assert reconciler.run() == 0
    add_order(store, sale_id, "since then", at=now() - timedelta(seconds=30))

    assert reconciler.run() == 1


def test_a_search_that_failed_is_made_again(store: Store, reconciler: Reconciler) -> None:
    add_order(store, store.add_sale(), "user")
    store.execute("ALTER TABLE order_audit_trail RENAME TO elsewhere")
    with pytest.raises(SystemFault):
        reconciler.run()
    store.execute("ALTER TABLE elsewhere RENAME TO order_audit_trail")

    assert reconciler.run() == 1


def test_searches_that_fail_are_told_at_the_first_and_when_they_work_again(
    store: Store, reconciler: Reconciler, caplog: pytest.LogCaptureFixture
) -> None:
    """While they fail, an order may be without its audit row."""
    caplog.set_level(logging.INFO, "flashsale")
    store.execute("ALTER TABLE order_audit_trail RENAME TO elsewhere")
    add_order(store, store.add_sale(), "user")
    reconciler.run_quietly()
    reconciler.run_quietly()
    store.execute("ALTER TABLE elsewhere RENAME TO order_audit_trail")
    reconciler.run_quietly()

    assert [record.message for record in caplog.records] == [
        "audit.reconcile_failed",
        "audit.reconciled",
        "audit.reconcile_resumed",
    ]


def test_one_process_searches_until_it_gives_up_its_lead(postgres_store: Store) -> None:
    leader, other = Reconciler(postgres_store.database), Reconciler(postgres_store.database)
    with ThreadPoolExecutor(1) as elsewhere:
        assert leader.run() == 0
        assert elsewhere.submit(other.run).result() is None
        assert leader.run() == 0

        leader.release()
        assert elsewhere.submit(other.run).result() == 0
        assert leader.run() is None
        elsewhere.submit(other.release).result()


def test_a_search_that_failed_gives_up_its_lead(postgres_store: Store) -> None:
    """It may be this process alone that cannot search."""
    leader, other = Reconciler(postgres_store.database), Reconciler(postgres_store.database)
    postgres_store.execute("ALTER TABLE order_audit_trail RENAME TO elsewhere")
    with ThreadPoolExecutor(1) as elsewhere:
        with pytest.raises(SystemFault):
            leader.run()
        postgres_store.execute("ALTER TABLE elsewhere RENAME TO order_audit_trail")

        assert elsewhere.submit(other.run).result() == 0
        elsewhere.submit(other.release).result()


def test_another_takes_over_when_the_leaders_connection_dies(
    postgres_server: PrivatePostgres, postgres_store: Store
) -> None:
    """And has missed nothing, though it waited long and the leader had stopped searching."""
    leader, other = Reconciler(postgres_store.database), Reconciler(postgres_store.database)
    leader.run()
    with ThreadPoolExecutor(1) as elsewhere:
        assert elsewhere.submit(other.run).result() is None
        add_order(postgres_store, postgres_store.add_sale(), "user")
        end_lock_holder(postgres_server, postgres_store)

        assert elsewhere.submit(other.run).result() == 1
        with pytest.raises(StoreError):
            leader.run()
        assert leader.run() is None
        elsewhere.submit(other.release).result()


def end_lock_holder(server: PrivatePostgres, store: Store) -> None:
    ((name,),) = store.execute("SELECT current_database()")
    administrator = server.connect(name)
    cursor = administrator.cursor()
    cursor.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks"
        " WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database"
        " WHERE datname = current_database())"
    )
    assert cursor.fetchall() == [(True,)]
    administrator.close()


def test_release_may_be_repeated_and_come_first(reconciler: Reconciler) -> None:
    reconciler.release()
    reconciler.release()
    reconciler.run()
    reconciler.release()
    reconciler.release()


def test_a_release_gives_the_connection_back(postgres_store: Store) -> None:
    reconciler = Reconciler(postgres_store.database)
    reconciler.run()
    assert not postgres_store.database.is_closed()

    reconciler.release()
    assert postgres_store.database.is_closed()
