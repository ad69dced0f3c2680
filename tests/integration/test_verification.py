"""Every kind of wrong that the tables can hold is found, under its own name and no other's."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from flashsale.audit import AuditTrail
from flashsale.audit_rows import AuditEntry, now
from flashsale.errors import StoreError
from flashsale.orders import OrderBook
from flashsale.verification import (
    CHECKS,
    UnknownSale,
    Verification,
    count_unaudited,
    verify,
)
from tests.support.stores import Store, purchases_of

AT_ONCE = -timedelta(seconds=1)  # no order is too young
SHOPPERS = ("ann", "bob", "cem")

Plant = Callable[[Store, str], None]


def sold(store: Store, *users: str) -> str:
    """A sale with an order of each user and all of their audit rows."""
    sale_id = store.add_sale()
    OrderBook(store.database).confirm(purchases_of(sale_id, *users), [None] * len(users))
    trail = AuditTrail(store.database)
    trail.record(
        AuditEntry.confirmed(sale_id, user, store.order_ids()[sale_id, user], now())
        for user in users
    )
    trail.flush()
    return sale_id


def found(verification: Verification) -> dict[str, int]:
    return {finding.check.name: finding.cases for finding in verification.violations}


def add_order(store: Store, sale_id: str, user_id: str, *, status: str = "CONFIRMED") -> str:
    order_id = str(uuid.uuid4())
    store.execute(
        "INSERT INTO orders (id, sale_id, user_id, status, created_at)"
        " VALUES (?, ?, ?, ?, '2026-01-01 00:00:00+00:00')",
        *(order_id, sale_id, user_id, status),
    )
    return order_id


def add_confirmation(store: Store, sale_id: str, user_id: str, order_id: str) -> None:
    store.execute(
        "INSERT INTO order_audit_trail (id, sale_id, user_id, event_type, metadata, created_at)"
        " VALUES (?, ?, ?, 'CONFIRMED', ?, '2026-01-01 00:00:00+00:00')",
        *(str(uuid.uuid4()), sale_id, user_id, json.dumps({"orderId": order_id})),
    )


def an_order_twice(store: Store, sale_id: str) -> None:
    store.execute("DROP INDEX orders_sale_id_user_id_key")
    add_order(store, sale_id, "ann")


def less_stock(store: Store, sale_id: str) -> None:
    store.execute("UPDATE sales SET total_stock = 2 WHERE id = ?", sale_id)


def a_deleted_sale(store: Store, sale_id: str) -> None:
    store.execute("ALTER TABLE orders DROP CONSTRAINT orders_sale_id_fkey")
    store.execute("DELETE FROM sales WHERE id = ?", sale_id)


def a_cancelled_order(store: Store, sale_id: str) -> None:
    store.execute("UPDATE orders SET status = 'CANCELLED' WHERE user_id = 'ann'")


def a_lost_audit_row(store: Store, sale_id: str) -> None:
    store.execute("DELETE FROM order_audit_trail WHERE user_id = 'ann'")


def an_audit_row_twice(store: Store, sale_id: str) -> None:
    add_confirmation(store, sale_id, "ann", store.order_ids()[sale_id, "ann"])


def a_lost_order(store: Store, sale_id: str) -> None:
    store.execute("DELETE FROM orders WHERE user_id = 'ann'")


def an_audit_row_of_another_order(store: Store, sale_id: str) -> None:
    store.execute("DELETE FROM order_audit_trail WHERE user_id = 'ann'")
    add_confirmation(store, sale_id, "ann", store.order_ids()[sale_id, "bob"])


def an_audit_row_without_its_order_id(store: Store, sale_id: str) -> None:
    store.execute("UPDATE order_audit_trail SET metadata = NULL WHERE user_id = 'ann'")


def no_unique_index(store: Store, sale_id: str) -> None:
    store.execute("DROP INDEX orders_sale_id_user_id_key")


def a_unique_index_on_too_much(store: Store, sale_id: str) -> None:
    no_unique_index(store, sale_id)
    store.execute("CREATE UNIQUE INDEX ON orders (sale_id, user_id, status)")


def no_foreign_key(store: Store, sale_id: str) -> None:
    store.execute("ALTER TABLE order_audit_trail DROP CONSTRAINT order_audit_trail_sale_id_fkey")


ON_BOTH: dict[Plant, set[str]] = {
    less_stock: {"oversold"},
    a_cancelled_order: {"unexpected_status"},
    a_lost_audit_row: {"orders_without_audit"},
    an_audit_row_twice: {"repeated_audit"},
    a_lost_order: {"audit_without_order"},
    an_audit_row_of_another_order: {"audit_of_another_order"},
    an_audit_row_without_its_order_id: {"audit_of_another_order"},
}
ON_POSTGRES: dict[Plant, set[str]] = {
    an_order_twice: {"duplicate_buyers", "no_unique_index"},
    # The sale's audit rows went with it.
    a_deleted_sale: {"orders_of_no_sale", "no_foreign_key", "orders_without_audit"},
    no_unique_index: {"no_unique_index"},
    a_unique_index_on_too_much: {"no_unique_index"},
    no_foreign_key: {"no_foreign_key"},
}


def test_what_a_worker_writes_is_right_in_every_way(store: Store) -> None:
    sold(store, *SHOPPERS)

    verification = verify(store.database, grace=AT_ONCE)
    assert found(verification) == {}
    assert (verification.orders, verification.confirmed_rows, verification.pending) == (3, 3, 0)


@pytest.mark.parametrize("plant", ON_BOTH, ids=lambda plant: plant.__name__)
def test_a_planted_violation_is_found(store: Store, plant: Plant) -> None:
    sale_id = sold(store, *SHOPPERS)
    plant(store, sale_id)

    assert found(verify(store.database, grace=AT_ONCE)) == dict.fromkeys(ON_BOTH[plant], 1)
    assert found(verify(store.database, sale_id, grace=AT_ONCE)).keys() == ON_BOTH[plant]


@pytest.mark.postgres
@pytest.mark.parametrize("plant", ON_POSTGRES, ids=lambda plant: plant.__name__)
def test_a_violation_that_postgres_would_not_allow_is_found(
    postgres_store: Store, plant: Plant
) -> None:
    sale_id = sold(postgres_store, *SHOPPERS)
    plant(postgres_store, sale_id)

    assert found(verify(postgres_store.database, grace=AT_ONCE)).keys() == ON_POSTGRES[plant]


def test_every_check_has_a_violation_planted_for_it() -> None:
    planted = set().union(*ON_BOTH.values(), *ON_POSTGRES.values())
    assert {check.name for check in CHECKS} == planted


def test_one_sale_is_not_blamed_for_another(store: Store) -> None:
    spoilt, sound = sold(store, "ann"), sold(store, "bob")
    store.execute("DELETE FROM order_audit_trail WHERE sale_id = ?", spoilt)

    verification = verify(store.database, sound, grace=AT_ONCE)
    assert found(verification) == {}
    assert [(stock.sale_id, stock.sold) for stock in verification.stocks] == [(sound, 1)]
    assert {stock.sale_id for stock in verify(store.database).stocks} == {spoilt, sound}


def test_a_sale_that_nothing_knows_is_an_error_and_not_a_sound_one(store: Store) -> None:
    with pytest.raises(UnknownSale, match="nothing here knows"):
        verify(store.database, str(uuid.uuid4()))


def test_a_young_order_without_its_audit_row_is_pending_and_not_wrong(store: Store) -> None:
    sale_id = store.add_sale()
    OrderBook(store.database).confirm(purchases_of(sale_id, "ann"), [None])

    verification = verify(store.database)
    assert found(verification) == {}
    assert verification.pending == 1
    assert count_unaudited(store.database, timedelta(seconds=10)) == 0
    assert count_unaudited(store.database, AT_ONCE) == 1


def test_examples_name_the_rows_and_the_count_tells_of_the_others(store: Store) -> None:
    sale_id = sold(store, *(f"user-{number}" for number in range(7)))
    store.execute("DELETE FROM order_audit_trail WHERE sale_id = ?", sale_id)

    (finding,) = verify(store.database, grace=AT_ONCE).violations
    assert finding.cases == 7
    assert len(finding.examples) == 5
    assert set(finding.examples) <= set(store.order_ids().values())


@pytest.mark.postgres
def test_an_order_committed_between_two_checks_is_seen_by_none_of_them(
    postgres_store: Store,
) -> None:
    store = postgres_store
    sale_id = sold(store, "ann")

    def sell_another(done: int) -> None:
        if done == 1:
            with ThreadPoolExecutor(1) as another_connection:
                another_connection.submit(add_order, store, sale_id, "bob").result()

    verification = verify(store.database, grace=AT_ONCE, advance=sell_another)
    assert store.users() == ["ann", "bob"]
    assert verification.orders == 1
    assert found(verification) == {}


def test_a_missing_table_is_an_error_and_not_a_finding(store: Store) -> None:
    store.execute("DROP TABLE order_audit_trail")
    with pytest.raises(StoreError):
        verify(store.database)
