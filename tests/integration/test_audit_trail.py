"""The audit trail's rows in their table, on both databases."""

from __future__ import annotations

import threading

import pytest
from msgspec.structs import astuple

from flashsale.audit import AuditTrail
from flashsale.audit_rows import AuditEntry, now, write_events
from flashsale.batching import Batch, Delivery
from flashsale.confirmation import Confirmation
from flashsale.errors import EventFault, SystemFault, TransientFault
from flashsale.ids import new_order_ids
from flashsale.orders import OrderBook
from flashsale.purchases import Purchase
from tests.support.postgres import PrivatePostgres
from tests.support.stores import NO_SALE, Store, before_each_statement, purchases_of
from tests.support.waiting import wait_until


def confirmed(sale_id: str, *user_ids: str) -> list[AuditEntry]:
    ids = new_order_ids(len(user_ids))
    return [
        AuditEntry.confirmed(sale_id, user_id, order_id, now())
        for user_id, order_id in zip(user_ids, ids, strict=True)
    ]


def test_a_row_says_in_its_columns_what_the_event_says(store: Store) -> None:
    sale_id = store.add_sale()
    fault = TransientFault('a "deadlock" of \\ zoë', sqlstate="40P01")
    event = AuditEntry.failed(Purchase(sale_id, "zoë '\"\\"), fault, now())
    trail = AuditTrail(store.database)
    trail.record([event])
    trail.flush()

    (row,) = store.trail()
    assert row[:4] == astuple(event)[:4]
    assert row.metadata["error"] == str(fault)


def test_metadata_is_a_document_that_sql_can_search(postgres_store: Store) -> None:
    trail = AuditTrail(postgres_store.database)
    (event,) = confirmed(postgres_store.add_sale(), "user")
    trail.record([event])
    trail.flush()

    ((found,),) = postgres_store.execute(
        "SELECT id::text FROM order_audit_trail WHERE metadata->>'orderId' IS NOT NULL"
    )
    assert found == event.id


def test_every_order_has_its_row_after_a_flush(store: Store) -> None:
    trail = AuditTrail(store.database)
    confirmation = Confirmation(OrderBook(store.database), trail, failures_limit=10)
    purchases = purchases_of(store.add_sale(), *(f"user-{number:04}" for number in range(1_500)))
    confirmation.confirm_purchases(Batch(None, purchases, [Delivery(0, b"")] * 1_500))

    trail.flush()

    assert [row.metadata["orderId"] for row in store.trail()] == list(store.order_ids().values())


def test_a_flush_fails_while_the_table_is_missing_and_writes_all_once_it_is_there(
    store: Store,
) -> None:
    trail = AuditTrail(store.database)
    trail.record(confirmed(store.add_sale(), "a", "b"))
    store.execute("ALTER TABLE order_audit_trail RENAME TO elsewhere")
    with pytest.raises(SystemFault):
        trail.flush()
    store.execute("ALTER TABLE elsewhere RENAME TO order_audit_trail")

    assert trail.flush() == 2
    assert [row.user_id for row in store.trail()] == ["a", "b"]


def test_a_row_whose_reply_was_lost_is_written_once(store: Store) -> None:
    events = confirmed(store.add_sale(), "a", "b")
    for _ in range(2):
        trail = AuditTrail(store.database)
        trail.record(events)
        trail.flush()

    assert len(store.trail()) == 2


def test_the_row_of_a_sale_that_is_gone_does_not_keep_the_others_back(store: Store) -> None:
    trail = AuditTrail(store.database)
    trail.record([*confirmed(NO_SALE, "gone"), *confirmed(store.add_sale(), "kept")])

    assert trail.flush() == 2
    assert [row.user_id for row in store.trail()] == ["kept"]


