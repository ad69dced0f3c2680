"""Orders: one outcome for each purchase, whatever its neighbours or the database do."""

from __future__ import annotations

import math
import uuid
from collections import Counter
from collections.abc import Sequence

import pytest

from flashsale.errors import SystemFault, TransientFault, UnclassifiedFault
from flashsale.orders import Confirmed, Duplicate, OrderBook, Outcome, Refused
from flashsale.purchases import Purchase, Reason
from tests.support.postgres import PrivatePostgres
from tests.support.stores import (
    NO_SALE,
    Store,
    before_each_statement,
    numbered_purchases,
    purchases_of,
)

BATCH = 500


def test_each_purchase_of_a_mixed_batch_has_its_outcome_at_its_index(store: Store) -> None:
    sale_id = store.add_sale()
    store.confirm(purchases_of(sale_id, "early"))

    first, early, lost, second = store.confirm(
        [
            Purchase(sale_id, "first"),
            Purchase(sale_id, "early"),
            Purchase(NO_SALE, "lost"),
            Purchase(sale_id, "second"),
        ],
    )

    assert isinstance(first, Confirmed)
    assert isinstance(second, Confirmed)
    assert early == Duplicate()
    assert lost == Refused(Reason.UNKNOWN_SALE)
    ids = store.order_ids()
    assert sorted(ids) == [(sale_id, "early"), (sale_id, "first"), (sale_id, "second")]
    assert first.order_id == ids[sale_id, "first"]
    assert second.order_id == ids[sale_id, "second"]


def test_a_purchase_twice_in_a_batch_is_one_order_and_one_duplicate(store: Store) -> None:
    sale_id = store.add_sale()

    outcomes = store.confirm(purchases_of(sale_id, "twice", "once", "twice"))

    assert isinstance(outcomes[1], Confirmed)
    confirmed = [outcome for outcome in outcomes[::2] if isinstance(outcome, Confirmed)]
    assert len(confirmed) == outcomes[::2].count(Duplicate()) == 1
    assert store.order_ids()[sale_id, "twice"] == confirmed[0].order_id


def test_one_user_may_have_an_order_in_each_sale(store: Store) -> None:
    sales = [store.add_sale(), store.add_sale()]

    outcomes = store.confirm([Purchase(sale_id, "user") for sale_id in sales])

    assert all(isinstance(outcome, Confirmed) for outcome in outcomes)


def test_a_batch_whose_reply_was_lost_is_confirmed_again_without_harm(store: Store) -> None:
    purchases = numbered_purchases(store.add_sale(), 20)
    store.confirm(purchases)
    written = store.order_ids()

    assert store.confirm(purchases) == [Duplicate()] * 20
    assert store.order_ids() == written


@pytest.mark.parametrize(
    "user_id", ["zoë", "日本", "a'b\"c\\d", "{}", "%s", "NULL", "\N{PILE OF POO}"]
)
def test_a_user_id_is_stored_code_point_for_code_point(store: Store, user_id: str) -> None:
    store.confirm(purchases_of(store.add_sale(), user_id, "neighbour"))

    assert sorted(store.users()) == sorted([user_id, "neighbour"])


def test_a_purchase_that_the_database_refuses_does_not_cost_its_neighbours(store: Store) -> None:
    sale_id = store.add_sale()
    store.forbid_bad_users()

    outcomes = store.confirm(purchases_of(sale_id, "a", "b", "bad-c", "d", "bad-e"))

    sqlstate = "23514" if store.on_postgres else None
    assert [isinstance(outcome, Confirmed) for outcome in outcomes] == [
        user_id in "abd" for user_id in ("a", "b", "bad-c", "d", "bad-e")
    ]
    assert outcomes[2] == outcomes[4] == Refused(Reason.CONSTRAINT, sqlstate)
    assert isinstance(outcomes[2], Refused)
    rule = "forbidden (SQLSTATE 23514)" if store.on_postgres else "a constraint of SQLite"
    assert outcomes[2].explanation == f"refused by {rule}"
    assert store.users() == ["a", "b", "d"]


@pytest.mark.parametrize("unsendable", ["secret\0user", "secret\nuser"])
def test_a_value_that_cannot_be_sent_is_isolated_and_not_quoted(
    postgres_store: Store, unsendable: str
) -> None:
    """Nothing is concluded from it: the purchase keeps no outcome, so it is tried again."""
    purchases = purchases_of(postgres_store.add_sale(), "a", unsendable, "c")
    outcomes: list[Outcome | None] = [None] * 3

    with pytest.raises(UnclassifiedFault) as caught:
        OrderBook(postgres_store.database).confirm(purchases, outcomes)

    assert [outcome is None for outcome in outcomes] == [False, True, False]
    assert postgres_store.users() == ["a", "c"]
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("bad", [1, 2, 5, 50])
@pytest.mark.parametrize("kinds", [("bad",), ("riddle",), ("bad", "riddle")])
def test_the_statements_that_bad_purchases_cost_are_bounded(
    store: Store, kinds: Sequence[str], bad: int
) -> None:
    """2·log2(batch) more statements for each that is bad, and not one for each good."""
    purchases = numbered_purchases(store.add_sale(), BATCH)
    for number in range(bad):
        at = number * BATCH // bad
        user_id = f"{kinds[number % len(kinds)]}-{number}"
        purchases[at] = Purchase(purchases[at].sale_id, user_id)
    store.forbid_bad_users()
    statements: list[int] = []

    with before_each_statement(store.database, statements.append):
        outcomes = store.confirm(purchases)

    sqlstates = {"bad": "23514", "riddle": "22012"}
    assert Counter(outcome for outcome in outcomes if isinstance(outcome, Refused)) == Counter(
        Refused(
            Reason.CONSTRAINT,
            sqlstates[kinds[number % len(kinds)]] if store.on_postgres else None,
        )
        for number in range(bad)
    )
    assert len(store.users()) == BATCH - bad
    assert len(statements) <= 1 + 2 * bad * math.log2(BATCH) + 1


