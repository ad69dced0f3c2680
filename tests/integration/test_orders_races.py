"""Orders while others change the same tables: sales that come and go, locks, other workers."""

from __future__ import annotations

import threading

import pytest

from flashsale.errors import TransientFault
from flashsale.orders import Confirmed, OrderBook, Outcome, Refused
from flashsale.purchases import Purchase, Reason
from tests.support.postgres import PrivatePostgres
from tests.support.stores import (
    NO_SALE,
    Store,
    before_each_statement,
    numbered_purchases,
    open_store,
    purchases_of,
)
from tests.support.waiting import wait_until

BATCH = 500


def test_a_sale_that_begins_while_its_purchase_is_written_makes_no_duplicate_of_it(
    store: Store,
) -> None:
    """Without an order it must not pass for a repeat, which would lose it: it is tried again."""
    outcomes: list[Outcome | None] = [None]

    def begin_the_sale(statement: int) -> None:
        if statement == 2:
            store.execute(
                "INSERT INTO sales (id, name, total_stock, starts_at, ends_at, updated_at)"
                " SELECT ?, name, total_stock, starts_at, ends_at, updated_at FROM sales",
                NO_SALE,
            )

    store.add_sale()
    purchases = [Purchase(NO_SALE, "early")]
    with (
        before_each_statement(store.database, begin_the_sale),
        pytest.raises(TransientFault) as caught,
    ):
        OrderBook(store.database).confirm(purchases, outcomes)

    assert str(caught.value) == "a sale or an order changed while it was written"
    assert outcomes == [None]
    (outcome,) = store.confirm(purchases)
    assert isinstance(outcome, Confirmed)


@pytest.mark.parametrize("neighbours", [[], ["neighbour"]])
def test_a_sale_that_is_deleted_during_the_insert_is_unknown(
    postgres_server: PrivatePostgres, postgres_store: Store, neighbours: list[str]
) -> None:
    """The join still saw the sale and the foreign key did not: no doing of the event's."""
    gone, kept = postgres_store.add_sale(), postgres_store.add_sale()
    ((name,),) = postgres_store.execute("SELECT current_database()")
    outcomes: list[list[Outcome | None]] = []
    purchases = [Purchase(gone, "user"), *purchases_of(kept, *neighbours)]
    administrator = postgres_server.connect(name)
    administrator.autocommit = False
    administrator.cursor().execute("DELETE FROM sales WHERE id = %s", (gone,))
    worker = threading.Thread(target=lambda: outcomes.append(postgres_store.confirm(purchases)))
    worker.start()
    wait_until(
        lambda: postgres_store.execute("SELECT 1 FROM pg_locks WHERE NOT granted"),
        5,
        "the insert waits for the delete",
    )
    administrator.commit()
    administrator.close()
    worker.join()

    ((of_gone_sale, *others),) = outcomes
    assert isinstance(of_gone_sale, Refused)
    assert of_gone_sale.reason is Reason.UNKNOWN_SALE
    assert all(isinstance(outcome, Confirmed) for outcome in others)
    assert postgres_store.users() == neighbours


def test_a_table_that_an_administrator_has_locked_is_bad_luck(
    postgres_server: PrivatePostgres, postgres_url: str
) -> None:
    with open_store(postgres_url, migrated=True, statement_timeout_seconds=0.2) as store:
        purchases = purchases_of(store.add_sale(), "user")
        ((name,),) = store.execute("SELECT current_database()")
        administrator = postgres_server.connect(name)
        administrator.autocommit = False
        administrator.cursor().execute("LOCK TABLE orders")

        with pytest.raises(TransientFault, match="55P03"):
            store.confirm(purchases)
        administrator.rollback()
        administrator.close()

        assert isinstance(store.confirm(purchases)[0], Confirmed)


def test_workers_with_the_same_purchases_in_opposite_orders_do_not_deadlock(store: Store) -> None:
    rounds = [numbered_purchases(store.add_sale(), 100) for _ in range(20)]
    together = threading.Barrier(2)
    confirmed: list[Outcome | None] = []
    failures: list[Exception] = []

    def work(step: int) -> None:
        try:
            for purchases in rounds:
                together.wait(30)
                confirmed.extend(store.confirm(purchases[::step]))
        except Exception as error:  # noqa: BLE001  (whatever it is, the test is to show it)
            failures.append(error)
            together.abort()

    threads = [threading.Thread(target=work, args=(step,)) for step in (1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    ids = [outcome.order_id for outcome in confirmed if isinstance(outcome, Confirmed)]
    assert sorted(ids) == sorted(store.order_ids().values())
    assert len(ids) == 2_000