def test_a_sale_that_is_deleted_during_the_insert_costs_the_others_nothing(
    postgres_server: PrivatePostgres, postgres_store: Store
) -> None:
    trail = AuditTrail(postgres_store.database)
    gone, kept = postgres_store.add_sale(), postgres_store.add_sale()
    trail.record([*confirmed(gone, "gone"), *confirmed(kept, "kept")])
    ((name,),) = postgres_store.execute("SELECT current_database()")
    administrator = postgres_server.connect(name)
    administrator.autocommit = False
    administrator.cursor().execute("DELETE FROM sales WHERE id = %s", (gone,))
    thread = threading.Thread(target=trail.flush)
    thread.start()
    wait_until(
        lambda: postgres_store.execute("SELECT 1 FROM pg_locks WHERE NOT granted"),
        5,
        "the insert waits for the delete",
    )
    administrator.commit()
    administrator.close()
    thread.join()

    assert (len(trail), [row.user_id for row in postgres_store.trail()]) == (0, ["kept"])


@pytest.mark.parametrize("bad", ["bad", "riddle"])
def test_a_row_that_the_database_refuses_does_not_hold_the_others_back(
    store: Store, caplog: pytest.LogCaptureFixture, bad: str
) -> None:
    trail = AuditTrail(store.database)
    users = [f"user-{number:03}" for number in range(300)]
    trail.record(confirmed(store.add_sale(), *users[:150], f"{bad}-secret", *users[150:]))
    store.forbid_bad_users("order_audit_trail")

    assert trail.flush() == 300
    assert (len(trail), trail.refused) == (0, 1)
    assert [row.user_id for row in store.trail()] == users
    (record,) = caplog.records
    assert record.message == "audit.rows_refused"
    assert "secret" not in str(record.__dict__)


def test_rows_wait_where_the_database_refuses_all_of_them(store: Store) -> None:
    """That is as likely the table's fault: the trail must not be dropped for it."""
    trail = AuditTrail(store.database)
    sale_id = store.add_sale()
    trail.record(confirmed(sale_id, "bad-a", "bad-b"))
    store.forbid_bad_users("order_audit_trail")

    with pytest.raises(EventFault):
        trail.flush()
    assert (len(trail), trail.refused) == (2, 0)

    trail.record(confirmed(sale_id, "good"))
    assert trail.flush() == 1
    assert (len(trail), trail.refused) == (0, 2)


def test_a_value_that_the_driver_cannot_send_does_not_hold_the_others_back(
    postgres_store: Store,
) -> None:
    trail = AuditTrail(postgres_store.database)
    trail.record(confirmed(postgres_store.add_sale(), "a", "b\0", "c"))

    assert trail.flush() == 2
    assert [row.user_id for row in postgres_store.trail()] == ["a", "c"]


def test_the_server_is_asked_once_more_only_for_rows_that_it_had_already(
    postgres_store: Store,
) -> None:
    """Those may be of a commit that is not replicated yet."""
    old, *new = confirmed(postgres_store.add_sale(), "old", "a", "b")

    told = []
    for events in ([old], new, [old]):
        statements: list[int] = []
        with before_each_statement(postgres_store.database, statements.append):
            write_events(postgres_store.database, events)
        told.append(len(statements))

    assert told == [1, 1, 2]


def test_two_workers_that_write_the_same_rows_do_not_deadlock(store: Store) -> None:
    """A reconciler and a flush may: rows are locked in the order of their ids."""
    sale_id = store.add_sale()
    rounds = [confirmed(sale_id, *(f"{n}-{number}" for number in range(200))) for n in range(20)]
    together = threading.Barrier(2)
    failures: list[Exception] = []

    def write(step: int) -> None:
        try:
            for events in rounds:
                together.wait(30)
                write_events(store.database, events[::step])
        except Exception as error:  # noqa: BLE001  (whatever it is, the test is to show it)
            failures.append(error)
            together.abort()

    threads = [threading.Thread(target=write, args=(step,)) for step in (1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert len(store.trail()) == 4_000