def test_a_purchase_that_the_database_names_costs_two_statements(postgres_store: Store) -> None:
    """Those before it are written without it, then those after it, in pieces: no search."""
    purchases = numbered_purchases(postgres_store.add_sale(), BATCH)
    for at in range(5, BATCH, 10):
        purchases[at] = Purchase(purchases[at].sale_id, f"bad-{at:03}")
    postgres_store.forbid_bad_users()
    statements: list[int] = []

    with before_each_statement(postgres_store.database, statements.append):
        outcomes = postgres_store.confirm(purchases)

    assert sum(isinstance(outcome, Refused) for outcome in outcomes) == BATCH // 10
    assert len(statements) <= 1 + 2 * (BATCH // 10) + BATCH // 64


def test_good_purchases_are_not_sent_again_for_each_that_the_database_names(
    postgres_store: Store,
) -> None:
    """Those before the first of them are known to be good, in whatever order they came."""
    sale_id = postgres_store.add_sale()
    bad = [f"bad-{number}" for number in range(10)]
    good = [f"a-{number:02}" for number in range(100)]
    postgres_store.forbid_bad_users()
    # A sequence keeps count of what is rolled back, too.
    postgres_store.execute("CREATE SEQUENCE rows_taken")
    postgres_store.execute(
        "CREATE FUNCTION count_row() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM nextval(''rows_taken''); RETURN new; END'"
    )
    postgres_store.execute(
        "CREATE TRIGGER count_row BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION count_row()"
    )

    postgres_store.confirm(purchases_of(sale_id, *good, *reversed(bad)))

    assert postgres_store.users() == good
    ((rows_taken,),) = postgres_store.execute("SELECT last_value FROM rows_taken")
    assert rows_taken == 2 * 100 + 10


def test_bad_purchases_and_unknown_sales_among_them_do_not_multiply(store: Store) -> None:
    sale_id = store.add_sale()
    purchases = numbered_purchases(sale_id, BATCH)
    purchases[7] = Purchase(sale_id, "riddle")
    purchases[::5] = [Purchase(str(uuid.uuid4()), "lost") for _ in purchases[::5]]
    store.forbid_bad_users()
    statements: list[int] = []

    with before_each_statement(store.database, statements.append):
        outcomes = store.confirm(purchases)

    assert outcomes.count(Refused(Reason.UNKNOWN_SALE)) == BATCH // 5
    for_the_unknown = 1
    assert len(statements) <= 1 + 2 * math.log2(BATCH) + 1 + for_the_unknown


def test_unknown_sales_cost_one_statement_whatever_their_number(store: Store) -> None:
    purchases = numbered_purchases(store.add_sale(), BATCH)
    purchases[::2] = [Purchase(str(uuid.uuid4()), "lost") for _ in purchases[::2]]
    statements: list[int] = []

    with before_each_statement(store.database, statements.append):
        outcomes = store.confirm(purchases)

    assert outcomes.count(Refused(Reason.UNKNOWN_SALE)) == BATCH // 2
    assert len(statements) == 2


def test_a_good_batch_is_one_statement(store: Store) -> None:
    purchases = numbered_purchases(store.add_sale(), BATCH)
    statements: list[int] = []

    with before_each_statement(store.database, statements.append):
        store.confirm(purchases)

    assert len(statements) == 1


def test_what_was_reached_before_the_system_failed_is_known(store: Store) -> None:
    """The batch is taken apart for its bad purchase; the table goes when half is settled."""
    sale_id = store.add_sale()
    store.forbid_bad_users()
    purchases = purchases_of(sale_id, "a", "bad", "c", "d")
    outcomes: list[Outcome | None] = [None] * 4
    # After all four and "a"; SQLite does not name the bad one, so also the first half and "bad".
    second_half = 3 if store.on_postgres else 5

    def rename_orders(statement: int) -> None:
        if statement == second_half:
            store.execute("ALTER TABLE orders RENAME TO elsewhere")

    with (
        before_each_statement(store.database, rename_orders),
        pytest.raises(SystemFault),
    ):
        OrderBook(store.database).confirm(purchases, outcomes)

    assert isinstance(outcomes[0], Confirmed)
    assert isinstance(outcomes[1], Refused)
    assert outcomes[2:] == [None, None]


def test_orders_are_known_as_written_where_the_look_at_the_others_fails(
    postgres_server: PrivatePostgres, postgres_store: Store
) -> None:
    """The insert has committed: what follows for the rows it did not return cannot undo it."""
    sale_id = postgres_store.add_sale()
    postgres_store.confirm(purchases_of(sale_id, "early"))
    purchases = purchases_of(sale_id, "new", "early")
    outcomes: list[Outcome | None] = [None, None]
    ((name,),) = postgres_store.execute("SELECT current_database()")

    def cut_connection(statement: int) -> None:
        if statement == 2:
            administrator = postgres_server.connect()
            administrator.cursor().execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s",
                (name,),
            )
            administrator.close()

    with (
        before_each_statement(postgres_store.database, cut_connection),
        pytest.raises(TransientFault),
    ):
        OrderBook(postgres_store.database).confirm(purchases, outcomes)

    assert outcomes == [Confirmed(postgres_store.order_ids()[sale_id, "new"]), None]
